//! The server span of a request, which joins the trace of its `traceparent` header.

use std::str::FromStr as _;

use http::{HeaderMap, HeaderName, Request};
use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
use tracing::Span;

use crate::pool::request::ActiveRequest;
use crate::telemetry::requests::UNKNOWN_ROUTE;
use crate::telemetry::trace;

// A name given as a string would be parsed at each lookup.
static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
static TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Creates a server span for a request: a child of the caller's span, or the first of a trace. `None` if there is a current
/// span, which a layer of the service has created, or no OpenTelemetry layer of `tracing`.
pub(super) fn server_span<B>(active: &ActiveRequest, request: &Request<B>) -> Option<Span> {
    if trace::request::has_current_span() {
        return None;
    }
    let header = request.headers().get(&TRACEPARENT).and_then(|header| header.to_str().ok());
    let parent = header.and_then(|header| parent(header, request.headers()));
    let route = Some(active.route()).filter(|route| *route != UNKNOWN_ROUTE);
    trace::request::span(parent.as_ref(), active.route_key().method(), route)
}

/// Parses `traceparent` by [W3C Trace Context](https://www.w3.org/TR/trace-context/); `None` if it is invalid. Of later versions the part in common with the first is parsed.
fn parent(header: &str, headers: &HeaderMap) -> Option<SpanContext> {
    let mut parts = header.trim().split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_valid = [(version, 2), (trace, 32), (span, 16), (flags, 2)]
        .iter()
        .all(|(part, len)| part.len() == *len && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')));
    if !is_valid || version == "ff" || (version == "00" && parts.next().is_some()) {
        return None;
    }
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?);
    let state = headers.get(&TRACESTATE).and_then(|state| state.to_str().ok());
    let state = state.and_then(|state| TraceState::from_str(state).ok()).unwrap_or_default();
    let (trace, span) = (TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?);
    let parent = SpanContext::new(trace, span, flags & TraceFlags::SAMPLED, true, state);
    parent.is_valid().then_some(parent)
}

/// Parses the headers of a fuzzer.
#[cfg(fuzzing)]
pub(crate) fn fuzz(text: &str) {
    let (header, state) = text.split_once('\n').unwrap_or((text, ""));
    let headers: HeaderMap =
        state.parse().ok().map(|state| (http::HeaderName::from_static("tracestate"), state)).into_iter().collect();
    let Some(context) = parent(header, &headers) else { return };
    assert!(context.is_valid() && context.is_remote(), "{header:?}");
    let ids = format!("-{}-{}-", context.trace_id(), context.span_id());
    assert_eq!(header.trim().get(2..53), Some(&*ids), "{header:?}");
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const SPAN: &str = "b7ad6b7169203331";

    fn parse(header: &str) -> Option<SpanContext> {
        parent(header, &HeaderMap::new())
    }

    #[test]
    fn valid_parent_is_parsed() {
        let parent = parse(&format!("00-{TRACE}-{SPAN}-01")).unwrap();
        assert_eq!((parent.trace_id().to_string(), parent.span_id().to_string()), (TRACE.into(), SPAN.into()));
        assert!(parent.is_remote() && parent.is_sampled());
        assert!(parse(&format!("00-{TRACE}-{SPAN}-03")).is_some(), "other flags are ignored");
        assert!(!parse(&format!("00-{TRACE}-{SPAN}-00")).unwrap().is_sampled());
        assert!(parse(&format!("01-{TRACE}-{SPAN}-01-what comes later")).is_some());
    }

    #[test]
    fn invalid_parent_is_ignored() {
        for header in [
            "",
            "00",
            &format!("00-{TRACE}-{SPAN}-01-more"),
            &format!("ff-{TRACE}-{SPAN}-01"),
            &format!("00-{}-{SPAN}-01", "0".repeat(32)),
            &format!("00-{TRACE}-{}-01", "0".repeat(16)),
            &format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
            &format!("00-{TRACE}é-{SPAN}-01"),
            &format!("00-{TRACE}-{SPAN}-0x"),
        ] {
            assert!(parse(header).is_none(), "{header}");
        }
    }

    #[test]
    fn trace_state_is_kept() {
        let headers = HeaderMap::from_iter([("tracestate".parse().unwrap(), "vendor=1,other=2".parse().unwrap())]);
        let parent = parent(&format!("00-{TRACE}-{SPAN}-01"), &headers).unwrap();
        assert_eq!(parent.trace_state().header(), "vendor=1,other=2");
    }
}
