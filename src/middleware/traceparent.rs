//! Joins the trace that a request brings along.

use std::str::FromStr as _;

use http::{HeaderMap, Request};
use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
use tracing::Span;

use crate::pool::request::ActiveRequest;
use crate::telemetry::requests::UNKNOWN_ROUTE;
use crate::telemetry::trace;

/// A span of the server's for a request that is part of a sampled trace, unless it is in one already: a layer of the
/// service's has seen to it then.
pub(super) fn join<B>(serving: &ActiveRequest, request: &Request<B>) -> Option<Span> {
    let header = request.headers().get("traceparent")?;
    if trace::is_within_span() {
        return None;
    }
    let parent = parent(header.to_str().ok()?, request.headers())?;
    let route = Some(serving.route()).filter(|route| *route != UNKNOWN_ROUTE);
    trace::server(&parent, serving.route_key().method(), route)
}

/// What `traceparent` says by [W3C Trace Context](https://www.w3.org/TR/trace-context/), if the trace is sampled: of later
/// versions, too, what they have in common with the first.
fn parent(header: &str, headers: &HeaderMap) -> Option<SpanContext> {
    let mut parts = header.trim().split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let fits = [(version, 2), (trace, 32), (span, 16), (flags, 2)]
        .iter()
        .all(|(part, len)| part.len() == *len && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')));
    if !fits || version == "ff" || (version == "00" && parts.next().is_some()) {
        return None;
    }
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?);
    let state = headers.get("tracestate").and_then(|state| state.to_str().ok());
    let state = state.and_then(|state| TraceState::from_str(state).ok()).unwrap_or_default();
    let (trace, span) = (TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?);
    let parent = SpanContext::new(trace, span, flags & TraceFlags::SAMPLED, true, state);
    (parent.is_valid() && parent.is_sampled()).then_some(parent)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const SPAN: &str = "b7ad6b7169203331";

    fn read(header: &str) -> Option<SpanContext> {
        parent(header, &HeaderMap::new())
    }

    #[test]
    fn a_sampled_parent_is_read() {
        let parent = read(&format!("00-{TRACE}-{SPAN}-01")).unwrap();
        assert_eq!((parent.trace_id().to_string(), parent.span_id().to_string()), (TRACE.into(), SPAN.into()));
        assert!(parent.is_remote() && parent.is_sampled());
        assert!(read(&format!("00-{TRACE}-{SPAN}-03")).is_some(), "other flags are for others");
        assert!(read(&format!("01-{TRACE}-{SPAN}-01-what comes later")).is_some());
    }

    #[test]
    fn what_is_not_sampled_or_not_valid_is_no_parent() {
        for header in [
            "",
            "00",
            &format!("00-{TRACE}-{SPAN}-00"),
            &format!("00-{TRACE}-{SPAN}-01-more"),
            &format!("ff-{TRACE}-{SPAN}-01"),
            &format!("00-{}-{SPAN}-01", "0".repeat(32)),
            &format!("00-{TRACE}-{}-01", "0".repeat(16)),
            &format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
            &format!("00-{TRACE}é-{SPAN}-01"),
            &format!("00-{TRACE}-{SPAN}-0x"),
        ] {
            assert!(read(header).is_none(), "{header}");
        }
    }

    #[test]
    fn the_trace_state_goes_along() {
        let headers = HeaderMap::from_iter([("tracestate".parse().unwrap(), "vendor=1,other=2".parse().unwrap())]);
        let parent = parent(&format!("00-{TRACE}-{SPAN}-01"), &headers).unwrap();
        assert_eq!(parent.trace_state().header(), "vendor=1,other=2");
    }
}
