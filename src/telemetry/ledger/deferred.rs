//! Spans of checkouts that are opened only once they have something to show.

use std::panic::Location;

use tracing::Span;

use super::Ledger;
use super::in_flight::{CheckoutTrace, InFlight, Ticket};
use crate::labels::Phase;
use crate::telemetry::clock::Nanos;
use crate::telemetry::operations::OperationId;
use crate::telemetry::trace::{CheckoutSpan, SampledSpan};

/// The span of a checkout in flight that has not been opened yet: so far the checkout has only waited for a connection
/// to be reset, which mostly takes microseconds.
pub(super) struct DeferredSpan {
    within: SampledSpan,
    operation: OperationId,
    call_site: &'static Location<'static>,
    started: Nanos,
    phase: Phase,
    since: Nanos,
}

impl DeferredSpan {
    pub(super) fn of(
        checkout: &InFlight,
        trace: &CheckoutTrace,
        call_site: &'static Location<'static>,
    ) -> Option<Self> {
        let InFlight { operation, started, phase, phase_since: since, .. } = *checkout;
        let within = trace.span.is_none().then(|| trace.within.clone())?;
        Some(Self { within, operation, call_site, started, phase, since })
    }

    /// Opens the span.
    pub(super) fn open(&self, ledger: &Ledger) -> CheckoutSpan {
        let Self { within, operation, call_site, started, phase, since } = self;
        let operation = ledger.operations.name(*operation);
        let mut span = CheckoutSpan::begin(&ledger.name, operation, within, call_site, (Phase::Clean, *started));
        if *phase != Phase::Clean {
            span.enter(*phase, *since);
        }
        span
    }

    /// Opens the span and attaches it to the checkout, which has not ended: its own task calls this.
    pub(super) fn attach(&self, ledger: &Ledger, ticket: Ticket) -> Span {
        let opened = self.open(ledger);
        let span = opened.span().clone();
        let _ = ledger.with_trace(ticket, |trace, _, _| trace.span = Some(opened));
        span
    }
}
