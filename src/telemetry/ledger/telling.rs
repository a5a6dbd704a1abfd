//! What spans are told of events, once the ledger's lock is free.

use std::panic::Location;
use std::time::Duration;

use tracing::Span;

use super::Ledger;
use super::books::{InFlight, Ticket};
use crate::event::{Dirt, ErrorCode, Event, Outcome, Phase};
use crate::telemetry::clock::Nanos;
use crate::telemetry::operations::OperationId;
use crate::telemetry::trace::{self, CheckoutSpan, Held, Trace};

/// Something that spans are to be told.
pub(super) enum Telling {
    Nothing,
    /// A checkout has something to tell by now, which it had not when it began to wait.
    Opens {
        ticket: Ticket,
        quiet: Quiet,
    },
    /// A checkout queues for what others hold.
    Queueing {
        span: Span,
        operation: OperationId,
        held: Vec<Held>,
    },
    /// A checkout ended.
    Ended {
        span: Option<CheckoutSpan>,
        quiet: Option<Quiet>,
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
        opens: Option<(Ticket, Quiet)>,
    },
    /// An attempt failed, and another follows.
    Retrying {
        code: ErrorCode,
        attempt: u32,
        pause: Duration,
    },
}

/// A checkout in flight that has no span, though it is part of a trace: all it did is wait for a connection to settle,
/// which mostly takes microseconds.
#[derive(Clone, Copy)]
pub(super) struct Quiet {
    operation: OperationId,
    call_site: &'static Location<'static>,
    started: Nanos,
    phase: Phase,
    since: Nanos,
}

impl Quiet {
    pub(super) fn of(checkout: &InFlight) -> Option<Self> {
        let InFlight { operation, call_site, started, phase, phase_since: since, .. } = *checkout;
        let is_quiet = checkout.trace.as_ref().is_some_and(|trace| trace.span.is_none());
        is_quiet.then_some(Self { operation, call_site, started, phase, since })
    }

    fn open(self, ledger: &Ledger) -> Option<CheckoutSpan> {
        let Self { operation, call_site, started, phase, since } = self;
        let mut span = CheckoutSpan::begin(ledger, operation, call_site, Phase::Clean, started)?;
        if phase != Phase::Clean {
            span.enter(phase, since);
        }
        Some(span)
    }
}

impl Ledger {
    /// A span for the checkout that this event begins, if it is to have one.
    pub(super) fn span_for(&self, event: Event<'_>) -> Option<CheckoutSpan> {
        match event {
            Event::CheckoutWaiting { phase: Phase::Clean, .. } => None,
            Event::CheckoutWaiting { operation, call_site, phase, started, .. } => {
                CheckoutSpan::begin(self, operation, call_site, phase, started)
            }
            Event::CheckoutRefused { operation, call_site, at, .. } => {
                CheckoutSpan::begin(self, operation, call_site, Phase::Queue, at)
            }
            _ => None,
        }
    }

    pub(super) fn tell(&self, telling: Telling) {
        match telling {
            Telling::Nothing => {}
            Telling::Opens { ticket, quiet } => {
                self.open(ticket, quiet);
            }
            Telling::Queueing { span, operation, held } => {
                CheckoutSpan::tell_holders(&span, self.operations.name(operation), held);
            }
            Telling::Ended { span, quiet, outcome, code, at } => {
                let quiet = quiet.filter(|_| outcome != Outcome::Ok);
                if let Some(span) = span.or_else(|| quiet?.open(self)) {
                    span.end(outcome, code, at);
                }
            }
            Telling::Dirty { cause, operation, dirt, found_by, opens } => {
                let found_by = found_by.or_else(|| opens.and_then(|(ticket, quiet)| self.open(ticket, quiet)));
                trace::dirty(cause.as_ref(), self.operations.name(operation), dirt, found_by.as_ref());
            }
            Telling::Retrying { code, attempt, pause } => trace::retrying(code, attempt, pause),
        }
    }

    /// Gives a checkout in flight its span. Nobody else can have ended it: it is the one that tells of itself.
    fn open(&self, ticket: Ticket, quiet: Quiet) -> Option<Span> {
        let opened = quiet.open(self)?;
        let span = opened.span().clone();
        self.books().set_span(ticket, opened);
        Some(span)
    }
}
