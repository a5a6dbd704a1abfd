//! A pool of any backend's connections, observed.

use std::panic::Location;
use std::sync::{Arc, Weak};
use std::time::Duration;

use deadpool::managed;

use super::backend::Backend;
use super::checkout::Checkout;
use super::clean::sweep;
use super::guard::Guard;
use super::observed::{InstrumentedManager, Sweep};
use super::operation::Operation;
use super::postgres::PostgresManager;
use super::serving;
use super::shared::{Policy, Shared};
use crate::config::{ConfigError, Settings};
use crate::error::{CheckoutError, CloseTimeout, RunError};
use crate::labels::CloseReason;
use crate::telemetry::clock::{Clock, nanos};
use crate::telemetry::ledger::{Ledger, Recorder};
use crate::telemetry::operations::{OperationId, SiteId};
use crate::telemetry::{Collector, Holder, Limits, PoolSnapshot, Status, Waiter};

/// A connection pool that records its checkouts, waits and uses.
///
/// It pools PostgreSQL connections by default, and those of any other [`Backend`] as `Pool<M>`. Clones are handles to the
/// same pool. When the last one is dropped, idle connections are closed, and connections in use are closed when they are
/// returned.
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
    inner: Arc<Inner<M>>,
}

struct Inner<M: Backend> {
    pool: managed::Pool<InstrumentedManager<M>>,
    shared: Arc<Shared>,
}

impl<M: Backend> Drop for Inner<M> {
    fn drop(&mut self) {
        if self.shared.begin_closing() {
            self.shared.recorder.pool_closing();
        }
    }
}

impl<M: Backend> Pool<M> {
    /// A pool with these settings; those that say how to connect are the backend's business. Connects to nothing
    /// yet. `name` is the pool's, unless the settings have one.
    ///
    /// # Errors
    ///
    /// If a setting is out of its range.
    pub fn new(backend: M, name: &str, settings: &Settings, collector: &Collector) -> Result<Self, ConfigError> {
        Self::with_clock(backend, name, settings, collector, Clock::new())
    }

    /// The same with a clock of one's own, for tests.
    ///
    /// # Errors
    ///
    /// If a setting is out of its range.
    #[doc(hidden)]
    pub fn with_clock(
        backend: M,
        name: &str,
        settings: &Settings,
        collector: &Collector,
        clock: Clock,
    ) -> Result<Self, ConfigError> {
        settings.validate()?;
        let limits = Limits {
            pool_size: settings.pool_size,
            max_overflow: settings.max_overflow,
            wait_target: settings.wait_target,
            leak_threshold: settings.leak_threshold,
            retry_floor: settings.retry_floor,
            retry_percent: settings.retry_percent,
        };
        let policy = Policy {
            pool_size: settings.pool_size,
            checkout_timeout: settings.checkout_timeout,
            recycle_after: settings.recycle_after,
            pre_ping: settings.pre_ping,
            pre_ping_idle: nanos(settings.pre_ping_idle),
            ping_timeout: settings.ping_timeout,
            clean_timeout: settings.clean_timeout,
            reset_session: settings.reset_session,
            read_wire: settings.read_wire,
            trace_query_text: settings.trace_query_text,
            fail_fast: settings.fail_fast,
            connect_timeout: settings.connect_timeout,
        };
        let name = settings.name.as_deref().unwrap_or(name);
        let ledger = collector.join(name, |name| Ledger::new(name, limits, clock));
        let shared = Arc::new(Shared::new(Recorder::new(ledger), policy));
        let backoff: Weak<Shared> = Arc::downgrade(&shared);
        shared.recorder.ledger().set_backoff_source(backoff);
        let observed = InstrumentedManager::new(backend, Arc::clone(&shared));
        let pool = managed::Pool::builder(observed)
            .max_size(limits.max())
            .build()
            .expect("deadpool asks for a runtime only where it has timeouts, and it has none");
        let weak = pool.weak();
        pool.manager().sweep_by(Sweep(Arc::new(move |stats| {
            if let Some(pool) = weak.upgrade() {
                sweep(&pool, stats);
            }
        })));
        shared.recorder.pool_opened();
        Ok(Self { inner: Arc::new(Inner { pool, shared }) })
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.inner.shared
    }

    pub(super) fn shared_handle(&self) -> &Arc<Shared> {
        &self.inner.shared
    }

    /// The pool's name, as in its metrics.
    #[must_use]
    pub fn name(&self) -> &str {
        self.shared().recorder.ledger().name()
    }

    /// The backend.
    #[must_use]
    pub fn backend(&self) -> &M {
        self.inner.pool.manager().backend()
    }

    /// A connection, for the operation that is named after the caller's file and line; within a request that
    /// [`middleware`](crate::middleware) serves, after its method and route.
    ///
    /// Takes one from the pool, or makes one if there may be more, or waits until one is returned; whichever it is,
    /// `checkout_timeout` bounds the whole, from the first poll. Those who wait are served in the order they came.
    ///
    /// # Errors
    ///
    /// If the deadline passes, if a connection has to be made and cannot be, or if the pool is closed.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the checkout as `cancelled`; its place in the queue goes to the next. A connection
    /// that was being made or pinged for it is closed.
    #[track_caller]
    #[inline]
    pub fn get(&self) -> impl Future<Output = Result<Guard<M>, CheckoutError<M::Error>>> + Send {
        self.get_at(Location::caller())
    }

    /// The same for the operation that is named after `call_site`.
    #[inline]
    pub(crate) fn get_at(
        &self,
        call_site: &'static Location<'static>,
    ) -> impl Future<Output = Result<Guard<M>, CheckoutError<M::Error>>> + Send {
        let recorder = &self.shared().recorder;
        if serving::is_any()
            && let Some(operation) = serving::operation(recorder.ledger())
        {
            return self.checkout(operation, call_site, recorder.site(call_site));
        }
        let (operation, site) = recorder.operation_at(call_site);
        self.checkout(operation, call_site, site)
    }

    /// Checks out a connection, gives it to `work`, and returns it. See [`Operation::run`]; the operation is named
    /// after the caller's file and line.
    ///
    /// # Errors
    ///
    /// If the checkout fails or `work` does.
    #[track_caller]
    pub fn run<T, E, W>(&self, work: W) -> impl Future<Output = Result<T, RunError<E, M::Error>>> + use<M, T, E, W>
    where
        W: AsyncFnOnce(&mut Guard<M>) -> Result<T, E>,
    {
        self.run_at(Location::caller(), work)
    }

    /// The operation that is named after `call_site`.
    pub(crate) fn operation_at(&self, call_site: &'static Location<'static>) -> Operation<M> {
        let recorder = &self.shared().recorder;
        let of_request = if serving::is_any() { serving::operation(recorder.ledger()) } else { None };
        Operation::new(self.clone(), of_request.unwrap_or_else(|| recorder.operation_at(call_site).0))
    }

    /// The same for the operation that is named after `call_site`.
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

    /// A handle for what is done under a name.
    ///
    /// Looking the name up takes some 30 ns; keep the handle where that counts. At most
    /// [`MAX_OPERATIONS`](crate::telemetry::MAX_OPERATIONS) names are told apart; those beyond are counted as
    /// `other`, and the first of them is logged.
    #[must_use]
    pub fn operation(&self, name: &str) -> Operation<M> {
        Operation::new(self.clone(), self.shared().recorder.operation(name))
    }

    #[inline]
    pub(super) fn checkout(
        &self,
        operation: OperationId,
        call_site: &'static Location<'static>,
        site: SiteId,
    ) -> impl Future<Output = Result<Guard<M>, CheckoutError<M::Error>>> + Send {
        let pool = &self.inner.pool;
        Checkout::new(self, |timeouts| pool.timeout_get(timeouts), operation, call_site, site)
    }

    /// How many connections there are, and how many are asked for, all of one moment.
    #[must_use]
    pub fn status(&self) -> Status {
        self.shared().recorder.ledger().status()
    }

    /// Who holds a connection, oldest first: for which operation, asked for where, for how long, and what it does.
    ///
    /// Costs the holders nothing.
    #[must_use]
    pub fn holders(&self) -> Vec<Holder> {
        self.shared().recorder.ledger().holders()
    }

    /// Who waits for a connection, oldest first.
    #[must_use]
    pub fn waiters(&self) -> Vec<Waiter> {
        self.shared().recorder.ledger().waiters()
    }

    /// Everything this pool has counted, as of one moment.
    #[must_use]
    pub fn snapshot(&self) -> PoolSnapshot {
        self.shared().recorder.ledger().snapshot()
    }

    /// Closes the pool: those who wait for capacity get [`CheckoutError::Closed`], idle connections are closed, those
    /// that are out are closed when they come back. Done when every connection is given up and no checkout is in
    /// flight; one that is connecting or pinging gets that far first, within its own limits.
    ///
    /// A backend that ends its connections in the background, as PostgreSQL's does, may still be at it then.
    ///
    /// # Cancel safety
    ///
    /// Closing begins at the first poll and goes on if the future is dropped.
    pub async fn close(&self) {
        self.begin_closing();
        self.shared().drained().await;
    }

    /// Closes the pool as [`close`](Self::close) does, and waits at most `limit` for what is out.
    ///
    /// # Errors
    ///
    /// If something is still out then. The pool stays closed, and what is out is closed when it comes back.
    pub async fn close_within(&self, limit: Duration) -> Result<(), CloseTimeout> {
        self.begin_closing();
        tokio::time::timeout(limit, self.shared().drained())
            .await
            .map_err(|_| CloseTimeout { waited: limit, usage: self.shared().recorder.ledger().usage() })
    }

    /// Whether [`close`](Self::close) was called.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared().is_closing()
    }

    fn begin_closing(&self) {
        if self.shared().begin_closing() {
            self.shared().recorder.pool_closing();
        }
        // deadpool would drop what is idle without detaching it, and under its lock.
        self.close_idle();
        self.inner.pool.close();
        self.shared().gate.wake_all();
        self.shared().close_shares();
        // What came back in between.
        self.close_idle();
    }

    fn close_idle(&self) {
        close_while(&self.inner.pool, CloseReason::Shutdown, || true);
    }

    /// Puts right what a checkout that got nothing may leave behind: it counted among those for whom connections
    /// beyond `pool_size` are kept, or it was about to take one when the pool was closed.
    pub(super) fn after_failed_checkout(&self) {
        let shared = self.shared();
        if shared.is_closing() {
            self.close_idle();
            shared.notify_if_closing();
        } else if shared.recorder.ledger().live_hint() > shared.policy.pool_size {
            close_surplus(&self.inner.pool, shared);
        }
    }
}

/// Closes what lies idle beyond `pool_size` and is not kept for anyone in the queue.
///
/// Whoever may bring a surplus about looks for it here, after: who returns a connection and who leaves the queue. The
/// last of them finds all of it among the idle ones.
pub(super) fn close_surplus<M: Backend>(pool: &managed::Pool<InstrumentedManager<M>>, shared: &Shared) {
    if shared.recorder.ledger().has_surplus() {
        close_while(pool, CloseReason::Overflow, || shared.recorder.ledger().has_surplus());
    }
}

/// Closes idle connections, those first that were idle for longest, as long as there are `more` to close.
fn close_while<M: Backend>(pool: &managed::Pool<InstrumentedManager<M>>, reason: CloseReason, more: impl Fn() -> bool) {
    let closed = pool.retain(|pooled, _| {
        let closes = more();
        if closes {
            // The account is closed while deadpool's lock is held, before anyone can have the place.
            pooled.meta.close(reason);
        }
        !closes
    });
    // Closed for real, and told to the log, without that lock.
    drop(closed);
}

impl<M: Backend> Clone for Pool<M> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<M: Backend> std::fmt::Debug for Pool<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("name", &self.name()).field("status", &self.status()).finish()
    }
}
