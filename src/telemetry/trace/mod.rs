//! Tracing: the current span, and the spans that a pool adds to its trace.
//!
//! OpenTelemetry keeps the current span in a thread-local context, and bridges such as `tracing-opentelemetry` store
//! theirs there too. Reading it takes a nanosecond or two and allocates nothing; nothing else is done unless that span
//! is sampled. Without the feature `otel` the context is not read, and no tracing code is compiled into a checkout.
//!
//! Spans are created with `tracing` under the target [`TARGET`], so that all layers of the service receive them.

mod checkout;
#[cfg_attr(not(feature = "otel"), path = "off.rs")]
mod otel;
mod queries;
#[cfg(feature = "middleware")]
#[cfg_attr(not(feature = "otel"), path = "request_off.rs")]
pub(crate) mod request;
mod spans;

pub(crate) use self::checkout::CheckoutSpan;
pub(crate) use self::otel::{SampledSpan, current, current_context, current_span, ids_of, link};
pub(crate) use self::queries::{DatabaseSystem, QueryEnd, QuerySpans, ServerAddress};
pub(crate) use self::spans::{
    OperationSpan, SpanOutcome, attempt, record_dirty_return, record_retry, record_suspected_leak, reset,
};
pub(crate) use super::trace_context::TraceContext;

/// The target of every span, for use in filters.
pub(crate) const TARGET: &str = "poolscope::trace";

/// The current span of a thread.
#[cfg_attr(not(feature = "otel"), allow(dead_code, reason = "without OpenTelemetry there is no current span"))]
#[derive(Debug)]
pub(crate) enum CurrentSpan {
    /// OpenTelemetry has no current span.
    Untraced,
    /// The trace is not sampled.
    Unsampled,
    /// The trace is sampled.
    Sampled(SampledSpan),
}

/// The value of an attribute.
#[cfg_attr(not(feature = "otel"), allow(dead_code, reason = "without OpenTelemetry attributes are not read"))]
#[derive(Clone, Debug)]
pub(crate) enum AttributeValue {
    Text(String),
    Number(i64),
    Seconds(f64),
}

impl From<&str> for AttributeValue {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

/// The attributes of an event or a link.
pub(crate) type Attributes = Vec<(&'static str, AttributeValue)>;

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the names of attributes, events and links in a source file.
    fn names(source: &str) -> impl Iterator<Item = &str> {
        let is_of_name = |c: char| c.is_ascii_lowercase() || matches!(c, '.' | '_');
        let code = source.split("mod tests").next().unwrap_or_default();
        let code = code.lines().filter(|line| !line.trim_start().starts_with("//"));
        let words = code.flat_map(move |line| line.split(move |c| !is_of_name(c)));
        words.filter(|word| ["poolscope.", "db.", "server.", "error."].iter().any(|begin| word.starts_with(begin)))
    }

    #[test]
    fn documentation_lists_every_attribute() {
        let page = include_str!("../../../docs/traces.md");
        let sources = [
            include_str!("spans.rs"),
            include_str!("request.rs"),
            include_str!("checkout.rs"),
            include_str!("queries.rs"),
            include_str!("../ledger/holder_links.rs"),
        ];
        let names: std::collections::BTreeSet<_> = sources.iter().flat_map(|source| names(source)).collect();
        let missing: Vec<_> = names.iter().filter(|name| !page.contains(&format!("`{name}`"))).collect();
        assert!(missing.is_empty(), "docs/traces.md lacks {missing:?}");
        assert!(names.len() > 20, "{names:?}");
        let on_page = page.split('`').skip(1).step_by(2).filter(|word| word.starts_with("poolscope."));
        let unknown: Vec<_> = on_page.filter(|word| !names.contains(word)).collect();
        assert!(unknown.is_empty(), "docs/traces.md lists unknown names {unknown:?}");
    }

    #[test]
    fn no_context_outside_every_span() {
        assert_eq!(current_context(), None);
    }

    #[cfg(feature = "otel")]
    #[test]
    fn context_is_that_of_a_sampled_span() {
        use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState};

        let within = |trace: u128, flags| {
            let span = SpanContext::new(TraceId::from(trace), SpanId::from(7), flags, false, TraceState::NONE);
            let _entered = opentelemetry::Context::new().with_remote_span_context(span).attach();
            current_context()
        };
        let sampled = within(9, TraceFlags::SAMPLED);
        assert_eq!(sampled, Some(TraceContext::new(9u128.to_be_bytes(), 7u64.to_be_bytes())));
        assert_eq!(within(9, TraceFlags::NOT_SAMPLED), None);
        assert_eq!(within(0, TraceFlags::SAMPLED), None, "zero is not a valid trace id");
        assert_eq!(current_context(), None, "the span was exited");
    }
}
