//! What spans are told of events, once the ledger's lock is free.

use std::panic::Location;
use std::time::Duration;

use tracing::Span;

use super::Ledger;
use super::books::{InFlight, InTrace, Ticket};
use crate::event::{Dirt, ErrorCode, Event, Outcome, Phase};
use crate::telemetry::clock::Nanos;
use crate::telemetry::operations::OperationId;
use crate::telemetry::trace::{self, CheckoutSpan, Held, Trace};

/// Something that spans are to be told. Boxed where it is handed on: mostly there is nothing, and that is to cost nothing.
pub(super) enum SpanUpdate {
    /// A checkout has something to tell by now, which it had not when it began to wait; perhaps that it queues.
    Opens { ticket: Ticket, quiet: DeferredSpan, held: Option<Vec<Held>> },
    /// A checkout queues for what others hold.
    Queueing { span: Span, operation: OperationId, held: Vec<Held> },
    /// A checkout ended.
    Ended {
        span: Option<CheckoutSpan>,
        quiet: Option<DeferredSpan>,
        outcome: Outcome,
        code: Option<ErrorCode>,
        at: Nanos,
    },
    /// A connection came back dirty.
    Dirty {
        cause: Option<Trace>,
        operation: OperationId,
        dirt: Dirt,
        found_by: Option<Span>,
        opens: Option<(Ticket, DeferredSpan)>,
    },
    /// An attempt failed, and another follows.
    Retrying { code: ErrorCode, attempt: u32, pause: Duration },
}

/// A checkout in flight that has no span, though it is part of a trace: all it did is wait for a connection to settle,
/// which mostly takes microseconds.
pub(super) struct DeferredSpan {
    within: Trace,
    operation: OperationId,
    call_site: &'static Location<'static>,
    started: Nanos,
    phase: Phase,
    since: Nanos,
}

impl DeferredSpan {
    pub(super) fn of(checkout: &InFlight) -> Option<Self> {
        let InFlight { operation, call_site, started, phase, phase_since: since, .. } = *checkout;
        let trace = checkout.trace.as_ref().filter(|trace| trace.span.is_none())?;
        Some(Self { within: trace.within.clone(), operation, call_site, started, phase, since })
    }

    fn open(&self, ledger: &Ledger) -> CheckoutSpan {
        let Self { within, operation, call_site, started, phase, since } = self;
        let mut span = CheckoutSpan::begin(ledger, within, *operation, call_site, (Phase::Clean, *started));
        if *phase != Phase::Clean {
            span.enter(*phase, *since);
        }
        span
    }
}

impl SpanUpdate {
    /// That a checkout ended that is part of a trace.
    #[cold]
    pub(super) fn that_it_ended(checkout: InFlight, outcome: Outcome, code: Option<ErrorCode>, at: Nanos) -> Box<Self> {
        let quiet = DeferredSpan::of(&checkout);
        let span = checkout.trace.and_then(|trace| trace.span);
        Box::new(Self::Ended { span, quiet, outcome, code, at })
    }
}

impl Ledger {
    /// What is known of the trace that this event is part of, if it is and that matters.
    #[inline]
    pub(super) fn trace_of(&self, event: Event<'_>) -> Option<Box<InTrace>> {
        match event {
            Event::CheckoutWaiting { .. } | Event::CheckoutRefused { .. } | Event::ConnectionCreated { .. } => {
                trace::entered().map(|within| self.begin_in(event, within))
            }
            _ => None,
        }
    }

    #[cold]
    fn begin_in(&self, event: Event<'_>, within: Trace) -> Box<InTrace> {
        Box::new(InTrace { span: self.span_for(event, &within), within })
    }

    /// A span for the checkout that this event begins within another, if it is to have one.
    fn span_for(&self, event: Event<'_>, within: &Trace) -> Option<CheckoutSpan> {
        match event {
            Event::CheckoutWaiting { phase: Phase::Clean, .. } => None,
            Event::CheckoutWaiting { operation, call_site, phase, started, .. } => {
                Some(CheckoutSpan::begin(self, within, operation, call_site, (phase, started)))
            }
            Event::CheckoutRefused { operation, call_site, at, .. } => {
                Some(CheckoutSpan::begin(self, within, operation, call_site, (Phase::Queue, at)).of_refused())
            }
            _ => None,
        }
    }

    pub(super) fn tell(&self, telling: SpanUpdate) {
        match telling {
            SpanUpdate::Opens { ticket, quiet, held } => {
                let span = self.open(ticket, &quiet);
                if let Some(held) = held {
                    CheckoutSpan::tell_holders(&span, self.operations.name(quiet.operation), held);
                }
            }
            SpanUpdate::Queueing { span, operation, held } => {
                CheckoutSpan::tell_holders(&span, self.operations.name(operation), held);
            }
            SpanUpdate::Ended { span, quiet, outcome, code, at } => {
                let quiet = quiet.filter(|_| outcome != Outcome::Ok);
                if let Some(span) = span.or_else(|| Some(quiet?.open(self))) {
                    span.end(outcome, code, at);
                }
            }
            SpanUpdate::Dirty { cause, operation, dirt, found_by, opens } => {
                let found_by = found_by.or_else(|| opens.map(|(ticket, quiet)| self.open(ticket, &quiet)));
                trace::dirty(cause.as_ref(), self.operations.name(operation), dirt, found_by.as_ref());
            }
            SpanUpdate::Retrying { code, attempt, pause } => trace::retrying(code, attempt, pause),
        }
    }

    /// Gives a checkout in flight its span. Nobody else can have ended it: it is the one that tells of itself.
    fn open(&self, ticket: Ticket, quiet: &DeferredSpan) -> Span {
        let opened = quiet.open(self);
        let span = opened.span().clone();
        self.books().set_span(ticket, opened);
        span
    }
}
