//! Traces: which one is under way, and the spans that a pool adds to it.
//!
//! OpenTelemetry keeps the span that is entered in a thread-local context, and bridges such as `tracing-opentelemetry`
//! put theirs there too; it is looked at there, which takes a nanosecond or two and allocates nothing. Nothing else is done
//! unless that span is sampled. Without the feature `otel` nobody is asked, and nothing of this is compiled into a
//! checkout.
//!
//! Spans are made with `tracing`, so that every layer of the service's sees them, under the target [`TARGET`].

mod checkout;
#[cfg_attr(not(feature = "otel"), path = "off.rs")]
mod otel;
mod queries;
mod spans;

use std::fmt;

pub(crate) use self::checkout::{CheckoutSpan, Held};
#[cfg(all(feature = "middleware", feature = "otel"))]
pub(crate) use self::otel::is_within_span;
pub(crate) use self::otel::{Trace, current, entered, surroundings};
pub(crate) use self::queries::{Ending, Queries, Server};
#[cfg(feature = "middleware")]
pub(crate) use self::spans::end_server;
#[cfg(all(feature = "middleware", feature = "otel"))]
pub(crate) use self::spans::server;
pub(crate) use self::spans::{Recount, attempt, cleaning, dirty, end_operation, leaking, operation, retrying};

/// The target of every span, to be named in filters.
pub(crate) const TARGET: &str = "poolscope::trace";

/// What is entered on a thread.
#[cfg_attr(not(feature = "otel"), allow(dead_code, reason = "nobody traces"))]
#[derive(Debug)]
pub(crate) enum Surroundings {
    /// No span, as far as OpenTelemetry knows.
    Untraced,
    /// A span of a trace that is not sampled.
    Unsampled,
    Sampled(Trace),
}

/// The value of an attribute.
#[cfg_attr(not(feature = "otel"), allow(dead_code, reason = "nobody is told"))]
#[derive(Clone, Debug)]
enum Said {
    Text(String),
    Number(i64),
    Seconds(f64),
}

impl From<&str> for Said {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

/// Attributes of an event or a link.
type Attributes = Vec<(&'static str, Said)>;

/// A span of a trace, by the numbers that [W3C Trace Context](https://www.w3.org/TR/trace-context/) gives them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct TraceContext {
    /// The trace.
    pub trace_id: [u8; 16],
    /// The span within it.
    pub span_id: [u8; 8],
}

/// A number in hexadecimal digits, lower case, as traces are shown everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hex<const BYTES: usize>([u8; BYTES]);

impl TraceContext {
    /// A span of this trace.
    #[must_use]
    pub const fn new(trace_id: [u8; 16], span_id: [u8; 8]) -> Self {
        Self { trace_id, span_id }
    }

    /// The trace's number in 32 hexadecimal digits.
    #[must_use]
    pub const fn trace(self) -> Hex<16> {
        Hex(self.trace_id)
    }

    /// The span's number in 16 hexadecimal digits.
    #[must_use]
    pub const fn span(self) -> Hex<8> {
        Hex(self.span_id)
    }
}

impl<const BYTES: usize> Hex<BYTES> {
    /// Calls `digit` with each digit in turn.
    pub(crate) fn digits(self) -> impl Iterator<Item = u8> {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        self.0.into_iter().flat_map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]])
    }
}

impl<const BYTES: usize> fmt::Display for Hex<BYTES> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write as _;
        self.digits().try_for_each(|digit| f.write_char(char::from(digit)))
    }
}

/// `trace-span`, as in a `traceparent`.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.trace(), self.span())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The words in quotes or in front of ` = ` that name an attribute, an event or a link in the sources here.
    fn names(source: &str) -> impl Iterator<Item = &str> {
        let is_of_name = |c: char| c.is_ascii_lowercase() || matches!(c, '.' | '_');
        let code = source.split("mod tests").next().unwrap_or_default();
        let code = code.lines().filter(|line| !line.trim_start().starts_with("//"));
        let words = code.flat_map(move |line| line.split(move |c| !is_of_name(c)));
        words.filter(|word| ["poolscope.", "db.", "server.", "error."].iter().any(|begin| word.starts_with(begin)))
    }

    #[test]
    fn the_page_on_traces_has_every_name_and_no_other_of_ours() {
        let page = include_str!("../../../docs/traces.md");
        let sources = [include_str!("spans.rs"), include_str!("checkout.rs"), include_str!("queries.rs")];
        let names: std::collections::BTreeSet<_> = sources.iter().flat_map(|source| names(source)).collect();
        let missing: Vec<_> = names.iter().filter(|name| !page.contains(&format!("`{name}`"))).collect();
        assert!(missing.is_empty(), "docs/traces.md lacks {missing:?}");
        assert!(names.len() > 20, "{names:?}");
        let on_page = page.split('`').skip(1).step_by(2).filter(|word| word.starts_with("poolscope."));
        let unknown: Vec<_> = on_page.filter(|word| !names.contains(word)).collect();
        assert!(unknown.is_empty(), "docs/traces.md knows {unknown:?}");
    }

    #[test]
    fn numbers_are_shown_in_hexadecimal_with_all_their_zeros() {
        let mut trace = TraceContext::new([0; 16], [0xab; 8]);
        trace.trace_id[0] = 1;
        trace.trace_id[15] = 0x0f;
        assert_eq!(trace.trace().to_string(), "0100000000000000000000000000000f");
        assert_eq!(trace.span().to_string(), "abababababababab");
        assert_eq!(trace.to_string(), "0100000000000000000000000000000f-abababababababab");
    }

    #[test]
    fn outside_of_every_span_there_is_none() {
        assert_eq!(current(), None);
    }

    #[cfg(feature = "otel")]
    #[test]
    fn the_span_that_is_entered_is_told_if_it_is_sampled() {
        use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState};

        let within = |trace: u128, flags| {
            let span = SpanContext::new(TraceId::from(trace), SpanId::from(7), flags, false, TraceState::NONE);
            let _entered = opentelemetry::Context::new().with_remote_span_context(span).attach();
            current()
        };
        let sampled = within(9, TraceFlags::SAMPLED);
        assert_eq!(sampled, Some(TraceContext::new(9u128.to_be_bytes(), 7u64.to_be_bytes())));
        assert_eq!(within(9, TraceFlags::NOT_SAMPLED), None);
        assert_eq!(within(0, TraceFlags::SAMPLED), None, "zero is no trace");
        assert_eq!(current(), None, "it was left");
    }
}
