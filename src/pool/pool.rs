//! The pool's handle. `Pool::get` is in `checkout`.

use std::fmt;
use std::panic::Location;
use std::sync::{Arc, Weak};
use std::time::Duration;

use deadpool::managed::QueueMode;

use super::backend::Backend;
use super::checkout::context::in_request_scope;
use super::connection::{InstrumentedManager, ObjectPool};
use super::operation::Operation;
use super::postgres::PostgresManager;
use super::release::{Guard, close_beyond_limits, close_expired, close_idle, sweep};
use super::request;
use super::shared::Shared;
use crate::config::{ConfigError, Settings};
use crate::diagnosis::Engine;
use crate::error::{CloseTimeout, RunError};
use crate::telemetry::clock::{Clock, nanos};
use crate::telemetry::ledger::{Ledger, Recorder};
use crate::telemetry::sampler::sample_one;
use crate::telemetry::{Collector, Holder, Limits, PoolSnapshot, Status, Waiter};

/// A connection pool that records its checkouts, waits and uses.
///
/// It pools PostgreSQL connections by default, and those of any other [`Backend`] as `Pool<M>`. Clones are handles to
/// the same pool. When the last one is dropped, idle connections are closed, and connections in use are closed when
/// they are returned.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let pool = poolscope::Pool::builder().url("postgres://app@localhost/shop").pool_size(5).build()?;
/// let connection = pool.get().await?;
/// let row = connection.query_one("SELECT count(*) FROM orders", &[]).await?;
/// # drop(row);
/// # Ok(())
/// # }
/// ```
pub struct Pool<M: Backend = PostgresManager> {
    pub(super) inner: Arc<Inner<M>>,
}

pub(super) struct Inner<M: Backend> {
    pub(super) pool: ObjectPool<M>,
    pub(super) shared: Arc<Shared>,
}

impl<M: Backend> Drop for Inner<M> {
    fn drop(&mut self) {
        self.shared.begin_closing();
    }
}

impl<M: Backend> Pool<M> {
    /// Creates a pool of `backend`'s connections, and does not connect yet. Settings that concern connecting to
    /// PostgreSQL have no effect, except `connect_timeout`: an attempt that `backend` does not end within 1 s more fails. `name` is the pool's name unless the settings have one.
    ///
    /// # Errors
    ///
    /// Returns an error if a setting is out of range.
    pub fn new(backend: M, name: &str, settings: &Settings, collector: &Collector) -> Result<Self, ConfigError> {
        Self::with_clock(backend, name, settings, collector, None, Clock::new())
    }

    /// Creates a pool whose measurements use a mock clock, for tests.
    ///
    /// # Errors
    ///
    /// Returns an error if a setting is out of range.
    #[doc(hidden)]
    pub fn with_mock_clock(
        backend: M,
        name: &str,
        settings: &Settings,
        collector: &Collector,
    ) -> Result<(Self, Arc<quanta::Mock>), ConfigError> {
        let (clock, mock) = Clock::mock();
        Ok((Self::with_clock(backend, name, settings, collector, None, clock)?, mock))
    }

    /// Creates a pool that replaces another under its name; see
    /// [`PoolBuilder::replaces`](crate::PoolBuilder::replaces). Otherwise the same as [`Pool::new`].
    ///
    /// # Errors
    ///
    /// Returns an error if a setting is out of range.
    pub fn new_replacing(
        backend: M,
        replaced: &Self,
        settings: &Settings,
        collector: &Collector,
    ) -> Result<Self, ConfigError> {
        let replaced = replaced.shared().recorder.ledger();
        Self::with_clock(backend, replaced.name(), settings, collector, Some(replaced), Clock::new())
    }

    fn with_clock(
        backend: M,
        name: &str,
        settings: &Settings,
        collector: &Collector,
        replaced: Option<&Arc<Ledger>>,
        clock: Clock,
    ) -> Result<Self, ConfigError> {
        settings.validate()?;
        let limits = Limits::from(settings);
        let name = settings.name.as_deref().unwrap_or(name);
        let ledger = collector.join(name, replaced, |name| Ledger::new(name, limits, clock));
        let has_hook = backend.has_before_checkout();
        let shared = Arc::new(Shared::new(Recorder::new(ledger), settings.clone(), has_hook, collector.clone()));
        let backoff: Weak<Shared> = Arc::downgrade(&shared);
        shared.recorder.ledger().set_backoff_source(backoff);
        shared.recorder.ledger().set_diagnoser(Box::new(Engine::default()));
        shared.recorder.ledger().set_settings(settings.public_texts());
        let pool = ObjectPool::builder(InstrumentedManager::new(backend, Arc::clone(&shared)))
            .max_size(limits.max())
            // The connections that the load does not need stay idle.
            .queue_mode(if settings.idle_timeout.is_some() { QueueMode::Lifo } else { QueueMode::Fifo })
            .build()
            .expect("deadpool needs a runtime only for its timeouts, which are not set");
        let weak = pool.weak();
        pool.manager().set_sweep(move |stats| {
            if let Some(pool) = weak.upgrade() {
                sweep(&pool, stats);
            }
        });
        if let Some(idle_timeout) = settings.idle_timeout.map(nanos) {
            let (weak, min_idle) = (pool.weak(), settings.min_idle);
            shared.recorder.ledger().set_idle_closer(move |now| {
                if let Some(pool) = weak.upgrade() {
                    close_expired(&pool, idle_timeout, min_idle, now);
                }
            });
        }
        shared.recorder.pool_opened();
        Ok(Self { inner: Arc::new(Inner { pool, shared }) })
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.inner.shared
    }

    /// Returns what the pool has recorded.
    pub(crate) fn ledger(&self) -> &Arc<Ledger> {
        self.shared().recorder.ledger()
    }

    pub(super) fn shared_handle(&self) -> &Arc<Shared> {
        &self.inner.shared
    }

    /// Returns the pool's name, the value of the label `db_client_connection_pool_name`.
    #[must_use]
    pub fn name(&self) -> &str {
        self.ledger().name()
    }

    /// Returns the backend.
    #[must_use]
    pub fn backend(&self) -> &M {
        self.inner.pool.manager().backend()
    }

    /// Checks out a connection, calls `work` with it, and returns it. See [`Operation::run`]; the operation is named as
    /// that of [`get`](Self::get).
    ///
    /// # Errors
    ///
    /// Returns an error if the checkout or `work` fails.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the future of `work`, and then returns the connection.
    #[track_caller]
    pub fn run<T, E, W>(&self, work: W) -> impl Future<Output = Result<T, RunError<E, M::Error>>> + use<M, T, E, W>
    where
        W: AsyncFnOnce(&mut Guard<M>) -> Result<T, E>,
    {
        self.run_at(Location::caller(), work)
    }

    pub(crate) fn run_at<T, E, W>(
        &self,
        call_site: &'static Location<'static>,
        work: W,
    ) -> impl Future<Output = Result<T, RunError<E, M::Error>>> + use<M, T, E, W>
    where
        W: AsyncFnOnce(&mut Guard<M>) -> Result<T, E>,
    {
        self.operation_at(call_site).run_at(call_site, work)
    }

    /// Returns a handle for the operation of this name.
    ///
    /// The look-up takes about 30 ns; keep the handle where that matters. A pool distinguishes at most
    /// [`MAX_OPERATIONS`](crate::telemetry::MAX_OPERATIONS) names; further ones are counted as `other`, and the first
    /// of them is logged.
    #[must_use]
    pub fn operation(&self, name: &str) -> Operation<M> {
        Operation::new(self.clone(), self.shared().recorder.operation(name))
    }

    /// Returns a handle for the operation that is named after the current request or after `call_site`.
    pub(crate) fn operation_at(&self, call_site: &'static Location<'static>) -> Operation<M> {
        let recorder = &self.shared().recorder;
        let of_request = if in_request_scope() { request::operation(recorder.ledger()) } else { None };
        Operation::new(self.clone(), of_request.unwrap_or_else(|| recorder.operation_at(call_site).0))
    }

    /// Returns the number of connections and of checkouts in flight, as of one moment.
    #[must_use]
    pub fn status(&self) -> Status {
        self.shared().recorder.ledger().status()
    }

    /// Returns the holders of connections, oldest first: the operation, the call site, the duration and the activity of
    /// each. Takes no lock that a checkout without a wait takes.
    #[must_use]
    pub fn holders(&self) -> Vec<Holder> {
        self.shared().recorder.ledger().holders()
    }

    /// Returns the checkouts that wait for a connection, oldest first.
    #[must_use]
    pub fn waiters(&self) -> Vec<Waiter> {
        self.shared().recorder.ledger().waiters()
    }

    /// Returns everything that the pool has recorded, as of one moment.
    #[must_use]
    pub fn snapshot(&self) -> PoolSnapshot {
        self.shared().recorder.ledger().snapshot()
    }

    /// Changes the number of connections that the pool may have: `pool_size` and `max_overflow` as in
    /// [`Settings`](crate::Settings).
    ///
    /// Once this has returned, no connection is opened while the pool has its new maximum or more. If it has more, idle
    /// connections are closed at once, and those in use when they are returned; checkouts that wait are served when the
    /// rest is returned. If the maximum grows, checkouts that wait may connect at once, in their order.
    ///
    /// The limits of routes ([`middleware`](crate::middleware)) stay as they are. No effect on a closed pool. If several
    /// threads call this, the last one counts.
    ///
    /// ```no_run
    /// # fn example(pool: poolscope::Pool) -> Result<(), poolscope::ConfigError> {
    /// pool.resize(20, 0)?;
    /// assert_eq!(pool.status().max, 20);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Returns an error, and changes nothing, if a value is out of range or `pool_size` is below `min_idle`.
    pub fn resize(&self, pool_size: usize, max_overflow: usize) -> Result<(), ConfigError> {
        let Inner { pool, shared } = &*self.inner;
        let mut settings = shared.settings.clone();
        (settings.pool_size, settings.max_overflow) = (pool_size, max_overflow);
        settings.validate()?;
        if self.is_closed() {
            return Ok(());
        }
        pool.manager().places().resize(pool, || {
            let before = shared.recorder.ledger().resize(pool_size, max_overflow).max();
            let max = Limits::from(&settings).max();
            shared.hot.set_pool_size(pool_size);
            shared.resets.resize(before, max);
            shared.gate.resize(max);
            max
        });
        shared.recorder.log().pool_resized(pool_size, max_overflow);
        shared.gate.wake_all();
        close_beyond_limits(pool);
        Ok(())
    }

    /// Samples the pool once per second for its diagnosis ([`PoolSnapshot::diagnosis`], the metric `poolscope_diagnosis`,
    /// the log, and the errors of checkouts that time out), and reads its load ten times per second for the recommended
    /// size ([`PoolSnapshot::sizing`]), until the pool is closed or no longer exists. It does not keep the pool alive.
    ///
    /// Spawn it unless an [`exporter`](crate::exporter) in this process serves the pool's collector, which samples its
    /// pools itself. Without either, each scrape is a sample, so that a verdict takes several scrapes and short events
    /// are missed; the size is then computed by a scrape or [`Pool::snapshot`], in some ten milliseconds, every ten seconds at
    /// first and then once per minute.
    ///
    /// ```no_run
    /// # fn example(pool: poolscope::Pool) {
    /// tokio::spawn(pool.watch());
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// Panics if polled outside a tokio runtime with its time driver enabled.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the sampling.
    pub fn watch(&self) -> impl Future<Output = ()> + Send + use<M> {
        let shared = Arc::downgrade(self.shared_handle());
        async move {
            let Some(shared) = shared.upgrade() else { return };
            tokio::select! {
                biased;
                () = shared.closing() => {}
                () = sample_one(Arc::downgrade(shared.recorder.ledger())) => {}
            }
        }
    }

    /// Closes the pool, and waits until it has no connections and no checkouts in flight.
    ///
    /// Checkouts that wait for capacity end with [`CheckoutError::Closed`](crate::error::CheckoutError::Closed). Idle
    /// connections are closed, and those in use when they are returned. A checkout that is connecting or pinging
    /// finishes that first, within its own limits.
    ///
    /// An abandoned query is cancelled, and its end awaited for at most `clean_timeout` and `close_timeout`. A backend that
    /// closes its connections in the background, as PostgreSQL's does, may otherwise not have finished then.
    ///
    /// # Panics
    ///
    /// Panics if it has to wait in a tokio runtime without a time driver.
    ///
    /// # Cancel safety
    ///
    /// Closing begins at the first poll, and continues if the future is dropped.
    pub async fn close(&self) {
        self.begin_closing();
        self.shared().drained().await;
    }

    /// Closes the pool as [`close`](Self::close) does, and waits for at most `limit`.
    ///
    /// # Errors
    ///
    /// Returns an error if connections are in use or checkouts in flight after `limit`. The pool stays closed, and
    /// these connections are closed when they are returned.
    ///
    /// # Cancel safety
    ///
    /// Closing begins at the first poll, and continues if the future is dropped.
    pub async fn close_within(&self, limit: Duration) -> Result<(), CloseTimeout> {
        self.begin_closing();
        tokio::time::timeout(limit, self.shared().drained())
            .await
            .map_err(|_| CloseTimeout { waited: limit, usage: self.shared().recorder.ledger().usage() })
    }

    /// Returns whether [`close`](Self::close) or [`close_within`](Self::close_within) has begun to close the pool.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared().is_closing()
    }

    fn begin_closing(&self) {
        let Inner { pool, shared } = &*self.inner;
        shared.begin_closing();
        // deadpool would drop idle connections without detaching them, and under its lock.
        close_idle(pool);
        pool.close();
        shared.gate.wake_all();
        shared.route_limits.close();
        // Connections that were returned in between.
        close_idle(pool);
    }
}

impl<M: Backend> Clone for Pool<M> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<M: Backend> fmt::Debug for Pool<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("name", &self.name()).field("status", &self.status()).finish()
    }
}
