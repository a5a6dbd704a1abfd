//! The state under the ledger's lock, and how events change it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use slab::Slab;
use tracing::Span;

use super::backlog::ServiceInterval;
use super::deferred::DeferredSpan;
use super::failed_queries::FailedQueries;
use super::holder_links::HeldConnection;
use super::holders::SelfDeadlock;
use super::in_flight::{InFlight, Ticket};
use super::retries::{RetryTotals, count};
use super::unpooled::Unpooled;
use crate::labels::{Activity, CloseReason, Dirt, ErrorCode, ErrorPhase, Outcome, Phase};
use crate::telemetry::clock::Nanos;
use crate::telemetry::connection::{ConnectionStats, ConnectionTotals, UnpackedState};
use crate::telemetry::exemplar::Exemplars;
use crate::telemetry::histogram::Histogram;
use crate::telemetry::operations::{OPERATION_IDS, OperationId, Operations};
use crate::telemetry::trace::CheckoutSpan;

/// Counters of one operation's checkouts that were not served at their first poll.
#[derive(Clone, Debug, Default)]
pub(super) struct WaitTotals {
    pub(super) started: u64,
    pub(super) outcomes: [u64; Outcome::COUNT],
    pub(super) wait_nanos: u64,
    /// The largest values that snapshots have reported; see [`monotonic`].
    pub(super) wait_reported: u64,
    pub(super) activity_reported: [u64; Activity::COUNT],
}

/// The state under the ledger's lock.
///
/// Laid out in declaration order: each checkout that queues changes the first fields, and the fewer cache lines they
/// occupy, the less has to be fetched from the thread that changed them last.
#[derive(Debug)]
#[repr(C)]
pub(super) struct LedgerState {
    /// The number of checkouts that wait for capacity.
    pub(super) queued: usize,
    /// The number of checkouts that wait for a turn.
    turns: usize,
    /// Since when the queue has not been empty.
    pub(super) saturated_since: Option<Nanos>,
    pub(super) saturated_nanos: u64,
    pub(super) service_interval: ServiceInterval,
    pub(super) in_flight: Slab<InFlight>,
    /// The checkouts in flight in order of arrival, and some that have ended since.
    arrivals: VecDeque<(Ticket, Nanos)>,
    /// By operation id.
    pub(super) waits: Vec<WaitTotals>,
    pub(super) phase_nanos: [u64; Phase::COUNT],
    pub(super) wait_time: Histogram,
    pub(super) wait_exemplars: Exemplars,
    pub(super) create_time: Histogram,
    pub(super) create_exemplars: Exemplars,
    /// The largest values that snapshots have reported; see [`monotonic`].
    pub(super) phase_reported: [u64; Phase::COUNT],
    pub(super) saturated_reported: u64,
    /// The live connections.
    pub(super) connections: Vec<Arc<ConnectionStats>>,
    pub(super) created: u64,
    /// By reason.
    pub(super) closed: [u64; CloseReason::COUNT],
    /// Closed connections that the server may not have let go of.
    pub(super) close_timeouts: u64,
    /// What closed connections have counted.
    pub(super) retired: ConnectionTotals,
    pub(super) errors: BTreeMap<(ErrorPhase, ErrorCode), u64>,
    /// Checkouts that ended without a connection.
    pub(super) unserved: u64,
    /// Counted separately; of the fields above only `errors` includes them.
    pub(super) unpooled: Unpooled,
    /// Checkouts that waited while their own task held a connection, by the operation that waited.
    pub(super) self_deadlocks: BTreeMap<OperationId, u64>,
    /// Those that were not logged yet, bounded in number.
    pub(super) unreported_self_deadlocks: Vec<SelfDeadlock>,
    pub(super) dirty: BTreeMap<(OperationId, Dirt), u64>,
    /// At most [`MAX_ERRORS`] entries, as in `retries` and `failed_queries`.
    pub(super) query_errors: BTreeMap<(OperationId, ErrorCode), u64>,
    pub(super) failed_queries: FailedQueries,
    /// Connections whose wire is no longer observed.
    pub(super) wires_lost: u64,
    pub(super) retries: RetryTotals,
}

/// The maximum number of error counters over all operations; further codes are counted as `other`. PostgreSQL defines
/// about 250 codes, and functions can raise others.
pub(super) const MAX_ERRORS: usize = 1000;

/// `arrivals` is compacted when it has this many entries beyond twice the number of checkouts in flight.
const MAX_STALE_ARRIVALS: usize = 64;

/// The capacity for checkouts in flight that is kept while there are none.
const MAX_SPARE_IN_FLIGHT: usize = 1024;

/// Returns whether an arrival is still in flight. Its ticket may have been reused.
fn is_in_flight(in_flight: &Slab<InFlight>, (ticket, started): &(Ticket, Nanos)) -> bool {
    in_flight.get(ticket.key()).is_some_and(|checkout| checkout.started == *started)
}

/// Prevents a counter that includes activity in progress from ever decreasing.
///
/// A snapshot counts a wait up to its own reading of the clock, while the end of the wait may be read earlier and
/// recorded later. Prometheus interprets any decrease, even by a nanosecond, as a restart from zero.
pub(super) fn monotonic(reported: &mut u64, value: u64) -> u64 {
    *reported = value.max(*reported);
    *reported
}

impl Default for LedgerState {
    fn default() -> Self {
        Self {
            in_flight: Slab::new(),
            arrivals: VecDeque::new(),
            waits: vec![WaitTotals::default(); OPERATION_IDS],
            wait_time: Histogram::default(),
            wait_exemplars: Exemplars::default(),
            create_time: Histogram::default(),
            create_exemplars: Exemplars::default(),
            phase_nanos: [0; Phase::COUNT],
            queued: 0,
            turns: 0,
            saturated_since: None,
            saturated_nanos: 0,
            service_interval: ServiceInterval::default(),
            phase_reported: [0; Phase::COUNT],
            saturated_reported: 0,
            connections: Vec::new(),
            created: 0,
            closed: [0; CloseReason::COUNT],
            close_timeouts: 0,
            retired: ConnectionTotals::default(),
            errors: BTreeMap::new(),
            unserved: 0,
            unpooled: Unpooled::default(),
            self_deadlocks: BTreeMap::new(),
            unreported_self_deadlocks: Vec::new(),
            dirty: BTreeMap::new(),
            query_errors: BTreeMap::new(),
            failed_queries: FailedQueries::default(),
            wires_lost: 0,
            retries: RetryTotals::default(),
        }
    }
}

impl LedgerState {
    /// Adds a checkout that is still in its first poll, so that all the time since its start belongs to its first
    /// phase.
    pub(super) fn begin(&mut self, checkout: InFlight) -> Ticket {
        let started = checkout.started;
        self.waits[checkout.operation.index()].started += 1;
        self.count_queue(None, Some(checkout.phase), started);
        let ticket = Ticket::new(self.in_flight.insert(checkout));
        self.arrivals.push_back((ticket, started));
        if self.arrivals.len() > 2 * self.in_flight.len() + MAX_STALE_ARRIVALS {
            let in_flight = &self.in_flight;
            self.arrivals.retain(|arrival| is_in_flight(in_flight, arrival));
        }
        ticket
    }

    /// Returns since when the first checkout in the queue has been waiting. Does not scan all waiters, because many may
    /// time out together and each calls this.
    pub(super) fn first_in_queue(&mut self) -> Option<Nanos> {
        while self.arrivals.front().is_some_and(|arrival| !is_in_flight(&self.in_flight, arrival)) {
            self.arrivals.pop_front();
        }
        let queued =
            |(ticket, _): &&(Ticket, Nanos)| self.phase_of(*ticket).is_none_or(|(phase, _)| phase == Phase::Queue);
        let first = self.arrivals.iter().filter(|arrival| is_in_flight(&self.in_flight, arrival)).find(queued);
        first.map(|(_, started)| *started)
    }

    /// Counts an error reported by the server.
    pub(super) fn count_query_error(&mut self, operation: OperationId, code: ErrorCode) {
        count(&mut self.query_errors, |code| (operation, code), code);
    }

    /// Records that a checkout entered another phase. Returns its deferred span if that is to be opened now.
    pub(super) fn enter_phase(&mut self, ticket: Ticket, phase: Phase, at: Nanos) -> Option<DeferredSpan> {
        self.detect_self_deadlock(ticket, at, None);
        if let Some(checkout) = self.in_flight.get(ticket.key()) {
            self.count_own_wait(checkout, None, at);
        }
        let checkout = self.in_flight.get_mut(ticket.key())?;
        let left = std::mem::replace(&mut checkout.phase, phase);
        let since = std::mem::replace(&mut checkout.phase_since, at);
        if let Some(span) = checkout.trace.as_mut().and_then(|trace| trace.span.as_mut()) {
            span.enter(phase, at);
        }
        let deferred = DeferredSpan::of(checkout).filter(|_| phase != Phase::Clean);
        self.phase_nanos[left.index()] += at.since(since);
        // In these phases the checkout has a connection, or capacity for one.
        self.record_departure(left, matches!(phase, Phase::Connect | Phase::Ping | Phase::Clean | Phase::Hook), at);
        self.count_queue(Some(left), Some(phase), at);
        deferred
    }

    /// Returns what a checkout in flight waits for, and since when.
    pub(super) fn phase_of(&self, ticket: Ticket) -> Option<(Phase, Nanos)> {
        self.in_flight.get(ticket.key()).map(|checkout| (checkout.phase, checkout.phase_since))
    }

    /// Removes and returns a checkout that ended. `got` is the connection it obtained.
    pub(super) fn finish(
        &mut self,
        ticket: Ticket,
        outcome: Outcome,
        got: Option<&ConnectionStats>,
        at: Nanos,
    ) -> Option<InFlight> {
        self.detect_self_deadlock(ticket, at, got);
        let checkout = self.in_flight.try_remove(ticket.key())?;
        if self.in_flight.is_empty() && self.in_flight.capacity() > MAX_SPARE_IN_FLIGHT {
            // Readings scan the vacant entries too.
            self.in_flight = Slab::new();
        }
        self.count_own_wait(&checkout, got, at);
        let waited = at.since(checkout.started);
        let totals = &mut self.waits[checkout.operation.index()];
        totals.outcomes[outcome.index()] += 1;
        self.unserved += u64::from(outcome != Outcome::Ok);
        totals.wait_nanos += waited;
        self.wait_time.observe(waited);
        if let Some(trace) = &checkout.trace {
            self.wait_exemplars.record(waited, trace.within.ids());
        }
        self.phase_nanos[checkout.phase.index()] += at.since(checkout.phase_since);
        self.record_departure(checkout.phase, got.is_some(), at);
        self.count_queue(Some(checkout.phase), None, at);
        Some(checkout)
    }

    /// Returns the deferred span of a checkout in flight, if it has one.
    pub(super) fn deferred_span(&self, ticket: Ticket) -> Option<DeferredSpan> {
        DeferredSpan::of(self.in_flight.get(ticket.key())?)
    }

    pub(super) fn set_span(&mut self, ticket: Ticket, span: CheckoutSpan) {
        if let Some(trace) = self.in_flight.get_mut(ticket.key()).and_then(|checkout| checkout.trace.as_mut()) {
            trace.span = Some(span);
        }
    }

    pub(super) fn operation_of(&self, ticket: Ticket) -> OperationId {
        self.in_flight.get(ticket.key()).map_or(OperationId::OTHER, |checkout| checkout.operation)
    }

    /// Returns the span of a checkout in flight, if it is open.
    pub(super) fn span_of(&self, ticket: Ticket) -> Option<Span> {
        Some(self.in_flight.get(ticket.key())?.trace.as_ref()?.span.as_ref()?.span().clone())
    }

    /// Returns the connections in use, for a checkout that begins to queue.
    pub(super) fn held_connections(&self, operations: &Operations, now: Nanos) -> Vec<HeldConnection> {
        let connections = self.connections.iter().map(|stats| (stats, stats.state()));
        let used = connections.filter(|(_, state)| state.is_used());
        used.map(|(stats, state)| HeldConnection {
            operation: operations.shared_name(state.operation),
            age: now.duration_since(state.since),
            // If the state has changed, the span may already be the next holder's.
            span: stats.span().filter(|_| stats.state() == state),
            stats: Arc::clone(stats),
        })
        .collect()
    }

    pub(super) fn refuse(&mut self, operation: OperationId, outcome: Outcome) {
        let totals = &mut self.waits[operation.index()];
        totals.started += 1;
        totals.outcomes[outcome.index()] += 1;
        self.unserved += 1;
        self.wait_time.observe(0);
    }

    /// Adds a connection, unless there are `max` already. Returns whether it did.
    pub(super) fn open(&mut self, stats: &Arc<ConnectionStats>, max: usize) -> bool {
        let has_room = self.connections.len() < max;
        if has_room {
            self.created += 1;
            self.connections.push(Arc::clone(stats));
        }
        has_room
    }

    pub(super) fn close(&mut self, stats: &ConnectionStats, reason: CloseReason, now: Nanos) {
        if let Some(index) = self.connections.iter().position(|live| std::ptr::eq(Arc::as_ptr(live), stats)) {
            self.connections.swap_remove(index);
            self.closed[reason.index()] += 1;
            // The activity in progress is counted up to now, because the connection is not read again.
            stats.add_to(&mut self.retired, now);
        }
    }

    /// Returns the state of each live connection.
    pub(super) fn states(&self) -> impl Iterator<Item = UnpackedState> {
        self.connections.iter().map(|stats| stats.state())
    }

    /// Returns how many connections may be idle now: `pool_size`, and one for each checkout in the queue or waiting for
    /// its turn, which is about to take it.
    pub(super) fn max_idle(&self, pool_size: usize) -> usize {
        pool_size.saturating_add(self.queued).saturating_add(self.turns)
    }

    /// Updates the queue length and the saturated time for a checkout that changes its phase.
    fn count_queue(&mut self, left: Option<Phase>, entered: Option<Phase>, at: Nanos) {
        if left == Some(Phase::Queue) {
            self.queued -= 1;
        }
        if entered == Some(Phase::Queue) {
            self.queued += 1;
        }
        self.turns -= usize::from(left.is_some_and(Phase::is_wait_for_turn));
        self.turns += usize::from(entered.is_some_and(Phase::is_wait_for_turn));
        match (self.queued, self.saturated_since) {
            (0, Some(since)) => {
                self.saturated_nanos += at.since(since);
                self.saturated_since = None;
            }
            (1.., None) => self.saturated_since = Some(at),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capacity_of_a_peak_is_not_kept() {
        let mut state = LedgerState::default();
        for _ in 0..2 {
            let tickets: Vec<_> = (0..5000).map(|_| state.begin(InFlight::for_tests(1, Nanos::ZERO))).collect();
            assert!(state.in_flight.capacity() >= 5000);
            for ticket in tickets {
                assert!(state.finish(ticket, Outcome::Timeout, None, Nanos::ZERO).is_some());
            }
            assert!(state.in_flight.capacity() <= MAX_SPARE_IN_FLIGHT);
            assert_eq!((state.queued, state.first_in_queue()), (0, None));
        }
    }
}
