//! The statistics of one connection: its state, its operation, and what it has served.
//!
//! A connection has one holder at a time, and the pool passes it on under a lock, so its counters have one writer at a
//! time and need no atomic read-modify-write. Readers may come at any time: state, operation and the time of the last
//! change are packed into one word, so that they are always consistent with each other.

mod holder;
mod packed;
mod totals;

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU64};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use self::holder::HolderSpans;
pub(crate) use self::holder::QueryParent;
use self::packed::PackedState;
pub(crate) use self::packed::UnpackedState;
pub(crate) use self::totals::ConnectionTotals;
use super::clock::Nanos;
use super::operations::{OPERATION_IDS, OperationId, SiteId};
use super::owned::{OwnedCounter, OwnedUseTimes, UseTimes};
use super::requests::RouteKey;
use super::trace::{self, SampledSpan, TraceContext};
use super::wire::WireStats;
use crate::labels::{Activity, ConnectionState};

/// The counters of operations are allocated in groups of this size, when the first operation of a group is counted.
const GROUP: usize = 8;
const GROUPS: usize = OPERATION_IDS.div_ceil(GROUP);

/// What one operation did on one connection.
#[derive(Debug, Default)]
struct OperationCounters {
    /// Checkouts that were served at their first poll.
    served: OwnedCounter,
    /// Uses that ended.
    returned: OwnedCounter,
    /// The duration of those uses.
    nanos: OwnedCounter,
    /// Time for which the pool itself used the connection, to ping it or to reset it at checkout.
    maintenance_nanos: OwnedCounter,
}

/// Aligned for the same reason as [`ConnectionStats`].
#[derive(Debug, Default)]
#[repr(align(128))]
struct Group([OperationCounters; GROUP]);

/// The statistics of one connection, from the start of connecting until it is closed.
///
/// Aligned so that connections in use by different threads share neither a cache line nor a pair of lines, and laid out
/// in declaration order so that the fields written on each use are on few lines.
#[derive(Debug)]
#[repr(C, align(128))]
pub(crate) struct ConnectionStats {
    packed_state: PackedState,
    /// The task of the holder; zero if there was none.
    task: AtomicU64,
    /// The call site of the holder's checkout.
    site: AtomicU16,
    /// What a return has to consider beyond the usual, which is read as a whole: [`SUSPECTED`] and [`CANCELLABLE`].
    marks: AtomicU8,
    /// Whether the holder is part of a sampled trace.
    traced: AtomicBool,
    /// The route and method of the request that the holder serves, packed; zero if there is none.
    request: AtomicU16,
    use_time: OwnedUseTimes,
    operations: [OnceLock<Box<Group>>; GROUPS],
    wire: WireStats,
    /// Locked only if the holder is part of a sampled trace.
    spans: Mutex<HolderSpans>,
    /// The time for which holders waited for another connection of the pool, in nanoseconds. Written under the ledger's lock.
    own_wait: AtomicU64,
}

/// The holder was reported as a suspected leak.
const SUSPECTED: u8 = 1;
/// The holder has a token that cancels its query.
const CANCELLABLE: u8 = 2;

impl ConnectionStats {
    /// Returns the statistics of a connection that is being created from now on.
    pub(crate) fn new(operation: OperationId, at: Nanos) -> Self {
        Self {
            packed_state: PackedState::new(ConnectionState::Creating, operation, at),
            site: AtomicU16::new(SiteId::NONE.as_u16()),
            marks: AtomicU8::new(0),
            task: AtomicU64::new(0),
            traced: AtomicBool::new(false),
            request: AtomicU16::new(0),
            spans: Mutex::default(),
            use_time: OwnedUseTimes::default(),
            operations: [const { OnceLock::new() }; GROUPS],
            wire: WireStats::default(),
            own_wait: AtomicU64::new(0),
        }
    }

    /// Adds time for which the holder's task waited for another connection of the pool.
    pub(crate) fn add_own_wait(&self, nanos: u64) {
        self.own_wait.fetch_add(nanos, Relaxed);
    }

    /// Returns the time for which holders' tasks waited for another connection of the pool, in nanoseconds.
    #[cfg_attr(not(feature = "middleware"), allow(dead_code, reason = "only requests are warned of idle holds"))]
    pub(crate) fn own_wait(&self) -> u64 {
        self.own_wait.load(Relaxed)
    }

    /// Returns what was observed on the connection's wire.
    #[inline]
    pub(crate) fn wire(&self) -> &WireStats {
        &self.wire
    }

    /// Returns the state of the connection.
    pub(crate) fn state(&self) -> UnpackedState {
        UnpackedState::unpack(self.packed_state())
    }

    /// Returns the packed state, which differs for each use of the connection.
    pub(crate) fn packed_state(&self) -> u64 {
        self.packed_state.get()
    }

    /// Sets the call site and the task of the next holder. Called before [`Self::set_used`].
    #[inline]
    pub(crate) fn set_holder(&self, site: SiteId, task: u64) {
        self.site.store(site.as_u16(), Relaxed);
        self.task.store(task, Relaxed);
    }

    /// Sets the request that the holder serves, until it returns the connection.
    #[cfg_attr(not(feature = "middleware"), allow(dead_code, reason = "only the middleware serves requests"))]
    pub(crate) fn set_request(&self, request: Option<RouteKey>) {
        self.request.store(request.map_or(0, RouteKey::packed), Relaxed);
    }

    /// Returns the request that the holder serves, if it is known.
    pub(crate) fn request(&self) -> Option<RouteKey> {
        RouteKey::unpacked(self.request.load(Relaxed))
    }

    /// Sets the span in which the next holder checks the connection out.
    #[inline]
    pub(crate) fn set_span(&self, span: Option<SampledSpan>) {
        if span.is_some() || self.is_traced() {
            self.replace_span(span);
        }
    }

    #[cold]
    fn replace_span(&self, span: Option<SampledSpan>) {
        let traced = span.is_some();
        // Dropped after the lock is released.
        let _previous = std::mem::replace(&mut *self.spans(), HolderSpans::new(span));
        self.traced.store(traced, Relaxed);
    }

    /// Records that the holder, which is part of a sampled trace, uses the connection in the current span. For the
    /// arguments, see `HolderSpans::record_use`.
    pub(crate) fn record_traced_use(&self, is_exclusive: bool, is_settled: impl FnOnce() -> bool) {
        let current = trace::current();
        let is_settled = || is_settled() && self.wire.status().activity() != Some(Activity::Executing);
        let _previous = self.spans().record_use(current, is_exclusive, is_settled);
    }

    /// Keeps only the ids of the holder's span after a return, so that the span itself does not live longer.
    #[inline]
    pub(crate) fn release_span(&self) {
        if self.is_traced() {
            self.release_traced();
        }
    }

    #[cold]
    fn release_traced(&self) {
        let mut spans = self.spans();
        let released = spans.checkout.as_ref().map(SampledSpan::released);
        let _previous = (std::mem::replace(&mut spans.checkout, released), std::mem::take(&mut spans.last_use));
        drop(spans);
    }

    /// Counts one more link from the holder's span to a waiter. Returns whether the link may be added: the span is
    /// still `holder` and has not reached its maximum.
    pub(crate) fn count_waiter_link(&self, holder: TraceContext) -> bool {
        self.spans().count_waiter_link(holder)
    }

    fn spans(&self) -> MutexGuard<'_, HolderSpans> {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether the holder is part of a sampled trace.
    #[inline]
    pub(crate) fn is_traced(&self) -> bool {
        cfg!(feature = "otel") && self.traced.load(Relaxed)
    }

    /// Returns the span of the last checkout, until the next one.
    pub(crate) fn span(&self) -> Option<SampledSpan> {
        if self.is_traced() { self.spans().checkout.clone() } else { None }
    }

    /// Records that a request of the holder was sent. Returns the parent of its query's span, if it is to have one.
    pub(crate) fn begin_request(&self) -> Option<QueryParent> {
        if self.is_traced() { self.spans().begin_request() } else { None }
    }

    /// Returns the ids of [`Self::span`].
    pub(crate) fn span_ids(&self) -> Option<TraceContext> {
        if self.is_traced() { self.spans().checkout.as_ref().map(SampledSpan::ids) } else { None }
    }

    /// Returns the call site of the last checkout.
    pub(crate) fn site(&self) -> SiteId {
        SiteId::from_u16(self.site.load(Relaxed))
    }

    /// Returns the task of the last checkout; zero if there was none.
    pub(crate) fn task(&self) -> u64 {
        self.task.load(Relaxed)
    }

    /// Returns whether the holder is a suspected leak or has a cancel token.
    #[inline]
    pub(crate) fn is_marked(&self) -> bool {
        self.marks.load(Relaxed) != 0
    }

    /// Returns whether the holder was reported as a suspected leak.
    pub(crate) fn is_suspected(&self) -> bool {
        self.marks.load(Relaxed) & SUSPECTED != 0
    }

    /// Sets whether the holder was reported as a suspected leak. Returns the previous value.
    pub(crate) fn set_suspected(&self, suspected: bool) -> bool {
        self.set_mark(SUSPECTED, suspected)
    }

    /// Sets whether the holder has a token that cancels its query. Returns the previous value.
    pub(crate) fn set_cancellable(&self, cancellable: bool) -> bool {
        self.set_mark(CANCELLABLE, cancellable)
    }

    fn set_mark(&self, mark: u8, set: bool) -> bool {
        let before = if set { self.marks.fetch_or(mark, Relaxed) } else { self.marks.fetch_and(!mark, Relaxed) };
        before & mark != 0
    }

    #[inline]
    pub(crate) fn set_used(&self, operation: OperationId, at: Nanos) {
        self.packed_state.set(ConnectionState::Used, operation, at);
    }

    /// Records that the pool itself uses the connection on behalf of the operation.
    pub(crate) fn set_maintenance(&self, operation: OperationId, at: Nanos) {
        self.packed_state.set_maintenance(operation, at);
    }

    /// Records that the pool closes the connection while the server may still execute for the operation. A use of the
    /// connection continues as this state, and its time stays that of its own operation.
    pub(crate) fn set_closing(&self, operation: OperationId, at: Nanos) {
        let state = self.state();
        let (operation, since) = if state.is_used() { (state.operation, state.since) } else { (operation, at) };
        self.packed_state.set(ConnectionState::Closing, operation, since);
    }

    #[inline]
    pub(crate) fn set_idle(&self, at: Nanos) {
        self.packed_state.set(ConnectionState::Idle, OperationId::OTHER, at);
    }

    /// Counts a checkout that was served at its first poll.
    #[inline]
    pub(crate) fn count_served(&self, operation: OperationId) {
        self.counters(operation).served.add(1);
    }

    /// Counts a use that ended. Called after the state has changed, so that a concurrent reader may miss the use but
    /// does not count it twice.
    #[inline]
    pub(crate) fn count_use(&self, operation: OperationId, nanos: u64) {
        PackedState::before_counting();
        self.use_time.observe(nanos);
        let counters = self.counters(operation);
        counters.returned.add(1);
        counters.nanos.add(nanos);
    }

    /// Counts time for which the pool itself used the connection. Called after the state has changed, as
    /// [`Self::count_use`].
    pub(crate) fn count_maintenance(&self, operation: OperationId, nanos: u64) {
        PackedState::before_counting();
        self.counters(operation).maintenance_nanos.add(nanos);
    }

    /// Attributes the use in progress to another operation from `at` on. The time before counts for the previous one.
    #[cfg_attr(not(feature = "proxy"), allow(dead_code, reason = "only a proxy names uses after they began"))]
    pub(crate) fn set_operation(&self, operation: OperationId, at: Nanos) {
        let left = self.state();
        self.set_used(operation, at);
        self.count_maintenance(left.operation, at.since(left.since));
        self.wire.continue_use(self.packed_state());
    }

    /// Counts a use that ended after `total` nanoseconds, of which `nanos` were attributed to this operation. Called as
    /// [`Self::count_use`].
    #[cfg_attr(not(feature = "proxy"), allow(dead_code, reason = "only a proxy names uses after they began"))]
    pub(crate) fn count_named_use(&self, operation: OperationId, nanos: u64, total: u64) {
        PackedState::before_counting();
        self.use_time.observe(total);
        let counters = self.counters(operation);
        counters.served.add(1);
        counters.returned.add(1);
        counters.nanos.add(nanos);
    }

    /// Adds what the connection has counted to `totals`, including the use in progress up to `now`. Returns the state
    /// that was read.
    pub(crate) fn add_to(&self, totals: &mut ConnectionTotals, now: Nanos) -> UnpackedState {
        self.use_time.add_to(&mut totals.use_time);
        for (group, first) in self.operations.iter().zip((0..).step_by(GROUP)) {
            let Some(group) = group.get() else { continue };
            for (counters, total) in group.0.iter().zip(&mut totals.by_operation[first..]) {
                total.served += counters.served.get();
                total.returned += counters.returned.get();
                total.nanos += counters.nanos.get();
                total.held_nanos += counters.nanos.get() + counters.maintenance_nanos.get();
            }
        }
        self.wire.add_query_durations_to(&mut totals.queries);
        self.wire.add_to(&mut totals.wire, now);
        let state = self.packed_state.after_counters();
        if state.is_held() {
            totals.by_operation[state.operation.index()].held_nanos += now.since(state.since);
        }
        state
    }

    /// Adds the uses that have ended to `uses`. Returns whether the connection is checked out.
    pub(crate) fn add_uses_to(&self, uses: &mut UseTimes) -> bool {
        self.use_time.add_to(uses);
        self.packed_state.after_counters().is_checked_out()
    }

    #[inline(always)]
    fn counters(&self, operation: OperationId) -> &OperationCounters {
        let index = operation.index();
        &self.operations[index / GROUP].get_or_init(Box::default).0[index % GROUP]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_add_up_over_connections_and_operations() {
        let mut totals = ConnectionTotals::default();
        for _ in 0..2 {
            let stats = ConnectionStats::new(OperationId::OTHER, Nanos::ZERO);
            for id in [0, 7, 8, 200] {
                let operation = OperationId::from_index(id);
                stats.count_served(operation);
                stats.count_use(operation, 10);
            }
            stats.add_to(&mut totals, Nanos::ZERO);
        }
        for id in [0, 7, 8, 200] {
            let uses = totals.by_operation[id];
            assert_eq!((uses.served, uses.returned, uses.nanos), (2, 2, 20));
        }
        assert_eq!(totals.use_time.count(), 8);
        assert_eq!(totals.by_operation.iter().map(|uses| uses.served).sum::<u64>(), 8);
    }
}
