//! Links between the span of a checkout that queues and the spans of the connections' holders.

use std::sync::Arc;
use std::time::Duration;

use tracing::Span;

use crate::telemetry::connection::ConnectionStats;
use crate::telemetry::trace::{AttributeValue, SampledSpan, ids_of, link};

/// The maximum number of holders that a checkout's span links to.
const MAX_LINKS: usize = 5;

/// The maximum number of operations named in `poolscope.holders`.
const MAX_NAMED_OPERATIONS: usize = 5;

/// A connection that was held when a checkout began to queue.
#[derive(Debug)]
pub(super) struct HeldConnection {
    pub(super) operation: Arc<str>,
    pub(super) age: Duration,
    pub(super) span: Option<SampledSpan>,
    pub(super) stats: Arc<ConnectionStats>,
}

/// Records on the span of a checkout of `operation` which connections were held when it began to queue, and adds links
/// from it to the holders' spans and back.
pub(super) fn record_holders(span: &Span, operation: &str, mut held: Vec<HeldConnection>) {
    held.sort_by_key(|held| std::cmp::Reverse(held.age));
    span.record("poolscope.holders", by_operation(&held));
    let Some(own) = ids_of(span) else { return };
    let mut linked = Vec::with_capacity(MAX_LINKS);
    for HeldConnection { operation: holder, age, span: holder_span, stats } in &held {
        let Some(holder_span) = holder_span else { continue };
        let ids = holder_span.ids();
        if ids.trace_id == own.trace_id || linked.contains(&ids) {
            continue;
        }
        let age = AttributeValue::Seconds(age.as_secs_f64());
        let attributes = vec![("poolscope.link", "holder".into()), ("poolscope.operation", (&**holder).into())];
        link(span, holder_span, [attributes, vec![("poolscope.held_seconds", age)]].concat());
        if stats.count_waiter_link(ids) {
            let attributes = vec![("poolscope.link", "waiter".into()), ("poolscope.operation", operation.into())];
            holder_span.add_link(own, attributes);
        }
        linked.push(ids);
        if linked.len() == MAX_LINKS {
            break;
        }
    }
}

/// Returns the holders by operation, as in `list_orders 8, add_order 2`: largest count first, then longest held first.
fn by_operation(held: &[HeldConnection]) -> String {
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for held in held {
        match counts.iter_mut().find(|(operation, _)| *operation == &*held.operation) {
            Some((_, count)) => *count += 1,
            None => counts.push((&held.operation, 1)),
        }
    }
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let others: usize = counts.iter().skip(MAX_NAMED_OPERATIONS).map(|(_, count)| count).sum();
    let named = counts.iter().take(MAX_NAMED_OPERATIONS);
    let mut named: Vec<_> = named.map(|(name, count)| format!("{name} {count}")).collect();
    if others > 0 {
        named.push(format!("others {others}"));
    }
    named.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::clock::Nanos;
    use crate::telemetry::operations::OperationId;

    #[test]
    fn holders_are_listed_by_operation_largest_first() {
        let held = |operation: &str, millis| HeldConnection {
            operation: operation.into(),
            age: Duration::from_millis(millis),
            span: None,
            stats: Arc::new(ConnectionStats::new(OperationId::OTHER, Nanos::ZERO)),
        };
        assert_eq!(by_operation(&[]), "");
        let few = [held("report", 9), held("list", 8), held("list", 7)];
        assert_eq!(by_operation(&few), "list 2, report 1");
        let many: Vec<_> = ["a", "b", "c", "d", "e", "f", "g", "g"].iter().map(|name| held(name, 1)).collect();
        assert_eq!(by_operation(&many), "g 2, a 1, b 1, c 1, d 1, others 2");
    }
}
