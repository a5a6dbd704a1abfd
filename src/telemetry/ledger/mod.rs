//! The ledger of one pool: what the pool records, and the snapshots that are read from it.
//!
//! Counters that every checkout needs are on its connection ([`ConnectionStats`](super::connection::ConnectionStats)),
//! without a lock or a shared cache line. A checkout that waits takes the lock of its thread's shard ([`shards`], [`waiting`]).
//! Everything else (a checkout that fails, a connection that is created or closed) takes one lock, that of
//! [`LedgerState`], which is cheap compared with the event. A snapshot holds all of them ([`frozen`]), so these invariants
//! hold in every snapshot:
//!
//! - checkouts started = sum of outcomes + in flight, for each operation;
//! - connections idle + used + creating + closing = live, because each live connection is in exactly one state;
//! - connections created = sum of closed by reason + live.

#[cfg_attr(not(feature = "middleware"), allow(dead_code, reason = "only the middleware sheds load"))]
pub(crate) mod backlog;
mod deferred;
mod diagnosed;
mod failed_queries;
mod frozen;
mod holder_links;
mod holders;
mod in_flight;
mod limits;
mod merge;
mod predecessor;
mod queue;
mod read;
mod readers;
mod record;
mod recorder;
mod retries;
mod self_deadlock;
mod shards;
mod snapshot;
mod state;
mod unpooled;
mod usage;
mod waiting;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use self::backlog::SharedServiceInterval;
pub use self::holders::{Holder, OwnConnection, Waiter};
pub(crate) use self::in_flight::Ticket;
use self::in_flight::{Waiting, new_waiting};
use self::limits::CurrentLimits;
pub use self::limits::Limits;
use self::predecessor::Replacement;
use self::queue::Queue;
pub(crate) use self::read::SnapshotBuffer;
use self::recorder::Hints;
pub(crate) use self::recorder::Recorder;
pub use self::snapshot::{
    ConnectionErrors, Connections, DirtyReturns, OperationTotals, PoolSnapshot, QueryDurations, QueryErrors, Retries,
    RetriesExhausted, SelfDeadlocks,
};
use self::state::LedgerState;
pub(crate) use self::unpooled::UnpooledId;
pub use self::unpooled::UnpooledTotals;
pub use self::usage::{OperationUsage, PoolUsage, Status};
use super::budget::{Budget, BudgetConfig};
use super::caches::Caches;
use super::clock::{Clock, Nanos};
use super::exemplar::Exemplars;
use super::histogram::SharedHistogram;
use super::log::{Limiters, Log};
use super::names::{NAME_IDS, NameTable};
use super::operations::{OPERATION_IDS, OperationId, Operations};
#[cfg(feature = "proxy")]
use super::queries::QueryId;
use super::requests::RouteTable;
use super::server::LatestServerView;
use super::trace::{QuerySpans, ServerAddress};
use super::verdict::{Diagnoser, SampleObserver};
use crate::labels::{Outcome, PoolKind};

/// The maximum length of a query summary in bytes.
pub(crate) const MAX_SUMMARY_BYTES: usize = 255;

/// The durations of one operation by outcome, allocated at the first operation with that outcome: most operations have
/// two.
type Durations = [OnceLock<Box<SharedHistogram>>; Outcome::COUNT];

/// A source of the pool's connect backoff.
pub(crate) trait BackoffSource: std::fmt::Debug + Send + Sync {
    /// Returns for how long connecting has been suspended, if it is.
    fn suspended_for(&self) -> Option<Duration>;
}

/// Closes connections that have been idle for too long, at this time.
struct IdleCloser(Box<dyn Fn(Nanos) + Send + Sync>);

impl fmt::Debug for IdleCloser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IdleCloser")
    }
}

/// What one pool has recorded.
#[derive(Debug)]
pub(crate) struct Ledger {
    name: Arc<str>,
    kind: PoolKind,
    created: SystemTime,
    limits: CurrentLimits,
    clock: Clock,
    operations: Operations,
    /// The summaries of queries.
    summaries: Arc<NameTable>,
    /// The durations of named operations, by operation id, allocated when the first one ends.
    durations: Box<[OnceLock<Box<Durations>>]>,
    /// The exemplars of wait times.
    wait_exemplars: Exemplars,
    /// The exemplars of use times, which the connections do not keep themselves.
    use_exemplars: Exemplars,
    /// The exemplars of successful queries, by query id.
    query_exemplars: Box<[Exemplars]>,
    /// The cost of requests, allocated when the first middleware layer is created.
    routes: OnceLock<Box<RouteTable>>,
    /// The caches in front of the pool.
    caches: Caches,
    /// The server's view of itself, if it is watched.
    server: LatestServerView,
    /// The pool's connect backoff.
    backoff: OnceLock<Weak<dyn BackoffSource>>,
    /// The pool's diagnosis.
    diagnoser: OnceLock<Box<dyn Diagnoser>>,
    /// The receivers of samples.
    observers: Mutex<Vec<Weak<dyn SampleObserver>>>,
    /// The pool's settings as text, without secrets.
    settings: OnceLock<Vec<(&'static str, String)>>,
    /// What applies `idle_timeout`, if it is set.
    idle_closer: OnceLock<IdleCloser>,
    hints: Hints,
    /// What checkouts that wait change.
    waiting: Waiting,
    contended: Contended,
    budget: Budget,
    limiters: Limiters,
    replacement: Replacement,
}

/// What is written under load. Aligned so that it shares neither a cache line nor a pair of lines with what every
/// checkout reads, such as the clock.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Contended {
    queue: Queue,
    service_interval: SharedServiceInterval,
    state: Mutex<LedgerState>,
}

impl Ledger {
    pub(crate) fn new(name: Arc<str>, limits: Limits, clock: Clock) -> Self {
        Self::of_kind(PoolKind::Pool, name, limits, clock)
    }

    /// Creates the ledger of a pool that is in the clients of a proxy.
    #[cfg(feature = "proxy")]
    pub(crate) fn of_proxy(name: Arc<str>, limits: Limits, clock: Clock) -> Self {
        Self::of_kind(PoolKind::Proxy, name, limits, clock)
    }

    fn of_kind(kind: PoolKind, name: Arc<str>, limits: Limits, clock: Clock) -> Self {
        Self {
            name,
            kind,
            created: SystemTime::now(),
            limits: CurrentLimits::new(limits),
            clock,
            operations: Operations::new(),
            summaries: Arc::new(NameTable::new(MAX_SUMMARY_BYTES)),
            durations: (0..OPERATION_IDS).map(|_| OnceLock::new()).collect(),
            wait_exemplars: Exemplars::default(),
            use_exemplars: Exemplars::default(),
            query_exemplars: (0..NAME_IDS).map(|_| Exemplars::default()).collect(),
            routes: OnceLock::new(),
            caches: Caches::default(),
            server: LatestServerView::default(),
            backoff: OnceLock::new(),
            diagnoser: OnceLock::new(),
            observers: Mutex::default(),
            settings: OnceLock::new(),
            idle_closer: OnceLock::new(),
            hints: Hints::default(),
            waiting: new_waiting(kind),
            contended: Contended::default(),
            budget: Budget::new(BudgetConfig { floor: limits.retry_floor, percent: limits.retry_percent }),
            limiters: Limiters::default(),
            replacement: Replacement::default(),
        }
    }

    /// Returns where the pool is.
    pub(crate) fn kind(&self) -> PoolKind {
        self.kind
    }

    /// Returns the maximum number of connections that may be opened. A proxy does not limit the pools of its clients.
    fn max_live(&self) -> usize {
        match self.kind {
            PoolKind::Pool => self.limits().max(),
            PoolKind::Proxy => usize::MAX,
        }
    }

    /// Returns the pool's name, as in the `db_client_connection_pool_name` label.
    #[must_use]
    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Returns the pool's limits.
    #[must_use]
    pub(crate) fn limits(&self) -> Limits {
        self.limits.get()
    }

    /// Changes the pool's size. No connection is opened beyond the new maximum once this has returned. Returns the limits
    /// before.
    pub(crate) fn resize(&self, pool_size: usize, max_overflow: usize) -> Limits {
        // Under the lock under which connections are opened.
        self.update(|_| {
            let before = self.limits.get();
            self.limits.resize(pool_size, max_overflow);
            before
        })
    }

    /// Returns whether the pool has more connections than its maximum, as after it has shrunk.
    pub(crate) fn is_oversized(&self) -> bool {
        let state = self.state();
        state.connections.len() > self.limits().max()
    }

    /// Sets what closes connections that have been idle for too long: a function of the time. A second call has no effect.
    pub(crate) fn set_idle_closer(&self, close: impl Fn(Nanos) + Send + Sync + 'static) {
        let _ = self.idle_closer.set(IdleCloser(Box::new(close)));
    }

    /// Closes connections that have been idle for too long. Called by whatever samples or collects the pool.
    pub(crate) fn close_idle(&self) {
        if let Some(IdleCloser(close)) = self.idle_closer.get() {
            close(self.clock.now());
        }
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Returns the pool's log.
    pub(crate) fn log(&self) -> Log<'_> {
        Log::new(&self.name, &self.limiters, &self.clock)
    }

    /// Returns the pool's retry budget.
    pub(crate) fn budget(&self) -> &Budget {
        &self.budget
    }

    pub(crate) fn operations(&self) -> &Operations {
        &self.operations
    }

    /// Returns the counters of requests by route and method.
    pub(crate) fn routes(&self) -> &RouteTable {
        self.routes.get_or_init(|| Box::new(RouteTable::new()))
    }

    /// Returns the caches in front of the pool.
    #[cfg_attr(not(feature = "redis"), allow(dead_code, reason = "only caches are added"))]
    pub(crate) fn caches(&self) -> &Caches {
        &self.caches
    }

    /// Returns the last view of the server.
    pub(crate) fn server(&self) -> &LatestServerView {
        &self.server
    }

    /// Sets the source of [`PoolSnapshot::connecting_suspended`]. A second call has no effect.
    pub(crate) fn set_backoff_source(&self, source: Weak<dyn BackoffSource>) {
        let _ = self.backoff.set(source);
    }

    /// Passes each sample to `observer` until that is dropped.
    #[cfg_attr(not(feature = "exporter"), allow(dead_code, reason = "only recordings observe samples"))]
    pub(crate) fn add_observer(&self, observer: Weak<dyn SampleObserver>) {
        let mut observers = self.observers.lock().unwrap_or_else(PoisonError::into_inner);
        observers.retain(|observer| observer.strong_count() > 0);
        observers.push(observer);
    }

    /// Sets the pool's settings, without secrets. A second call has no effect.
    pub(crate) fn set_settings(&self, settings: Vec<(&'static str, String)>) {
        let _ = self.settings.set(settings);
    }

    /// Returns the pool's settings as text, without secrets.
    #[cfg_attr(not(feature = "exporter"), allow(dead_code, reason = "only recordings contain them"))]
    pub(crate) fn settings(&self) -> &[(&'static str, String)] {
        self.settings.get().map_or(&[], Vec::as_slice)
    }

    /// Returns for how long connecting has been suspended, or zero.
    fn connecting_suspended(&self) -> Duration {
        let source = self.backoff.get().and_then(Weak::upgrade);
        source.and_then(|source| source.suspended_for()).unwrap_or_default()
    }

    /// Returns the tracker of query spans for a connection to `server`.
    pub(crate) fn query_spans(&self, server: Option<Arc<ServerAddress>>) -> QuerySpans {
        QuerySpans::new(Arc::clone(&self.name), &self.summaries, server)
    }

    /// Returns a shared handle to the name of an operation.
    pub(crate) fn operation_name(&self, operation: OperationId) -> Arc<str> {
        self.operations.shared_name(operation)
    }

    /// Returns a query's summary.
    #[cfg(feature = "proxy")]
    pub(crate) fn summary(&self, query: QueryId) -> &str {
        self.summaries.name(query.as_u16())
    }

    fn state(&self) -> MutexGuard<'_, LedgerState> {
        // A panic cannot leave the state inconsistent, so a poisoned lock is usable.
        self.contended.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
