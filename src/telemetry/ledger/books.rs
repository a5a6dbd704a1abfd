//! What is kept under the ledger's one lock, and how each event moves it.

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroUsize;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use slab::Slab;
use tracing::Span;

use super::backlog::Pace;
use super::deferred::DeferredSpan;
use super::failures::FailedQueries;
use super::history::History;
use super::retries::{RetryTotals, count};
use super::unpooled::Unpooled;
use crate::labels::{Activity, CloseReason, ConnectionState, Dirt, ErrorCode, ErrorPhase, Outcome, Phase};
use crate::telemetry::clock::{Nanos, nanos};
use crate::telemetry::exemplar::Exemplars;
use crate::telemetry::histogram::Histogram;
use crate::telemetry::operations::{OPERATION_IDS, OperationId, Operations, SiteId};
use crate::telemetry::seat::{ConnectionStats, ConnectionTotals, UnpackedState};
use crate::telemetry::trace::{CheckoutSpan, Held, Trace};

/// The place of a checkout among those in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket(NonZeroUsize);

impl Ticket {
    /// One more than the place, so that a context with room for a ticket is no larger for it.
    fn of(key: usize) -> Self {
        Self(NonZeroUsize::MIN.saturating_add(key))
    }

    pub(super) fn key(self) -> usize {
        self.0.get() - 1
    }
}

/// A checkout that could not be served at once. Aligned, so that each is on a cache line of its own, and on no second one.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct InFlight {
    pub(super) operation: OperationId,
    pub(super) call_site: &'static Location<'static>,
    pub(super) started: Nanos,
    pub(super) phase: Phase,
    pub(super) phase_since: Nanos,
    /// The task that waits; zero if it is none.
    pub(super) task: u64,
    /// What that task itself holds while it waits for capacity: for whom, and asked for where.
    pub(super) own: Option<(OperationId, SiteId)>,
    /// What is known of the trace that it is part of, if it is; kept apart, since few are.
    pub(super) trace: Option<Box<InTrace>>,
}

const _: () = assert!(size_of::<InFlight>() == 64);

/// What is known of a checkout in flight that is part of a trace.
#[derive(Debug)]
pub(super) struct InTrace {
    /// The span in which it began to wait.
    pub(super) within: Trace,
    /// Its own.
    pub(super) span: Option<CheckoutSpan>,
}

/// What the checkouts of one operation came to that were not served at their first poll.
#[derive(Clone, Debug, Default)]
pub(super) struct WaitTotals {
    pub(super) started: u64,
    pub(super) outcomes: [u64; Outcome::COUNT],
    pub(super) wait_nanos: u64,
    /// The most that a snapshot said, see [`rising`].
    pub(super) wait_reported: u64,
    pub(super) activity_reported: [u64; Activity::COUNT],
}

/// In the order in which it is declared: each checkout that queues moves what stands first, and the less of it lies on
/// other cache lines, the less has to be fetched from the thread that moved it last.
#[derive(Debug)]
#[repr(C)]
pub(super) struct LedgerState {
    /// How many of those in flight wait for capacity, and how many for a turn.
    pub(super) queued: usize,
    turns: usize,
    /// Since when the queue is not empty.
    pub(super) saturated_since: Option<Nanos>,
    pub(super) saturated_nanos: u64,
    pub(super) pace: Pace,
    pub(super) in_flight: Slab<InFlight>,
    /// Those in flight in the order they came, and some that ended since.
    arrivals: VecDeque<(Ticket, Nanos)>,
    /// By operation id.
    pub(super) waits: Vec<WaitTotals>,
    pub(super) phase_nanos: [u64; Phase::COUNT],
    pub(super) wait_time: Histogram,
    pub(super) wait_exemplars: Exemplars,
    pub(super) create_time: Histogram,
    pub(super) create_exemplars: Exemplars,
    /// The most that a snapshot said of each phase and of saturation, see [`rising`].
    pub(super) phase_reported: [u64; Phase::COUNT],
    pub(super) saturated_reported: u64,
    /// Every live connection's account.
    pub(super) seats: Vec<Arc<ConnectionStats>>,
    pub(super) created: u64,
    /// By reason.
    pub(super) closed: [u64; CloseReason::COUNT],
    /// What closed connections had served.
    pub(super) retired: ConnectionTotals,
    pub(super) errors: BTreeMap<(ErrorPhase, ErrorCode), u64>,
    pub(super) history: History,
    /// In none of the accounts above but `errors`.
    pub(super) unpooled: Unpooled,
    /// Checkouts that began to wait while their own task held a connection.
    pub(super) self_deadlocks: u64,
    pub(super) dirty: BTreeMap<(OperationId, Dirt), u64>,
    /// Bounded, as the retries are.
    pub(super) query_errors: BTreeMap<(OperationId, ErrorCode), u64>,
    /// Bounded as well.
    pub(super) failed_queries: FailedQueries,
    /// Wires that are no longer read.
    pub(super) wires_lost: u64,
    pub(super) retries: RetryTotals,
}

/// How many kinds of error are told apart, over all operations. The server has some 250, but anybody may raise others.
pub(super) const MAX_ERRORS: usize = 1000;

/// A checkout that waits for less than this was not held up by its own task, or it does no harm.
const SELF_WAIT: Duration = Duration::from_millis(10);

/// How many that ended may stand among the arrivals, beside as many as are in flight, before they are cleared away.
const ENDED_ARRIVALS: usize = 64;

/// Whether an arrival is in flight still; its place may be another's by now.
fn is_in_flight(in_flight: &Slab<InFlight>, (ticket, started): &(Ticket, Nanos)) -> bool {
    in_flight.get(ticket.key()).is_some_and(|checkout| checkout.started == *started)
}

/// Keeps a counter that includes what is still under way from ever falling.
///
/// A snapshot counts a wait up to its own reading of the clock; the wait's end may have been read a moment earlier
/// and be recorded a moment later. Prometheus takes any fall, of a nanosecond even, for a restart from zero.
pub(super) fn rising(reported: &mut u64, value: u64) -> u64 {
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
            pace: Pace::default(),
            phase_reported: [0; Phase::COUNT],
            saturated_reported: 0,
            seats: Vec::new(),
            created: 0,
            closed: [0; CloseReason::COUNT],
            retired: ConnectionTotals::default(),
            errors: BTreeMap::new(),
            history: History::default(),
            unpooled: Unpooled::default(),
            self_deadlocks: 0,
            dirty: BTreeMap::new(),
            query_errors: BTreeMap::new(),
            failed_queries: FailedQueries::default(),
            wires_lost: 0,
            retries: RetryTotals::default(),
        }
    }
}

impl LedgerState {
    /// A checkout that is still in its first poll: all the time since it started belongs to its first phase.
    pub(super) fn begin(&mut self, checkout: InFlight) -> Ticket {
        let started = checkout.started;
        self.waits[checkout.operation.index()].started += 1;
        self.count_queue(None, Some(checkout.phase), started);
        let ticket = Ticket::of(self.in_flight.insert(checkout));
        self.arrivals.push_back((ticket, started));
        if self.arrivals.len() > 2 * self.in_flight.len() + ENDED_ARRIVALS {
            let in_flight = &self.in_flight;
            self.arrivals.retain(|arrival| is_in_flight(in_flight, arrival));
        }
        ticket
    }

    /// Since when the first in the queue has been waiting. Does not look at all who wait: those who time out together
    /// all ask.
    pub(super) fn first_in_queue(&mut self) -> Option<Nanos> {
        while self.arrivals.front().is_some_and(|arrival| !is_in_flight(&self.in_flight, arrival)) {
            self.arrivals.pop_front();
        }
        let queued = |(ticket, _): &&(Ticket, Nanos)| self.phase_of(*ticket) == Phase::Queue;
        let first = self.arrivals.iter().filter(|arrival| is_in_flight(&self.in_flight, arrival)).find(queued);
        first.map(|(_, started)| *started)
    }

    /// Notices a checkout that has been waiting for capacity while its own task holds a connection, which it perhaps
    /// will not return before it gets another. Not noticed at once: to look at all connections for each that queues
    /// would cost more than the queue. `but` is not among what it held.
    pub(super) fn look_for_own(&mut self, ticket: Ticket, now: Nanos, but: Option<&ConnectionStats>) {
        let Some(checkout) = self.in_flight.get_mut(ticket.key()) else { return };
        let long = checkout.phase == Phase::Queue && now.since(checkout.phase_since) >= nanos(SELF_WAIT);
        if !long || checkout.task == 0 || checkout.own.is_some() {
            return;
        }
        let (task, began) = (checkout.task, checkout.phase_since);
        let others = self.seats.iter().filter(|stats| !but.is_some_and(|but| std::ptr::eq(Arc::as_ptr(stats), but)));
        let own = others.map(|stats| (stats, stats.unpacked_state())).find_map(|(stats, unpacked_state)| {
            let holds =
                unpacked_state.state == ConnectionState::Used && !unpacked_state.maintenance && stats.task() == task;
            // A task may do several things by turns. What it held before it began to wait, and has not touched since,
            // is what it does not get on with.
            let wire = stats.wire();
            let rests = unpacked_state.since <= began
                && wire.active() <= began.after(SELF_WAIT)
                && wire.status().activity() != Some(Activity::Executing);
            (holds && rests).then(|| (unpacked_state.operation, stats.site()))
        });
        if own.is_some() {
            checkout.own = own;
            self.self_deadlocks += 1;
        }
    }

    /// Does that for all that wait.
    pub(super) fn look_for_owns(&mut self, now: Nanos) {
        // A place without a checkout is passed over; a list of those with one would have to be made each time.
        for key in 0..self.in_flight.capacity() {
            self.look_for_own(Ticket::of(key), now, None);
        }
    }

    /// Counts an error that the server reported.
    pub(super) fn count_query_error(&mut self, operation: OperationId, code: ErrorCode) {
        count(&mut self.query_errors, |code| (operation, code), code);
    }

    /// Answers what its span needs to know if it is to have one from now on.
    pub(super) fn enter_phase(&mut self, ticket: Ticket, phase: Phase, at: Nanos) -> Option<DeferredSpan> {
        self.look_for_own(ticket, at, None);
        let checkout = self.in_flight.get_mut(ticket.key())?;
        let left = std::mem::replace(&mut checkout.phase, phase);
        let since = std::mem::replace(&mut checkout.phase_since, at);
        if let Some(span) = checkout.trace.as_mut().and_then(|trace| trace.span.as_mut()) {
            span.enter(phase, at);
        }
        let quiet = DeferredSpan::of(checkout).filter(|_| phase != Phase::Clean);
        self.phase_nanos[left.index()] += at.since(since);
        // What it goes on with is a connection, or what is to become one.
        self.note_pace(left, matches!(phase, Phase::Connect | Phase::Ping | Phase::Clean), at);
        self.count_queue(Some(left), Some(phase), at);
        quiet
    }

    pub(super) fn phase_of(&self, ticket: Ticket) -> Phase {
        self.in_flight.get(ticket.key()).map_or(Phase::Queue, |checkout| checkout.phase)
    }

    /// `got` is what the checkout came to, if it came to a connection.
    pub(super) fn finish(
        &mut self,
        ticket: Ticket,
        outcome: Outcome,
        got: Option<&ConnectionStats>,
        at: Nanos,
    ) -> Option<InFlight> {
        self.look_for_own(ticket, at, got);
        let checkout = self.in_flight.try_remove(ticket.key())?;
        let waited = at.since(checkout.started);
        let totals = &mut self.waits[checkout.operation.index()];
        totals.outcomes[outcome.index()] += 1;
        totals.wait_nanos += waited;
        self.wait_time.observe(waited);
        if let Some(trace) = &checkout.trace {
            self.wait_exemplars.keep(waited, trace.within.ids());
        }
        self.phase_nanos[checkout.phase.index()] += at.since(checkout.phase_since);
        self.note_pace(checkout.phase, got.is_some(), at);
        self.count_queue(Some(checkout.phase), None, at);
        Some(checkout)
    }

    /// A checkout in flight that is part of a trace and has no span yet.
    pub(super) fn quiet(&self, ticket: Ticket) -> Option<DeferredSpan> {
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

    /// The span of a checkout in flight, if it has one.
    pub(super) fn span_of(&self, ticket: Ticket) -> Option<Span> {
        Some(self.in_flight.get(ticket.key())?.trace.as_ref()?.span.as_ref()?.span().clone())
    }

    /// Who holds what, for whoever begins to queue for it.
    pub(super) fn held(&self, operations: &Operations, now: Nanos) -> Vec<Held> {
        let seats = self.seats.iter().map(|stats| (stats, stats.unpacked_state()));
        let used = seats.filter(|(_, unpacked_state)| unpacked_state.state == ConnectionState::Used);
        used.map(|(stats, unpacked_state)| Held {
            operation: operations.shared_name(unpacked_state.operation),
            age: now.duration_since(unpacked_state.since),
            // The next holder's trace is not to be taken for this one's.
            trace: stats.trace().filter(|_| stats.unpacked_state() == unpacked_state),
            stats: Arc::clone(stats),
        })
        .collect()
    }

    pub(super) fn refuse(&mut self, operation: OperationId, outcome: Outcome) {
        let totals = &mut self.waits[operation.index()];
        totals.started += 1;
        totals.outcomes[outcome.index()] += 1;
        self.wait_time.observe(0);
    }

    pub(super) fn open(&mut self, stats: &Arc<ConnectionStats>) {
        self.created += 1;
        self.seats.push(Arc::clone(stats));
    }

    pub(super) fn close(&mut self, stats: &ConnectionStats, reason: CloseReason, now: Nanos) {
        if let Some(place) = self.seats.iter().position(|live| std::ptr::eq(Arc::as_ptr(live), stats)) {
            self.seats.swap_remove(place);
            self.closed[reason.index()] += 1;
            // What is under way ends here: the account has no later reader.
            stats.add_to(&mut self.retired, now);
        }
    }

    /// How each live connection stands, one reading of each.
    pub(super) fn standings(&self) -> impl Iterator<Item = UnpackedState> {
        self.seats.iter().map(|stats| stats.unpacked_state())
    }

    /// How many connections may lie idle just now: `pool_size`, and one for each checkout in the queue or waiting for its
    /// turn, which is about to take it.
    pub(super) fn idle_places(&self, pool_size: usize) -> usize {
        pool_size.saturating_add(self.queued).saturating_add(self.turns)
    }

    /// Moves one checkout out of and into phases, and with it the beginning and end of saturation.
    fn count_queue(&mut self, left: Option<Phase>, entered: Option<Phase>, at: Nanos) {
        if left == Some(Phase::Queue) {
            self.queued -= 1;
        }
        if entered == Some(Phase::Queue) {
            self.queued += 1;
        }
        self.turns -= usize::from(left.is_some_and(Phase::is_turn));
        self.turns += usize::from(entered.is_some_and(Phase::is_turn));
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
