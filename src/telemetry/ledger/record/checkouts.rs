//! The events of checkouts.

use std::panic::Location;

use super::super::Recorder;
use super::super::deferred::DeferredSpan;
use super::super::holder_links::record_holders;
use super::super::in_flight::{CheckoutTrace, Extra, InFlight, Ticket};
use super::super::waiting::{Ended, Entered};
use crate::labels::{ErrorCode, Outcome, Phase};
use crate::telemetry::clock::{Nanos, nanos};
use crate::telemetry::connection::ConnectionStats;
use crate::telemetry::operations::{OperationId, SiteId};
use crate::telemetry::requests::RouteKey;
use crate::telemetry::trace;

/// A checkout that has ended and is to be reported: it was slow, or is part of a sampled trace.
#[must_use = "the checkout's span would end without its outcome"]
pub(crate) struct EndedCheckout(Box<Ended>);

impl Recorder {
    /// Records that a checkout could not be served at once, and returns its ticket.
    #[cold]
    #[inline(never)]
    pub(crate) fn begin_wait(
        &self,
        operation: OperationId,
        (site, call_site): (SiteId, &'static Location<'static>),
        (task, request): (u64, Option<RouteKey>),
        started: Nanos,
        phase: Phase,
    ) -> Ticket {
        let ledger = &**self.ledger();
        let trace = trace::current_span().map(|within| {
            // Waits for a reset mostly take microseconds: their span is deferred.
            let has_span = phase != Phase::Clean;
            let span = has_span.then(|| ledger.checkout_span(operation, &within, call_site, (phase, started)));
            Box::new(CheckoutTrace { within, span })
        });
        let span = trace.as_ref().and_then(|trace| trace.span.as_ref()).filter(|_| phase == Phase::Queue);
        let span = span.map(|span| span.span().clone());
        let call_site = (site == SiteId::NONE).then_some(call_site);
        let extra = (trace.is_some() || call_site.is_some()).then_some(Extra { trace, call_site });
        let (phase_since, own_connection, has_extra) = (started, None, extra.is_some());
        let checkout =
            InFlight { operation, site, started, phase, phase_since, task, request, own_connection, has_extra };
        let ticket = ledger.begin(&checkout, extra);
        if let Some(span) = span {
            let held = ledger.state().held_connections(&ledger.operations, started);
            record_holders(&span, ledger.operations.name(operation), held);
        }
        ticket
    }

    /// Records that a checkout in flight now waits for something else.
    #[cold]
    #[inline(never)]
    pub(crate) fn enter_phase(&self, ticket: Ticket, phase: Phase, at: Nanos) {
        let ledger = &**self.ledger();
        let Entered { operation, deferred, span, found } = ledger.change_phase(ticket, phase, at);
        ledger.report_self_deadlocks(&found);
        let span = deferred.map(|deferred| deferred.attach(ledger, ticket)).or(span);
        if let Some(span) = span.filter(|_| phase == Phase::Queue) {
            let held = ledger.state().held_connections(&ledger.operations, at);
            record_holders(&span, ledger.operations.name(operation), held);
        }
    }

    /// Records that a checkout in flight ended without a connection.
    #[cold]
    #[inline(never)]
    pub(crate) fn finish_checkout(&self, ticket: Ticket, outcome: Outcome, code: Option<ErrorCode>, at: Nanos) {
        if let Some(ended) = self.end_checkout(ticket, None, outcome, at) {
            self.report_checkout(ended, outcome, code, at);
        }
    }

    /// Records that a checkout in flight got the connection with these statistics. What is returned is to be reported with
    /// [`Self::report_served`] once the connection has a guard.
    #[cold]
    #[inline(never)]
    pub(crate) fn finish_served(&self, ticket: Ticket, stats: &ConnectionStats, at: Nanos) -> Option<EndedCheckout> {
        self.end_checkout(ticket, Some(stats), Outcome::Ok, at)
    }

    /// Logs a checkout that got its connection, if it was slow, and ends its span. A subscriber may panic.
    #[inline]
    pub(crate) fn report_served(&self, ended: EndedCheckout, at: Nanos) {
        self.report_checkout(ended, Outcome::Ok, None, at);
    }

    fn end_checkout(
        &self,
        ticket: Ticket,
        stats: Option<&ConnectionStats>,
        outcome: Outcome,
        at: Nanos,
    ) -> Option<EndedCheckout> {
        let ledger = &**self.ledger();
        let slow = ledger.limits().slow_checkout_threshold.filter(|_| outcome == Outcome::Ok).map_or(u64::MAX, nanos);
        ledger.finish(ticket, (outcome, slow), stats, at).map(EndedCheckout)
    }

    fn report_checkout(&self, ended: EndedCheckout, outcome: Outcome, code: Option<ErrorCode>, at: Nanos) {
        let ledger = &**self.ledger();
        let Ended { checkout, extra, is_slow } = *ended.0;
        let Extra { trace, call_site } = extra;
        let Some(call_site) = ledger.operations.location(checkout.site).or(call_site) else { return };
        if is_slow {
            let names = (checkout.operation, ledger.operations.name(checkout.operation), call_site);
            let waited = at.duration_since(checkout.started);
            self.log().checkout_slow(names, waited, (checkout.phase, at.duration_since(checkout.phase_since)));
        }
        let Some(trace) = trace else { return };
        let deferred = DeferredSpan::of(&checkout, &trace, call_site).filter(|_| outcome != Outcome::Ok);
        if let Some(span) = trace.span.or_else(|| Some(deferred?.open(ledger))) {
            span.end(outcome, code, at);
        }
    }

    /// Records a checkout that ended at its first poll without a connection.
    #[cold]
    #[inline(never)]
    pub(crate) fn refuse_checkout(
        &self,
        operation: OperationId,
        call_site: &'static Location<'static>,
        outcome: Outcome,
        code: Option<ErrorCode>,
        at: Nanos,
    ) {
        let ledger = &**self.ledger();
        let within = trace::current_span();
        let span = within.map(|within| ledger.checkout_span(operation, &within, call_site, (Phase::Queue, at)));
        ledger.update(|state| state.refuse(operation, outcome));
        if let Some(span) = span {
            span.without_phases().end(outcome, code, at);
        }
    }
}
