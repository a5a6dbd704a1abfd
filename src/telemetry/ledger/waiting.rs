//! How a checkout begins to wait, waits for something else, and ends. Only the lock of the thread's shard is taken, unless
//! the checkout may have been waiting for itself.

use std::panic::Location;

use tracing::Span;

use super::Ledger;
use super::deferred::DeferredSpan;
use super::holders::SelfDeadlock;
use super::in_flight::{CheckoutTrace, Entry, Extra, InFlight, ShardTotals, Ticket, thread_number};
use crate::labels::{Outcome, Phase};
use crate::telemetry::clock::Nanos;
use crate::telemetry::connection::ConnectionStats;
use crate::telemetry::operations::OperationId;

/// A checkout that has changed its phase: what is done without a lock then.
#[derive(Default)]
pub(super) struct Entered {
    pub(super) operation: OperationId,
    /// Its deferred span, if that is to be opened now.
    pub(super) deferred: Option<DeferredSpan>,
    /// Its span, if it is open.
    pub(super) span: Option<Span>,
    pub(super) found: Vec<SelfDeadlock>,
}

/// A checkout that has ended and is to be reported: it was slow, or is part of a sampled trace.
pub(super) struct Ended {
    pub(super) checkout: InFlight,
    pub(super) extra: Extra,
    pub(super) is_slow: bool,
}

impl Ledger {
    /// Adds a checkout that is still in its first poll, so that all the time since its start belongs to its first
    /// phase.
    pub(super) fn begin(&self, checkout: &InFlight, extra: Option<Extra>) -> Ticket {
        let mut shard = self.waiting.local(thread_number());
        let key = shard.take_key();
        if let Some((entry, totals)) = shard.entry(key) {
            entry.begin(checkout);
            if let Some(extra) = extra {
                *entry.extra() = extra;
            }
            totals.begun += 1;
        }
        self.contended.queue.change(None, Some(checkout.phase), checkout.started, &self.hints.queued);
        Ticket::new(key)
    }

    /// Records that a checkout entered another phase.
    pub(super) fn change_phase(&self, ticket: Ticket, phase: Phase, at: Nanos) -> Entered {
        let mut shard = self.waiting.local(thread_number());
        let Some(mut checkout) = shard.entry(ticket.key()).and_then(|(entry, _)| entry.get()) else {
            return Entered::default();
        };
        let mut entered = Entered { operation: checkout.operation, ..Entered::default() };
        let mut state = None;
        if checkout.may_wait_for_itself(at) {
            drop(shard);
            let state = state.insert(self.state());
            shard = self.waiting.local(thread_number());
            if let Some((entry, _)) = shard.entry(ticket.key()) {
                checkout = state.end_own_wait(entry, None, at).unwrap_or(checkout);
            }
            entered.found = state.take_self_deadlocks();
        }
        let Some((entry, totals)) = shard.entry(ticket.key()) else { return entered };
        entry.enter(&checkout, phase, at);
        let left = checkout.phase;
        totals.phase_nanos[left.index()] += at.since(checkout.phase_since);
        totals.changed = true;
        if phase == Phase::Queue && left != Phase::Queue {
            totals.rejoined = Some(totals.rejoined.map_or(checkout.started, |first| first.min(checkout.started)));
        }
        // In these phases the checkout has a connection, or capacity for one.
        if left == Phase::Queue && matches!(phase, Phase::Connect | Phase::Ping | Phase::Clean | Phase::Hook) {
            self.contended.service_interval.served(self.contended.queue.since(), at);
        }
        if checkout.has_extra {
            let call_site = entry.call_site(&checkout, &self.operations);
            let mut extra = entry.extra();
            if let Some(trace) = &mut extra.trace {
                if let Some(span) = &mut trace.span {
                    span.enter(phase, at);
                    entered.span = (phase == Phase::Queue).then(|| span.span().clone());
                } else if phase != Phase::Clean {
                    let checkout = InFlight { phase, phase_since: at, ..checkout };
                    entered.deferred = DeferredSpan::of(&checkout, trace, call_site);
                }
            }
        }
        self.contended.queue.change(Some(left), Some(phase), at, &self.hints.queued);
        entered
    }

    /// Returns whether a checkout in flight waits for a turn.
    pub(crate) fn waits_for_turn(&self, ticket: Ticket) -> bool {
        let mut shard = self.waiting.local(thread_number());
        let checkout = shard.entry(ticket.key()).and_then(|(entry, _)| entry.get());
        checkout.is_some_and(|checkout| checkout.phase.is_wait_for_turn())
    }

    /// Removes a checkout that ended, and returns it if it is to be reported. `got` is the connection that it obtained,
    /// which is used from now on. It is slow if it has waited for `slow` nanoseconds.
    #[inline]
    pub(super) fn finish(
        &self,
        ticket: Ticket,
        (outcome, slow): (Outcome, u64),
        got: Option<&ConnectionStats>,
        at: Nanos,
    ) -> Option<Box<Ended>> {
        let mut shard = self.waiting.local(thread_number());
        let (entry, totals) = shard.entry(ticket.key())?;
        let checkout = entry.get()?;
        if checkout.may_wait_for_itself(at) {
            drop(shard);
            return self.finish_own_wait(ticket, (outcome, slow), got, at);
        }
        let ended = self.end(entry, totals, &checkout, (outcome, slow), got, at);
        shard.free_key(ticket.key());
        ended
    }

    /// As [`Self::finish`], for a checkout that may have waited for itself. Reports it if it has.
    #[cold]
    #[inline(never)]
    fn finish_own_wait(
        &self,
        ticket: Ticket,
        end: (Outcome, u64),
        got: Option<&ConnectionStats>,
        at: Nanos,
    ) -> Option<Box<Ended>> {
        let mut state = self.state();
        let mut shard = self.waiting.local(thread_number());
        let (entry, totals) = shard.entry(ticket.key())?;
        let checkout = state.end_own_wait(entry, got, at)?;
        let found = state.take_self_deadlocks();
        let ended = self.end(entry, totals, &checkout, end, got, at);
        shard.free_key(ticket.key());
        drop(shard);
        drop(state);
        self.report_self_deadlocks(&found);
        ended
    }

    /// Counts a checkout that has ended, and makes its entry vacant.
    #[inline(always)]
    fn end(
        &self,
        entry: &Entry,
        totals: &mut ShardTotals,
        checkout: &InFlight,
        (outcome, slow): (Outcome, u64),
        got: Option<&ConnectionStats>,
        at: Nanos,
    ) -> Option<Box<Ended>> {
        let waited = at.since(checkout.started);
        let is_slow = waited >= slow;
        let is_reported = is_slow || checkout.has_extra;
        let ended = is_reported.then(|| self.reported(entry, checkout, is_slow, waited));
        entry.end();
        totals.phase_nanos[checkout.phase.index()] += at.since(checkout.phase_since);
        if checkout.phase == Phase::Queue && got.is_some() {
            self.contended.service_interval.served(self.contended.queue.since(), at);
        }
        totals.end(checkout, outcome, waited);
        if let Some(stats) = got {
            stats.set_used(checkout.operation, at);
        }
        self.contended.queue.change(Some(checkout.phase), None, at, &self.hints.queued);
        ended
    }

    #[cold]
    fn reported(&self, entry: &Entry, checkout: &InFlight, is_slow: bool, waited: u64) -> Box<Ended> {
        let extra = if checkout.has_extra { std::mem::take(&mut *entry.extra()) } else { Extra::default() };
        if let Some(trace) = &extra.trace {
            self.wait_exemplars.record(waited, trace.within.ids());
        }
        Box::new(Ended { checkout: *checkout, extra, is_slow })
    }

    /// Calls `read` with the trace of a checkout in flight, if it has one, and with the checkout and its call site.
    pub(super) fn with_trace<T>(
        &self,
        ticket: Ticket,
        read: impl FnOnce(&mut CheckoutTrace, &InFlight, &'static Location<'static>) -> T,
    ) -> Option<T> {
        let mut shard = self.waiting.local(thread_number());
        let (entry, _) = shard.entry(ticket.key())?;
        let checkout = entry.get().filter(|checkout| checkout.has_extra)?;
        let call_site = entry.call_site(&checkout, &self.operations);
        let mut extra = entry.extra();
        Some(read(extra.trace.as_deref_mut()?, &checkout, call_site))
    }
}
