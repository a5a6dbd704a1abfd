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
use std::sync::atomic::{Ordering::SeqCst, fence};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use self::backlog::SharedServiceInterval;
use self::diagnosed::UNSAMPLED_INTERVAL;
pub use self::holders::{Holder, OwnConnection, Waiter};
use self::holders::{SelfDeadlock, SuspicionChange};
pub(crate) use self::in_flight::Ticket;
use self::in_flight::{Waiting, new_waiting, thread_number};
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
use super::histogram::{Histogram, SharedHistogram};
use super::log::{Limiters, Log};
use super::names::{NAME_IDS, NameTable};
use super::operations::{OPERATION_IDS, OperationId, Operations};
#[cfg(feature = "proxy")]
use super::queries::QueryId;
use super::requests::RouteTable;
use super::server::{LatestServerView, OwnBackends};
use super::trace::{self, QuerySpans, ServerAddress};
use super::verdict::{Diagnoser, SampleObserver};
use crate::labels::{ConnectionState, Outcome, Phase, PoolKind};

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
        Self {
            name,
            kind: PoolKind::Pool,
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
            waiting: new_waiting(),
            contended: Contended::default(),
            budget: Budget::new(BudgetConfig { floor: limits.retry_floor, percent: limits.retry_percent }),
            limiters: Limiters::default(),
            replacement: Replacement::default(),
        }
    }

    /// Creates the ledger of a pool that is in the clients of a proxy.
    #[cfg(feature = "proxy")]
    pub(crate) fn of_proxy(name: Arc<str>, limits: Limits, clock: Clock) -> Self {
        let mut ledger = Self::new(name, limits, clock);
        ledger.kind = PoolKind::Proxy;
        // There are many pools of clients, and their checkouts do not wait here.
        ledger.waiting = Waiting::new(1);
        ledger
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

    /// Returns whether no connection is live and no checkout is in flight.
    pub(crate) fn is_drained(&self) -> bool {
        let state = self.freeze();
        state.connections.is_empty() && state.in_flight_count == 0
    }

    /// Returns what a checkout in flight waits for and since when, and the connection that its task itself holds, if any.
    /// Called by the checkout's own task.
    pub(crate) fn wait_state(&self, ticket: Ticket) -> (Phase, Nanos, Option<OwnConnection>) {
        let now = self.clock.now();
        let mut state = self.state();
        let mut shard = self.waiting.local(thread_number());
        let entry = shard.entry(ticket.key()).map(|(entry, _)| entry);
        let wait = entry.and_then(|entry| state.wait_state(entry, self, now));
        drop(shard);
        let found = state.take_self_deadlocks();
        drop(state);
        self.report_self_deadlocks(&found);
        wait.unwrap_or((Phase::Queue, now, None))
    }

    /// Returns whether more connections are idle than `pool_size` and the waiting checkouts account for.
    pub(crate) fn has_surplus(&self) -> bool {
        let pool_size = self.limits().pool_size;
        // A return and a checkout that leaves the queue each call this after their change: of the two fences, the later
        // one comes after both changes.
        fence(SeqCst);
        // Mostly, these suffice: however many connections are idle, and without the locks of the shards.
        let max_idle = || pool_size.saturating_add(self.contended.queue.waiting());
        if self.hints.live() <= max_idle() || self.connections().idle <= max_idle() {
            return false;
        }
        let state = self.freeze();
        Connections::of(state.states()).idle > state.max_idle(pool_size)
    }

    /// Adds the backends that belong to the pool.
    pub(crate) fn add_own_backends(&self, own: &mut OwnBackends) {
        let state = self.state();
        for stats in &state.connections {
            match stats.wire().backend() {
                Some(pid) => drop(own.pids.insert(pid)),
                // Its wire is not observed.
                None => own.unknown |= stats.state().label != ConnectionState::Creating,
            }
        }
        own.unpooled += state.unpooled.open_count();
        own.pids.extend(self.server.backends());
    }

    /// Returns whether the pool has less than its maximum of connections.
    pub(crate) fn has_room(&self) -> bool {
        let state = self.state();
        state.connections.len() < self.limits().max()
    }

    /// Returns the numbers of connections by state, without the locks of the shards.
    pub(crate) fn connections(&self) -> Connections {
        Connections::of(self.state().states())
    }

    /// Returns the numbers of connections and checkouts.
    pub(crate) fn status(&self) -> Status {
        self.freeze().status(&self.limits())
    }

    /// Returns the pool's usage. The cost does not depend on the number of waiters, because many may time out together
    /// and each calls this.
    pub(crate) fn usage(&self) -> PoolUsage {
        let now = self.clock.now();
        let (usage, changes) = {
            let mut state = self.freeze();
            let first = state.first_in_queue();
            (state.usage(self, now, first), state.review_suspicions(self, now))
        };
        self.report_suspicions(&changes);
        usage
    }

    /// Returns the holders of connections, oldest first.
    pub(crate) fn holders(&self) -> Vec<Holder> {
        let now = self.clock.now();
        let (holders, changes, found) = {
            let mut state = self.freeze();
            (state.holders(self, now), state.review_suspicions(self, now), state.take_self_deadlocks())
        };
        self.report_suspicions(&changes);
        self.report_self_deadlocks(&found);
        holders
    }

    /// Returns the checkouts in flight, oldest first.
    pub(crate) fn waiters(&self) -> Vec<Waiter> {
        let now = self.clock.now();
        let (waiters, found) = {
            let mut state = self.freeze();
            (state.waiters(self, now), state.take_self_deadlocks())
        };
        self.report_self_deadlocks(&found);
        waiters
    }

    /// Returns everything that the pool has recorded, at one point in time.
    #[must_use]
    pub(crate) fn snapshot(&self) -> PoolSnapshot {
        let mut buffer = SnapshotBuffer::new();
        let now = self.read_with(&mut buffer, LedgerState::read_holders);
        self.diagnose_if_due(now, &mut buffer);
        buffer.into_snapshot()
    }

    /// Returns a snapshot for the series of the pool's name, which include the pool that this one has replaced.
    pub(crate) fn collected_snapshot(&self, holders: bool) -> PoolSnapshot {
        self.close_idle();
        let mut buffer = SnapshotBuffer::new();
        if holders {
            let now = self.read_with(&mut buffer, LedgerState::read_holders);
            self.diagnose_if_due(now, &mut buffer);
        } else if !self.sample_unsampled(&mut buffer) {
            self.read_with(&mut buffer, |_, _, _, _| {});
            buffer.set_diagnosis(self.verdict(), self.sizing());
        }
        let mut snapshot = buffer.into_snapshot();
        self.add_others(&mut snapshot, holders);
        snapshot
    }

    /// Reads a snapshot without holders and waiters, including the pool that this one has replaced, into a buffer.
    #[cfg_attr(not(feature = "exporter"), allow(dead_code, reason = "only the exporter reuses a buffer"))]
    pub(crate) fn read(&self, buffer: &mut SnapshotBuffer) {
        self.record_unsampled(self.clock.now());
        self.read_or_sample(buffer, UNSAMPLED_INTERVAL, Duration::ZERO);
    }

    /// Reads a snapshot as [`Self::read`] does, and diagnoses it as [`Self::sample`] does.
    #[cfg_attr(not(feature = "exporter"), allow(dead_code, reason = "only the exporter reuses a buffer"))]
    pub(crate) fn read_or_sample(&self, buffer: &mut SnapshotBuffer, interval: Duration, late: Duration) {
        self.close_idle();
        if !self.sample(buffer, interval, late) {
            self.read_with(buffer, |_, _, _, _| {});
            buffer.set_diagnosis(self.verdict(), self.sizing());
        }
        self.add_others(buffer.snapshot_mut(), false);
    }

    /// Reads a snapshot into a buffer, and calls `read_more` under the same lock. Returns the time of the snapshot.
    fn read_with(
        &self,
        buffer: &mut SnapshotBuffer,
        read_more: impl FnOnce(&mut LedgerState, &Self, Nanos, &mut SnapshotBuffer),
    ) -> Nanos {
        let now = self.clock.now();
        let (changes, found) = {
            let mut state = self.freeze_with_totals();
            let changes = state.review_suspicions(self, now);
            state.read(self, now, buffer);
            read_more(&mut state, self, now, buffer);
            (changes, state.take_self_deadlocks())
        };
        self.report_suspicions(&changes);
        self.report_self_deadlocks(&found);
        // Not part of the consistent state, so read without its lock.
        buffer.read_unlocked(self);
        now
    }

    /// Logs changes of suspected leaks, and adds events to the holders' spans.
    fn report_suspicions(&self, changes: &[SuspicionChange]) {
        for SuspicionChange { suspected, operation, site, age, span } in changes {
            let (id, operation) = (*operation, self.operations.name(*operation));
            let call_site = self.operations.location(*site);
            if *suspected {
                self.log().leak_suspected((id, operation), call_site, *age);
                if let Some(span) = span {
                    trace::record_suspected_leak(span, operation, *age);
                }
            } else {
                self.log().suspect_used(operation, call_site, *age);
            }
        }
    }

    /// Logs checkouts that wait while their own task holds a connection.
    fn report_self_deadlocks(&self, found: &[SelfDeadlock]) {
        for SelfDeadlock { operation, site, held: (held_operation, held_site) } in found {
            let waiting = (self.operations.name(*operation), self.operations.location(*site));
            let held = (self.operations.name(*held_operation), self.operations.location(*held_site));
            self.log().self_deadlock(waiting, held);
        }
    }

    fn state(&self) -> MutexGuard<'_, LedgerState> {
        // A panic cannot leave the state inconsistent, so a poisoned lock is usable.
        self.contended.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_durations(&self, operation: OperationId, histograms: &mut [Histogram; Outcome::COUNT]) {
        match self.durations[operation.index()].get() {
            Some(durations) => {
                for (duration, histogram) in durations.iter().zip(histograms) {
                    match duration.get() {
                        Some(duration) => duration.read_into(histogram),
                        None => histogram.clear(),
                    }
                }
            }
            None => histograms.iter_mut().for_each(Histogram::clear),
        }
    }
}
