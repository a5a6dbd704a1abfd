//! The pools that are compared, behind one trait.

use std::fmt::Debug;
use std::ops::Deref;
use std::time::Duration;

use deadpool::Runtime;
use deadpool::managed::{Manager, Metrics, Object, Pool, PoolError, RecycleResult};
use poolscope::config::Settings;
use poolscope::error::CheckoutError;
use poolscope::pool::{Backend, Guard};
use poolscope::telemetry::Collector;

use crate::Failure;
use crate::wrapper::{Naive, NaiveGuard};

/// How many connections each pool may have.
pub(crate) const POOL_SIZE: usize = 10;

/// A pool of `T`s. The future is the pool's own, so that the comparison adds nothing to any of them.
pub(crate) trait Contestant<T>: Clone + Send + Sync + 'static {
    type Guard: Deref<Target = T> + Send + 'static;
    type Error: Debug;

    fn checkout(&self) -> impl Future<Output = Result<Self::Guard, Self::Error>> + Send;
}

/// deadpool as it is.
pub(crate) struct Bare<M: Manager>(Pool<M>);

impl<M: Manager> Clone for Bare<M> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<M: Manager<Type: Send, Error: Debug> + 'static> Contestant<M::Type> for Bare<M>
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

/// deadpool bounded as ours is by default. `recycling` bounds recycling too: where that asks nobody, it would bound
/// nothing, and cost deadpool a second timer for each checkout.
pub(crate) fn timed<M: Manager>(manager: M, recycling: bool) -> Result<Pool<M>, Failure> {
    let settings = Settings::default();
    let pool = Pool::builder(manager)
        .max_size(POOL_SIZE)
        .runtime(Runtime::Tokio1)
        .wait_timeout(Some(settings.checkout_timeout))
        .create_timeout(Some(settings.connect_timeout))
        .recycle_timeout(recycling.then_some(settings.ping_timeout));
    Ok(pool.build()?)
}

impl<M: Manager> Bare<M> {
    /// With the timeouts that ours has.
    pub(crate) fn timed(manager: M) -> Result<Self, Failure> {
        timed(manager, false).map(Self)
    }

    /// Without any timeout: a checkout waits for ever.
    pub(crate) fn untimed(manager: M) -> Result<Self, Failure> {
        Ok(Self(Pool::builder(manager).max_size(POOL_SIZE).build()?))
    }
}

/// The straightforward wrapper.
pub(crate) struct Straightforward<M: Manager>(Naive<M>);

impl<M: Manager> Clone for Straightforward<M> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<M: Manager> Straightforward<M> {
    pub(crate) fn new(manager: M) -> Result<Self, Failure> {
        Ok(Self(Naive::new("bench", timed(manager, false)?)?))
    }
}

impl<M: Manager<Type: Send, Error: Debug + Send> + 'static> Contestant<M::Type> for Straightforward<M>
where
    M::Type: Sync,
{
    type Guard = NaiveGuard<M>;
    type Error = PoolError<M::Error>;

    #[inline]
    fn checkout(&self) -> impl Future<Output = Result<Self::Guard, Self::Error>> + Send {
        self.0.get("bench")
    }
}

/// Ours, with its default settings but for the size.
pub(crate) struct Ours<M: Backend>(poolscope::Pool<M>);

impl<M: Backend> Clone for Ours<M> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<M: Backend> Ours<M> {
    pub(crate) fn new(backend: M) -> Result<Self, Failure> {
        let mut settings = Settings::default();
        settings.pool_size = POOL_SIZE;
        settings.max_overflow = 0;
        Ok(Self(poolscope::Pool::new(backend, "bench", &settings, &Collector::new())?))
    }
}

impl<M: Backend<Error: Debug>> Contestant<M::Type> for Ours<M> {
    type Guard = Guard<M>;
    type Error = CheckoutError<M::Error>;

    #[inline]
    fn checkout(&self) -> impl Future<Output = Result<Self::Guard, Self::Error>> + Send {
        self.0.get()
    }
}

/// Makes connections that are none: what remains is the pool.
#[derive(Debug)]
pub(crate) struct NoIo;

impl Manager for NoIo {
    type Type = u64;
    type Error = std::io::Error;

    async fn create(&self) -> Result<u64, std::io::Error> {
        Ok(1)
    }

    async fn recycle(&self, _: &mut u64, _: &Metrics) -> RecycleResult<std::io::Error> {
        Ok(())
    }
}

impl Backend for NoIo {}

/// Fills a pool, so that none of its connections is made while it is measured.
pub(crate) async fn fill<T, C: Contestant<T>>(pool: &C) -> Result<(), Failure> {
    let mut guards = Vec::with_capacity(POOL_SIZE);
    for _ in 0..POOL_SIZE {
        let guard = tokio::time::timeout(Duration::from_secs(10), pool.checkout()).await?;
        guards.push(guard.map_err(|error| format!("cannot fill a pool: {error:?}"))?);
    }
    Ok(())
}
