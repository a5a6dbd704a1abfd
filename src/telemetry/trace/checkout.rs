//! The span of a checkout that could not be served at once.

use std::panic::Location;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tracing::field::Empty;
use tracing::{Span, info_span};

use super::otel::{ids_of, link, tell_at};
use super::spans::{Place, end};
use super::{Said, TARGET, Trace};
use crate::labels::{ErrorCode, Outcome, Phase};
use crate::telemetry::clock::{Nanos, seconds};
use crate::telemetry::ledger::Ledger;
use crate::telemetry::operations::OperationId;
use crate::telemetry::seat::ConnectionStats;

/// How many steps are told one by one. A checkout may go from queue to connecting and back many times.
const STEPS: usize = 16;

/// How many of those who held the pool are pointed to, and how many operations are named.
const POINTED_TO: usize = 5;
const NAMED: usize = 5;

/// A checkout in flight that is part of a trace.
#[derive(Debug)]
pub(crate) struct CheckoutSpan {
    span: Span,
    /// What it waited for, in which order, and since when.
    steps: Vec<(Phase, Nanos)>,
    phase: Phase,
    since: Nanos,
    nanos: [u64; Phase::COUNT],
}

/// A connection that was held when a checkout began to queue.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) operation: Arc<str>,
    pub(crate) age: Duration,
    pub(crate) trace: Option<Trace>,
    pub(crate) stats: Arc<ConnectionStats>,
}

impl CheckoutSpan {
    /// For a checkout that began to wait `within` a span: whoever calls this may be within another.
    pub(crate) fn begin(
        ledger: &Ledger,
        within: &Trace,
        operation: OperationId,
        call_site: &'static Location<'static>,
        (phase, at): (Phase, Nanos),
    ) -> Self {
        let span = info_span!(
            target: TARGET,
            parent: None,
            "checkout",
            otel.kind = "internal",
            db.client.connection.pool.name = &**ledger.name(),
            poolscope.operation = ledger.operations().name(operation),
            poolscope.call_site = %Place(call_site),
            poolscope.holders = Empty,
            poolscope.queue_seconds = Empty,
            poolscope.connect_seconds = Empty,
            poolscope.ping_seconds = Empty,
            poolscope.clean_seconds = Empty,
            poolscope.suspended_seconds = Empty,
            poolscope.share_seconds = Empty,
            poolscope.outcome = Empty,
            "error.type" = Empty,
            db.response.status_code = Empty,
            otel.status_code = Empty,
        );
        within.adopt(&span);
        Self { span, steps: vec![(phase, at)], phase, since: at, nanos: [0; Phase::COUNT] }
    }

    /// For one that was refused at once: it took no step.
    pub(crate) fn of_refused(mut self) -> Self {
        self.steps.clear();
        self
    }

    /// It waits for something else. Only noted here, as the ledger's lock is held.
    pub(crate) fn enter(&mut self, phase: Phase, at: Nanos) {
        self.leave(at);
        (self.phase, self.since) = (phase, at);
        if self.steps.len() < STEPS {
            self.steps.push((phase, at));
        }
    }

    fn leave(&mut self, at: Nanos) {
        self.nanos[self.phase.index()] += at.since(self.since);
    }

    pub(crate) fn span(&self) -> &Span {
        &self.span
    }

    /// Says who held the pool when it began to queue, and points there and back.
    pub(crate) fn tell_holders(span: &Span, operation: &str, mut held: Vec<Held>) {
        held.sort_by_key(|held| std::cmp::Reverse(held.age));
        span.record("poolscope.holders", by_operation(&held));
        let Some(own) = ids_of(span) else { return };
        let mut pointed_to = Vec::with_capacity(POINTED_TO);
        for Held { operation: holder, age, trace, stats } in &held {
            let Some(trace) = trace else { continue };
            let ids = trace.ids();
            if ids.trace_id == own.trace_id || pointed_to.contains(&ids) {
                continue;
            }
            let age = Said::Seconds(age.as_secs_f64());
            let attributes = vec![("poolscope.link", "holder".into()), ("poolscope.operation", (&**holder).into())];
            link(span, trace, [attributes, vec![("poolscope.held_seconds", age)]].concat());
            if stats.may_point_to_waiter(ids) {
                let attributes = vec![("poolscope.link", "waiter".into()), ("poolscope.operation", operation.into())];
                trace.point_to(own, attributes);
            }
            pointed_to.push(ids);
            if pointed_to.len() == POINTED_TO {
                break;
            }
        }
    }

    /// It ended.
    pub(crate) fn end(mut self, outcome: Outcome, code: Option<ErrorCode>, at: Nanos) {
        self.leave(at);
        let now = SystemTime::now();
        for (phase, begun) in &self.steps {
            tell_at(&self.span, phase.as_str(), now.checked_sub(at.duration_since(*begun)).unwrap_or(now));
        }
        for phase in Phase::ALL {
            let field = match phase {
                Phase::Queue => "poolscope.queue_seconds",
                Phase::Connect => "poolscope.connect_seconds",
                Phase::Ping => "poolscope.ping_seconds",
                Phase::Clean => "poolscope.clean_seconds",
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

/// `list_orders 8, add_order 2`: most first, of as many the one that has held the oldest.
fn by_operation(held: &[Held]) -> String {
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for held in held {
        match counts.iter_mut().find(|(operation, _)| *operation == &*held.operation) {
            Some((_, count)) => *count += 1,
            None => counts.push((&held.operation, 1)),
        }
    }
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let others: usize = counts.iter().skip(NAMED).map(|(_, count)| count).sum();
    let mut named: Vec<_> = counts.iter().take(NAMED).map(|(name, count)| format!("{name} {count}")).collect();
    if others > 0 {
        named.push(format!("others {others}"));
    }
    named.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holders_are_named_by_operation_most_first() {
        let held = |operation: &str, millis| Held {
            operation: operation.into(),
            age: Duration::from_millis(millis),
            trace: None,
            stats: Arc::new(ConnectionStats::new(OperationId::OTHER, Nanos::ZERO)),
        };
        assert_eq!(by_operation(&[]), "");
        let few = [held("report", 9), held("list", 8), held("list", 7)];
        assert_eq!(by_operation(&few), "list 2, report 1");
        let many: Vec<_> = ["a", "b", "c", "d", "e", "f", "g", "g"].iter().map(|name| held(name, 1)).collect();
        assert_eq!(by_operation(&many), "g 2, a 1, b 1, c 1, d 1, others 2");
    }
}
