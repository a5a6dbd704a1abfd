//! The span of a checkout that could not be served at once.

use std::panic::Location;
use std::time::SystemTime;

use tracing::field::Empty;
use tracing::{Span, info_span};

use super::otel::add_event_at;
use super::spans::{CallSite, end};
use super::{SampledSpan, TARGET};
use crate::labels::{ErrorCode, Outcome, Phase};
use crate::telemetry::clock::{Nanos, seconds};

/// The maximum number of phases that are recorded as events. A checkout may alternate between queueing and connecting
/// many times.
const MAX_PHASE_EVENTS: usize = 16;

/// The span of a checkout in flight.
#[derive(Debug)]
pub(crate) struct CheckoutSpan {
    span: Span,
    /// The phases entered, and when.
    phases: Vec<(Phase, Nanos)>,
    phase: Phase,
    since: Nanos,
    nanos: [u64; Phase::COUNT],
}

impl CheckoutSpan {
    /// Creates the span of a checkout that began to wait in the span `within`, which need not be the current one.
    pub(crate) fn begin(
        pool: &str,
        operation: &str,
        within: &SampledSpan,
        call_site: &'static Location<'static>,
        (phase, at): (Phase, Nanos),
    ) -> Self {
        let span = info_span!(
            target: TARGET,
            parent: None,
            "checkout",
            otel.kind = "internal",
            db.client.connection.pool.name = pool,
            poolscope.operation = operation,
            poolscope.call_site = %CallSite(call_site),
            poolscope.holders = Empty,
            poolscope.queue_seconds = Empty,
            poolscope.connect_seconds = Empty,
            poolscope.ping_seconds = Empty,
            poolscope.clean_seconds = Empty,
            poolscope.hook_seconds = Empty,
            poolscope.suspended_seconds = Empty,
            poolscope.share_seconds = Empty,
            poolscope.outcome = Empty,
            "error.type" = Empty,
            db.response.status_code = Empty,
            otel.status_code = Empty,
        );
        within.set_as_parent_of(&span);
        Self { span, phases: vec![(phase, at)], phase, since: at, nanos: [0; Phase::COUNT] }
    }

    /// Removes the phases, for a checkout that was refused at its first poll.
    pub(crate) fn without_phases(mut self) -> Self {
        self.phases.clear();
        self
    }

    /// Records that the checkout entered another phase. Does not touch the span, because the ledger's lock is held.
    pub(crate) fn enter(&mut self, phase: Phase, at: Nanos) {
        self.leave(at);
        (self.phase, self.since) = (phase, at);
        if self.phases.len() < MAX_PHASE_EVENTS {
            self.phases.push((phase, at));
        }
    }

    fn leave(&mut self, at: Nanos) {
        self.nanos[self.phase.index()] += at.since(self.since);
    }

    pub(crate) fn span(&self) -> &Span {
        &self.span
    }

    /// Ends the span.
    pub(crate) fn end(mut self, outcome: Outcome, code: Option<ErrorCode>, at: Nanos) {
        self.leave(at);
        let now = SystemTime::now();
        for (phase, begun) in &self.phases {
            add_event_at(&self.span, phase.as_str(), now.checked_sub(at.duration_since(*begun)).unwrap_or(now));
        }
        for phase in Phase::ALL {
            let field = match phase {
                Phase::Queue => "poolscope.queue_seconds",
                Phase::Connect => "poolscope.connect_seconds",
                Phase::Ping => "poolscope.ping_seconds",
                Phase::Clean => "poolscope.clean_seconds",
                Phase::Hook => "poolscope.hook_seconds",
                Phase::Suspended => "poolscope.suspended_seconds",
                Phase::Share => "poolscope.share_seconds",
            };
            if self.nanos[phase.index()] > 0 {
                self.span.record(field, seconds(self.nanos[phase.index()]));
            }
        }
        end(&self.span, outcome, code);
    }
}
