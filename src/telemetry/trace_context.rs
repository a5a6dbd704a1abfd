//! The ids of spans and traces.

use std::fmt;

/// The ids of a span and its trace, as in [W3C Trace Context](https://www.w3.org/TR/trace-context/).
///
/// ```
/// use poolscope::telemetry::TraceContext;
///
/// let span = TraceContext::new([0xab; 16], [0xcd; 8]);
/// assert_eq!(span.span().to_string(), "cdcdcdcdcdcdcdcd");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct TraceContext {
    /// The id of the trace.
    pub trace_id: [u8; 16],
    /// The id of the span.
    pub span_id: [u8; 8],
}

/// An id that displays as lower-case hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hex<const BYTES: usize>([u8; BYTES]);

impl TraceContext {
    /// Creates the context from the ids of a trace and of a span in it.
    #[must_use]
    pub const fn new(trace_id: [u8; 16], span_id: [u8; 8]) -> Self {
        Self { trace_id, span_id }
    }

    /// Returns the trace's id, which displays as 32 hexadecimal digits.
    #[must_use]
    pub const fn trace(self) -> Hex<16> {
        Hex(self.trace_id)
    }

    /// Returns the span's id, which displays as 16 hexadecimal digits.
    #[must_use]
    pub const fn span(self) -> Hex<8> {
        Hex(self.span_id)
    }
}

impl<const BYTES: usize> Hex<BYTES> {
    /// Returns the hexadecimal digits as ASCII characters.
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

/// Displays as `trace-span`, as in a `traceparent` header.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.trace(), self.span())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_display_as_hexadecimal_with_leading_zeros() {
        let mut trace = TraceContext::new([0; 16], [0xab; 8]);
        trace.trace_id[0] = 1;
        trace.trace_id[15] = 0x0f;
        assert_eq!(trace.trace().to_string(), "0100000000000000000000000000000f");
        assert_eq!(trace.span().to_string(), "abababababababab");
        assert_eq!(trace.to_string(), "0100000000000000000000000000000f-abababababababab");
    }
}
