//! What is kept under the ledger's one lock, and how each event moves it.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::panic::Location;
use std::sync::Arc;

use slab::Slab;

use super::history::History;
use crate::event::{CloseReason, ErrorCode, ErrorPhase, Outcome, Phase};
use crate::telemetry::clock::Nanos;
use crate::telemetry::histogram::Histogram;
use crate::telemetry::operations::{OPERATION_IDS, OperationId};
use crate::telemetry::seat::{Seat, SeatTotals, Standing};

/// The place of a checkout among those in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket(NonZeroUsize);

impl Ticket {
    /// One more than the place, so that a context with room for a ticket is no larger for it.
    fn of(key: usize) -> Self {
        Self(NonZeroUsize::MIN.saturating_add(key))
    }

    fn key(self) -> usize {
        self.0.get() - 1
    }
}

/// A checkout that could not be served at once.
#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) operation: OperationId,
    pub(super) call_site: &'static Location<'static>,
    pub(super) started: Nanos,
    pub(super) phase: Phase,
    pub(super) phase_since: Nanos,
}

/// What the checkouts of one operation came to that were not served at their first poll.
#[derive(Clone, Debug, Default)]
pub(super) struct WaitTotals {
    pub(super) started: u64,
    pub(super) outcomes: [u64; Outcome::COUNT],
    pub(super) wait_nanos: u64,
    /// The most that a snapshot said, see [`rising`].
    pub(super) wait_reported: u64,
}

#[derive(Debug)]
pub(super) struct Books {
    pub(super) in_flight: Slab<InFlight>,
    /// By operation id.
    pub(super) waits: Vec<WaitTotals>,
    pub(super) wait_time: Histogram,
    pub(super) create_time: Histogram,
    pub(super) phase_nanos: [u64; Phase::COUNT],
    /// How many of those in flight wait for capacity.
    pub(super) queued: usize,
    /// Since when the queue is not empty.
    pub(super) saturated_since: Option<Nanos>,
    pub(super) saturated_nanos: u64,
    /// The most that a snapshot said of each phase and of saturation, see [`rising`].
    pub(super) phase_reported: [u64; Phase::COUNT],
    pub(super) saturated_reported: u64,
    /// Every live connection's account.
    pub(super) seats: Vec<Arc<Seat>>,
    pub(super) created: u64,
    /// By reason.
    pub(super) closed: [u64; CloseReason::COUNT],
    /// What closed connections had served.
    pub(super) retired: SeatTotals,
    pub(super) errors: BTreeMap<(ErrorPhase, ErrorCode), u64>,
    pub(super) history: History,
}

/// Keeps a counter that includes what is still under way from ever falling.
///
/// A snapshot counts a wait up to its own reading of the clock; the wait's end may have been read a moment earlier
/// and be recorded a moment later. Prometheus takes any fall, of a nanosecond even, for a restart from zero.
pub(super) fn rising(reported: &mut u64, value: u64) -> u64 {
    *reported = value.max(*reported);
    *reported
}

impl Default for Books {
    fn default() -> Self {
        Self {
            in_flight: Slab::new(),
            waits: vec![WaitTotals::default(); OPERATION_IDS],
            wait_time: Histogram::default(),
            create_time: Histogram::default(),
            phase_nanos: [0; Phase::COUNT],
            queued: 0,
            saturated_since: None,
            saturated_nanos: 0,
            phase_reported: [0; Phase::COUNT],
            saturated_reported: 0,
            seats: Vec::new(),
            created: 0,
            closed: [0; CloseReason::COUNT],
            retired: SeatTotals::default(),
            errors: BTreeMap::new(),
            history: History::default(),
        }
    }
}

impl Books {
    pub(super) fn begin(
        &mut self,
        operation: OperationId,
        call_site: &'static Location<'static>,
        started: Nanos,
        phase: Phase,
    ) -> Ticket {
        self.waits[operation.index()].started += 1;
        // It is still in its first poll: all the time since it started belongs to this phase.
        self.count_queue(None, Some(phase), started);
        Ticket::of(self.in_flight.insert(InFlight { operation, call_site, started, phase, phase_since: started }))
    }

    pub(super) fn enter_phase(&mut self, ticket: Ticket, phase: Phase, at: Nanos) {
        let Some(checkout) = self.in_flight.get_mut(ticket.key()) else { return };
        let left = std::mem::replace(&mut checkout.phase, phase);
        let since = std::mem::replace(&mut checkout.phase_since, at);
        self.phase_nanos[left.index()] += at.since(since);
        self.count_queue(Some(left), Some(phase), at);
    }

    pub(super) fn phase_of(&self, ticket: Ticket) -> Phase {
        self.in_flight.get(ticket.key()).map_or(Phase::Queue, |checkout| checkout.phase)
    }

    pub(super) fn finish(&mut self, ticket: Ticket, outcome: Outcome, at: Nanos) -> Option<OperationId> {
        let checkout = self.in_flight.try_remove(ticket.key())?;
        let waited = at.since(checkout.started);
        let totals = &mut self.waits[checkout.operation.index()];
        totals.outcomes[outcome.index()] += 1;
        totals.wait_nanos += waited;
        self.wait_time.observe(waited);
        self.phase_nanos[checkout.phase.index()] += at.since(checkout.phase_since);
        self.count_queue(Some(checkout.phase), None, at);
        Some(checkout.operation)
    }

    pub(super) fn refuse(&mut self, operation: OperationId, outcome: Outcome) {
        let totals = &mut self.waits[operation.index()];
        totals.started += 1;
        totals.outcomes[outcome.index()] += 1;
        self.wait_time.observe(0);
    }

    pub(super) fn open(&mut self, seat: &Arc<Seat>) {
        self.created += 1;
        self.seats.push(Arc::clone(seat));
    }

    pub(super) fn close(&mut self, seat: &Seat, reason: CloseReason) {
        if let Some(place) = self.seats.iter().position(|live| std::ptr::eq(Arc::as_ptr(live), seat)) {
            self.seats.swap_remove(place);
            self.closed[reason.index()] += 1;
            seat.add_to(&mut self.retired);
        }
    }

    /// How each live connection stands, one reading of each.
    pub(super) fn standings(&self) -> impl Iterator<Item = Standing> {
        self.seats.iter().map(|seat| seat.standing())
    }

    /// How many connections may lie idle just now: `pool_size`, and one for each checkout in the queue, which is
    /// about to take it.
    pub(super) fn idle_places(&self, pool_size: usize) -> usize {
        pool_size.saturating_add(self.queued)
    }

    /// Moves one checkout out of and into phases, and with it the beginning and end of saturation.
    fn count_queue(&mut self, left: Option<Phase>, entered: Option<Phase>, at: Nanos) {
        if left == Some(Phase::Queue) {
            self.queued -= 1;
        }
        if entered == Some(Phase::Queue) {
            self.queued += 1;
        }
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
