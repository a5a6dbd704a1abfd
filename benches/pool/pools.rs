//! The compared pools, behind one trait.

use std::fmt::Debug;
use std::ops::Deref;
use std::time::Duration;

use deadpool::Runtime;
use deadpool::managed::{Manager, Metrics, Object, Pool, PoolError, RecycleResult};
use poolscope::config::Settings;
use poolscope::error::CheckoutError;
use poolscope::pool::{Backend, Guard};
use poolscope::telemetry::Collector;

use crate::BoxError;
use crate::wrapper::{MetricsGuard, MetricsWrapper};

/// Maximum number of connections of each pool.
pub(crate) const POOL_SIZE: usize = 10;

/// A pool of `T`s. The future is the pool's own, so that the trait adds no overhead.
pub(crate) trait BenchPool<T>: Clone + Send + Sync + 'static {
    type Guard: Deref<Target = T> + Send + 'static;
    type Error: Debug;

    fn checkout(&self) -> impl Future<Output = Result<Self::Guard, Self::Error>> + Send;
}

/// deadpool without a wrapper.
pub(crate) struct BareDeadpool<M: Manager>(Pool<M>);

impl<M: Manager> Clone for BareDeadpool<M> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<M: Manager<Type: Send, Error: Debug> + 'static> BenchPool<M::Type> for BareDeadpool<M>
where
    M::Type: Sync,
{
    type Guard = Object<M>;
    type Error = PoolError<M::Error>;

    #[inline]
    fn checkout(&self) -> impl Future<Output = Result<Self::Guard, Self::Error>> + Send {
        self.0.get()
    }
}

/// Returns a deadpool with Poolscope's default timeouts. `recycling` sets the recycle timeout too, which costs a second
/// timer per checkout, and is of no use where recycling sends no query.
pub(crate) fn deadpool_with_timeouts<M: Manager>(manager: M, recycling: bool) -> Result<Pool<M>, BoxError> {
    let settings = Settings::default();
    let pool = Pool::builder(manager)
        .max_size(POOL_SIZE)
        .runtime(Runtime::Tokio1)
        .wait_timeout(Some(settings.checkout_timeout))
        .create_timeout(Some(settings.connect_timeout))
        .recycle_timeout(recycling.then_some(settings.ping_timeout));
    Ok(pool.build()?)
}

/// Returns a deadpool whose checkouts may wait for ever.
pub(crate) fn deadpool_without_timeouts<M: Manager>(manager: M) -> Result<Pool<M>, BoxError> {
    Ok(Pool::builder(manager).max_size(POOL_SIZE).build()?)
}

impl<M: Manager> BareDeadpool<M> {
    /// With the default timeouts of Poolscope.
    pub(crate) fn with_timeouts(manager: M) -> Result<Self, BoxError> {
        deadpool_with_timeouts(manager, false).map(Self)
    }

    /// Without timeouts.
    pub(crate) fn without_timeouts(manager: M) -> Result<Self, BoxError> {
        deadpool_without_timeouts(manager).map(Self)
    }
}

/// The simple wrapper with metrics.
pub(crate) struct SimpleWrapper<M: Manager>(MetricsWrapper<M>);

impl<M: Manager> Clone for SimpleWrapper<M> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<M: Manager> SimpleWrapper<M> {
    pub(crate) fn new(manager: M) -> Result<Self, BoxError> {
        Ok(Self(MetricsWrapper::new("bench", deadpool_with_timeouts(manager, false)?)?))
    }
}

impl<M: Manager<Type: Send, Error: Debug + Send> + 'static> BenchPool<M::Type> for SimpleWrapper<M>
where
    M::Type: Sync,
{
    type Guard = MetricsGuard<M>;
    type Error = PoolError<M::Error>;

    #[inline]
    fn checkout(&self) -> impl Future<Output = Result<Self::Guard, Self::Error>> + Send {
        self.0.get("bench")
    }
}

/// Poolscope with default settings except for the size.
pub(crate) struct Poolscope<M: Backend>(poolscope::Pool<M>);

impl<M: Backend> Clone for Poolscope<M> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<M: Backend> Poolscope<M> {
    pub(crate) fn new(backend: M) -> Result<Self, BoxError> {
        let mut settings = Settings::default();
        settings.pool_size = POOL_SIZE;
        settings.max_overflow = 0;
        Ok(Self(poolscope::Pool::new(backend, "bench", &settings, &Collector::new())?))
    }
}

impl<M: Backend<Error: Debug>> BenchPool<M::Type> for Poolscope<M> {
    type Guard = Guard<M>;
    type Error = CheckoutError<M::Error>;

    #[inline]
    fn checkout(&self) -> impl Future<Output = Result<Self::Guard, Self::Error>> + Send {
        self.0.get()
    }
}

/// A manager whose connections do no I/O, so that only the pool is measured.
#[derive(Debug)]
pub(crate) struct NoIoManager;

impl Manager for NoIoManager {
    type Type = u64;
    type Error = std::io::Error;

    async fn create(&self) -> Result<u64, std::io::Error> {
        Ok(1)
    }

    async fn recycle(&self, _: &mut u64, _: &Metrics) -> RecycleResult<std::io::Error> {
        Ok(())
    }
}

impl Backend for NoIoManager {}

/// Opens all connections of a pool before the measurement.
pub(crate) async fn fill<T, C: BenchPool<T>>(pool: &C) -> Result<(), BoxError> {
    let mut guards = Vec::with_capacity(POOL_SIZE);
    for _ in 0..POOL_SIZE {
        let guard = tokio::time::timeout(Duration::from_secs(10), pool.checkout()).await?;
        guards.push(guard.map_err(|error| format!("cannot open a pool's connections: {error:?}"))?);
    }
    Ok(())
}
