//! The account that travels with a connection: what state it is in, for whom, and what it has served.
//!
//! A connection has one holder at a time, and the pool hands it on under a lock; so its counters have one writer
//! at a time and need no atomic read-modify-write. Readers may come at any moment: the state, the operation and the
//! time of the last change are packed into one word, so that they are always of the same moment.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, fence};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use super::cell::OwnedCounter;
use super::clock::Nanos;
use super::histogram::{Histogram, OwnedHistogram};
use super::names::IDS;
use super::operations::{OPERATION_IDS, OperationId, SiteId};
use super::trace::{self, Surroundings, Trace, TraceContext};
use super::wire::{Wire, WireTotals};
use crate::labels::ConnectionState;

/// Operations are counted in groups, made when the first of a group is seen.
const GROUP: usize = 8;
const GROUPS: usize = OPERATION_IDS.div_ceil(GROUP);

/// What one operation did on one connection.
#[derive(Debug, Default)]
struct Uses {
    /// Checkouts that were served at their first poll.
    served: OwnedCounter,
    /// Uses that ended, and the time they took.
    returned: OwnedCounter,
    nanos: OwnedCounter,
    /// Time for which the pool itself used the connection, to ping it or to clean it at checkout.
    maintenance_nanos: OwnedCounter,
}

/// Aligned as the [`ConnectionStats`] is, and for the same reason.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Group([Uses; GROUP]);

/// The account of one connection, from the start of connecting until it is closed.
///
/// Aligned so that two connections in use by two threads never share a cache line, nor a pair of lines; and in the order in
/// which it is declared, so that what each hold writes is on few.
#[derive(Debug)]
#[repr(C, align(128))]
pub(crate) struct ConnectionStats {
    word: AtomicU64,
    /// The task that got it; zero if it was none.
    task: AtomicU64,
    /// Where the holder asked for it.
    site: AtomicU16,
    /// Whether the holder was reported as a suspected leak.
    suspected: AtomicBool,
    /// Whether it got it in a sampled trace.
    traced: AtomicBool,
    use_time: OwnedHistogram,
    uses: [OnceLock<Box<Group>>; GROUPS],
    wire: Wire,
    /// In which trace it got it, if that is sampled. The lock is taken by nobody else.
    trace: Mutex<Holding>,
}

/// The spans of a holder that is part of a trace.
#[derive(Debug, Default)]
struct Holding {
    /// In which it got the connection.
    trace: Option<Trace>,
    /// In which it used it last.
    used: Used,
    /// How many of those who wait for it its span points to.
    waiters: u8,
}

/// Where a holder used its connection last.
#[derive(Debug, Default)]
enum Used {
    /// Where it got it, or where nobody traces.
    #[default]
    AsGot,
    Within(Trace),
    /// Within a trace that is not sampled.
    Unsampled,
}

/// How many waiters a holder's span points to: it has to have room for links of its own.
const MOST_WAITERS: u8 = 16;

/// What a seat's word says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UnpackedState {
    pub(crate) state: ConnectionState,
    /// Whether it is the pool itself that uses it, to ping it or to clean it, on behalf of the operation.
    pub(crate) maintenance: bool,
    /// For whom it is being created or used; of no meaning while idle.
    pub(crate) operation: OperationId,
    /// When this state began, to the microsecond.
    pub(crate) since: Nanos,
}

const OPERATION_BITS: u32 = 12;
const STATE_BITS: u32 = 2;
/// Beside the three states: used by the pool itself.
const MAINTENANCE: u64 = 3;
/// Nanoseconds are dropped to units of 1,024: 50 bits of those last for 36 years.
const TIME_SHIFT: u32 = 10;
const SINCE_SHIFT: u32 = OPERATION_BITS + STATE_BITS;

impl UnpackedState {
    #[inline]
    fn pack(state: u64, operation: OperationId, since: Nanos) -> u64 {
        ((since.as_nanos() >> TIME_SHIFT) << SINCE_SHIFT) | ((operation.index() as u64) << STATE_BITS) | state
    }

    pub(crate) fn unpack(word: u64) -> Self {
        let bits = word & ((1 << STATE_BITS) - 1);
        let state = match bits {
            0 => ConnectionState::Creating,
            1 => ConnectionState::Idle,
            _ => ConnectionState::Used,
        };
        let operation = OperationId::from_index((word >> STATE_BITS) & ((1 << OPERATION_BITS) - 1));
        Self {
            state,
            maintenance: bits == MAINTENANCE,
            operation,
            since: Nanos::from_nanos((word >> SINCE_SHIFT) << TIME_SHIFT),
        }
    }
}

impl ConnectionStats {
    /// A connection that is being created from now on.
    pub(crate) fn new(operation: OperationId, at: Nanos) -> Self {
        Self {
            word: AtomicU64::new(UnpackedState::pack(ConnectionState::Creating as u64, operation, at)),
            site: AtomicU16::new(SiteId::NONE.as_u16()),
            suspected: AtomicBool::new(false),
            task: AtomicU64::new(0),
            traced: AtomicBool::new(false),
            trace: Mutex::new(Holding::default()),
            use_time: OwnedHistogram::default(),
            uses: [const { OnceLock::new() }; GROUPS],
            wire: Wire::default(),
        }
    }

    /// What passes on its wire.
    #[inline]
    pub(crate) fn wire(&self) -> &Wire {
        &self.wire
    }

    pub(crate) fn unpacked_state(&self) -> UnpackedState {
        UnpackedState::unpack(self.word())
    }

    /// The word itself, which is another for each hold.
    pub(crate) fn word(&self) -> u64 {
        self.word.load(Relaxed)
    }

    /// Says who gets the connection. To be said before it is used.
    #[inline]
    pub(crate) fn set_holder(&self, site: SiteId, task: u64) {
        self.site.store(site.as_u16(), Relaxed);
        self.task.store(task, Relaxed);
    }

    /// Says in which trace it gets it.
    #[inline]
    pub(crate) fn set_trace(&self, trace: Option<Trace>) {
        if trace.is_some() || self.is_traced() {
            self.change_trace(trace);
        }
    }

    #[cold]
    fn change_trace(&self, trace: Option<Trace>) {
        let traced = trace.is_some();
        // Dropped when the lock is free again.
        let _before = std::mem::replace(&mut *self.holding(), Holding { trace, ..Holding::default() });
        self.traced.store(traced, Relaxed);
    }

    /// Says that the holder uses it, in the span that is entered.
    #[inline]
    pub(crate) fn note_use(&self) {
        if self.is_traced() {
            self.change_use();
        }
    }

    #[cold]
    fn change_use(&self) {
        let used = match trace::surroundings() {
            Surroundings::Untraced => return,
            Surroundings::Unsampled => Used::Unsampled,
            Surroundings::Sampled(within) => Used::Within(within),
        };
        let _before = std::mem::replace(&mut self.holding().used, used);
    }

    /// The holder is gone: keeps of its span no more than the ids, so that it does not live for longer on that account.
    #[inline]
    pub(crate) fn release_trace(&self) {
        if self.is_traced() {
            self.release();
        }
    }

    #[cold]
    fn release(&self) {
        let mut holding = self.holding();
        let released = holding.trace.as_ref().map(Trace::released);
        let _before = (std::mem::replace(&mut holding.trace, released), std::mem::take(&mut holding.used));
        drop(holding);
    }

    /// Whether the span of the holder, if it is still this one, may point to one more that waits.
    pub(crate) fn may_point_to_waiter(&self, holder: TraceContext) -> bool {
        let mut holding = self.holding();
        let may = holding.trace.as_ref().is_some_and(|trace| trace.ids() == holder) && holding.waiters < MOST_WAITERS;
        holding.waiters += u8::from(may);
        may
    }

    fn holding(&self) -> MutexGuard<'_, Holding> {
        self.trace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the holder got it in a sampled trace.
    #[inline]
    pub(crate) fn is_traced(&self) -> bool {
        cfg!(feature = "otel") && self.traced.load(Relaxed)
    }

    /// The span in which it got it. It is known until the next one gets it.
    pub(crate) fn trace(&self) -> Option<Trace> {
        if self.is_traced() { self.holding().trace.clone() } else { None }
    }

    /// The span in which it used it last: the one that has to do with what the server is asked.
    pub(crate) fn used_within(&self) -> Option<Trace> {
        if !self.is_traced() {
            return None;
        }
        let holding = self.holding();
        match &holding.used {
            Used::AsGot => holding.trace.clone(),
            Used::Within(within) => Some(within.clone()),
            Used::Unsampled => None,
        }
    }

    /// Its ids.
    pub(crate) fn trace_ids(&self) -> Option<TraceContext> {
        if self.is_traced() { self.holding().trace.as_ref().map(Trace::ids) } else { None }
    }

    /// Where the holder asked for it.
    pub(crate) fn site(&self) -> SiteId {
        SiteId::from_u16(self.site.load(Relaxed))
    }

    /// Which task got it; zero if it was none.
    pub(crate) fn task(&self) -> u64 {
        self.task.load(Relaxed)
    }

    /// Whether the holder was reported as a suspected leak.
    #[inline]
    pub(crate) fn is_suspected(&self) -> bool {
        self.suspected.load(Relaxed)
    }

    /// Says whether it is; answers what was said before.
    pub(crate) fn suspect(&self, suspected: bool) -> bool {
        self.suspected.swap(suspected, Relaxed)
    }

    #[inline]
    pub(crate) fn set_used(&self, operation: OperationId, at: Nanos) {
        self.word.store(UnpackedState::pack(ConnectionState::Used as u64, operation, at), Relaxed);
    }

    /// The pool itself uses the connection, on behalf of the operation.
    pub(crate) fn set_maintenance(&self, operation: OperationId, at: Nanos) {
        self.word.store(UnpackedState::pack(MAINTENANCE, operation, at), Relaxed);
    }

    #[inline]
    pub(crate) fn set_idle(&self, at: Nanos) {
        self.word.store(UnpackedState::pack(ConnectionState::Idle as u64, OperationId::OTHER, at), Relaxed);
    }

    /// Counts a checkout that was started and served in one.
    #[inline]
    pub(crate) fn count_served(&self, operation: OperationId) {
        self.uses_of(operation).served.add(1);
    }

    /// Counts a use that ended. To be told after whatever the connection is now: whoever reads this account in
    /// between then misses the use, and does not find it twice.
    #[inline]
    pub(crate) fn count_use(&self, operation: OperationId, nanos: u64) {
        fence(Release);
        self.use_time.observe(nanos);
        let uses = self.uses_of(operation);
        uses.returned.add(1);
        uses.nanos.add(nanos);
    }

    /// Counts time for which the pool itself used the connection; told after what it is now, as a use is.
    pub(crate) fn count_maintenance(&self, operation: OperationId, nanos: u64) {
        fence(Release);
        self.uses_of(operation).maintenance_nanos.add(nanos);
    }

    /// Adds what this connection served to `totals`, what is under way at `now` included; answers how it stands.
    pub(crate) fn add_to(&self, totals: &mut ConnectionTotals, now: Nanos) -> UnpackedState {
        self.use_time.add_to(&mut totals.use_time);
        for (group, first) in self.uses.iter().zip((0..).step_by(GROUP)) {
            let Some(group) = group.get() else { continue };
            for (uses, total) in group.0.iter().zip(&mut totals.by_operation[first..]) {
                total.served += uses.served.get();
                total.returned += uses.returned.get();
                total.nanos += uses.nanos.get();
                total.held_nanos += uses.nanos.get() + uses.maintenance_nanos.get();
            }
        }
        self.wire.add_times_to(&mut totals.queries);
        self.wire.add_to(&mut totals.wire, now);
        // Read after what was counted, as it is written before it.
        fence(Acquire);
        let unpacked_state = self.unpacked_state();
        if unpacked_state.state == ConnectionState::Used {
            totals.by_operation[unpacked_state.operation.index()].held_nanos += now.since(unpacked_state.since);
        }
        unpacked_state
    }

    #[inline(always)]
    fn uses_of(&self, operation: OperationId) -> &Uses {
        let index = operation.index();
        &self.uses[index / GROUP].get_or_init(Box::default).0[index % GROUP]
    }
}

/// The sum over connections of what they served.
#[derive(Clone, Debug)]
pub(crate) struct ConnectionTotals {
    pub(crate) use_time: Histogram,
    /// By operation id.
    pub(crate) by_operation: Vec<UseTotals>,
    /// By operation id.
    pub(crate) wire: Vec<WireTotals>,
    /// Times of queries that succeeded, by query id.
    pub(crate) queries: Vec<Histogram>,
}

/// The sum over connections of what one operation did.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct UseTotals {
    pub(crate) served: u64,
    pub(crate) returned: u64,
    pub(crate) nanos: u64,
    /// For how long connections were used for it, those that still are and those that the pool itself used included.
    pub(crate) held_nanos: u64,
}

impl ConnectionTotals {
    /// Becomes the same as `other`, of which no more than the first so many operations and queries did anything.
    /// Queries beyond those are not added up.
    pub(crate) fn set(&mut self, other: &Self, operations: usize, queries: usize) {
        self.use_time.set(&other.use_time);
        self.by_operation[..operations].copy_from_slice(&other.by_operation[..operations]);
        self.by_operation[operations..].fill(UseTotals::default());
        self.wire[..operations].copy_from_slice(&other.wire[..operations]);
        self.wire[operations..].fill(WireTotals::default());
        self.queries.clear();
        self.queries.extend_from_slice(&other.queries[..queries]);
    }
}

impl Default for ConnectionTotals {
    fn default() -> Self {
        Self {
            use_time: Histogram::default(),
            by_operation: vec![UseTotals::default(); OPERATION_IDS],
            wire: vec![WireTotals::default(); OPERATION_IDS],
            queries: vec![Histogram::default(); IDS],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_word_says_what_was_put_into_it(state in 0..4usize, operation in 0..OPERATION_IDS as u64, micros in 0..(1u64 << 50)) {
            let maintenance = state as u64 == MAINTENANCE;
            let unpacked_state = UnpackedState {
                state: ConnectionState::ALL[state.min(2)],
                maintenance,
                operation: OperationId::from_index(operation),
                since: Nanos::from_nanos(micros << TIME_SHIFT),
            };
            prop_assert_eq!(UnpackedState::unpack(UnpackedState::pack(state as u64, unpacked_state.operation, unpacked_state.since)), unpacked_state);
        }
    }

    #[test]
    fn totals_add_up_over_seats_and_operations() {
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
