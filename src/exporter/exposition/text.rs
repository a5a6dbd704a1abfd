//! The smallest parts of a line: numbers, and text that is escaped.

use std::io::Write as _;

use crate::telemetry::Exemplar;
use crate::telemetry::clock::{exact, nanos};

/// Integers from here on are not all doubles.
const EXACT: f64 = 9_007_199_254_740_992.0;

const NANOS: u64 = 1_000_000_000;

/// Writes a whole number.
#[inline]
pub(super) fn integer(out: &mut Vec<u8>, number: u64) {
    // Most are small, and one byte is put there faster than several are made and copied.
    match u8::try_from(number) {
        Ok(digit @ 0..10) => out.push(b'0' + digit),
        _ => Digits::of(number).write(out),
    }
}

/// A whole number in decimal digits.
#[derive(Clone, Copy)]
pub(super) struct Digits {
    digits: [u8; 20],
    start: usize,
}

impl Digits {
    #[inline]
    pub(super) fn of(mut number: u64) -> Self {
        let (mut digits, mut start) = ([b'0'; 20], 19);
        digits[start] = digit(number);
        while number > 9 {
            number /= 10;
            start -= 1;
            digits[start] = digit(number);
        }
        Self { digits, start }
    }

    #[inline]
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        match self.digits[self.start..] {
            [digit] => out.push(digit),
            ref digits => out.extend_from_slice(digits),
        }
    }
}

fn digit(number: u64) -> u8 {
    b'0' + (number % 10) as u8
}

/// Writes a sample's value, so that it reads back as the same.
///
/// Most are counts, or nanoseconds divided by 10^9: of these the decimal digits are known, and need no search for
/// the shortest that will do. For up to 2^53 of them the quotient, rounded, is the double that the digits read back as.
#[inline]
pub(super) fn number(out: &mut Vec<u8>, value: f64) {
    if !(0.0..EXACT).contains(&value) {
        return unusual(out, value);
    }
    let whole = truncated(value);
    if exact(whole) == value {
        return integer(out, whole);
    }
    let nanos = value * 1e9 + 0.5;
    if nanos < EXACT && exact(truncated(nanos)) / 1e9 == value {
        return seconds(out, truncated(nanos));
    }
    unusual(out, value);
}

/// Writes nanoseconds as seconds.
pub(super) fn seconds(out: &mut Vec<u8>, nanos: u64) {
    integer(out, nanos / NANOS);
    let mut fraction = nanos % NANOS;
    if fraction == 0 {
        return;
    }
    let mut digits = [b'.'; 10];
    for place in (1..10).rev() {
        digits[place] = digit(fraction);
        fraction /= 10;
    }
    let end = digits.iter().rposition(|digit| *digit != b'0').unwrap_or(0);
    out.extend_from_slice(&digits[..=end]);
}

/// Negative, too large, or finer than a nanosecond: the standard library knows how.
#[cold]
fn unusual(out: &mut Vec<u8>, value: f64) {
    if value == f64::INFINITY {
        out.extend_from_slice(b"+Inf");
    } else if value == f64::NEG_INFINITY {
        out.extend_from_slice(b"-Inf");
    } else {
        // To memory it never fails. Of what is not a number it makes `NaN`, as the formats do.
        let _ = write!(out, "{value}");
    }
}

/// Writes the bound of a bucket or a quantile. OpenMetrics wants a fraction, also where it is zero.
pub(super) fn bound(out: &mut Vec<u8>, value: f64, with_fraction: bool) {
    number(out, value);
    if with_fraction && value.is_finite() && value.fract() == 0.0 {
        out.extend_from_slice(b".0");
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "asked only for what fits")]
fn truncated(value: f64) -> u64 {
    value as u64
}

/// Whether a label's value stands for itself.
pub(super) fn is_plain(value: &str) -> bool {
    !value.bytes().any(|byte| matches!(byte, b'\\' | b'"' | b'\n'))
}

/// Writes a label's value, or a help text in OpenMetrics.
pub(super) fn escaped(out: &mut Vec<u8>, value: &str) {
    for byte in value.bytes() {
        match byte {
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'"' => out.extend_from_slice(b"\\\""),
            b'\n' => out.extend_from_slice(b"\\n"),
            _ => out.push(byte),
        }
    }
}

/// Writes a help text in the text format, in which quotes stand for themselves.
pub(super) fn escaped_help(out: &mut Vec<u8>, help: &str) {
    for byte in help.bytes() {
        match byte {
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            _ => out.push(byte),
        }
    }
}

/// Writes what follows a sample that has an example: 63 characters of labels, where 128 are allowed.
#[cold]
pub(super) fn exemplar(out: &mut Vec<u8>, exemplar: &Exemplar) {
    out.extend_from_slice(b" # {trace_id=\"");
    out.extend(exemplar.trace.trace().digits());
    out.extend_from_slice(b"\",span_id=\"");
    out.extend(exemplar.trace.span().digits());
    out.extend_from_slice(b"\"} ");
    seconds(out, nanos(exemplar.value));
    // A clock that is set before 1970 tells no time.
    if let Ok(since) = exemplar.at.duration_since(std::time::UNIX_EPOCH) {
        out.push(b' ');
        // Prometheus keeps milliseconds.
        seconds(out, u64::try_from(since.as_millis()).unwrap_or(0).saturating_mul(1_000_000));
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use proptest::prelude::*;

    use super::*;
    use crate::telemetry::TraceContext;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn numbers_are_written_as_short_as_they_can_be() {
        for (value, text) in [
            (0.0, "0"),
            (-0.0, "0"),
            (9.0, "9"),
            (10.0, "10"),
            (1_234_567.0, "1234567"),
            (9_007_199_254_740_991.0, "9007199254740991"),
            (9_007_199_254_740_992.0, "9007199254740992"),
            (0.1, "0.1"),
            (0.25, "0.25"),
            (1.35, "1.35"),
            (12.000_000_001, "12.000000001"),
            (0.1 + 0.2, "0.30000000000000004"),
            (1e-10, "0.0000000001"),
            (-1.5, "-1.5"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
            (f64::NAN, "NaN"),
        ] {
            assert_eq!(written(|out| number(out, value)), text);
        }
    }

    #[test]
    fn a_bound_has_a_fraction_where_the_format_wants_it() {
        for (value, plain, fractional) in [(1.0, "1", "1.0"), (0.5, "0.5", "0.5"), (f64::INFINITY, "+Inf", "+Inf")] {
            assert_eq!(written(|out| bound(out, value, false)), plain);
            assert_eq!(written(|out| bound(out, value, true)), fractional);
        }
    }

    #[test]
    fn what_the_formats_reserve_is_escaped_and_nothing_else() {
        let hostile = "a\\b\"c\nd\u{0}é🦀}{,=#";
        assert_eq!(written(|out| escaped(out, hostile)), "a\\\\b\\\"c\\nd\u{0}é🦀}{,=#");
        assert_eq!(written(|out| escaped_help(out, hostile)), "a\\\\b\"c\\nd\u{0}é🦀}{,=#");
        assert!(!is_plain(hostile) && is_plain("a é🦀"));
    }

    #[test]
    fn an_exemplar_names_the_span_and_says_when() {
        let exemplar = Exemplar {
            value: Duration::from_micros(1500),
            trace: TraceContext::new([0x0a; 16], [0xff; 8]),
            at: UNIX_EPOCH + Duration::from_nanos(1_700_000_000_123_456_789),
        };
        assert_eq!(
            written(|out| super::exemplar(out, &exemplar)),
            r##" # {trace_id="0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a",span_id="ffffffffffffffff"} 0.0015 1700000000.123"##
        );
    }

    proptest! {
        #[test]
        fn a_number_reads_back_as_the_same(bits in any::<u64>(), nanos in any::<u64>(), shift in 0..64u32) {
            for value in [f64::from_bits(bits), exact(nanos >> shift), exact(nanos >> shift) / 1e9, -exact(nanos) / 1e9] {
                let text = written(|out| number(out, value));
                let read: f64 = text.parse().unwrap();
                prop_assert!(read == value || (read.is_nan() && value.is_nan()), "{} is {}", value, text);
            }
        }

        #[test]
        fn an_integer_is_written_as_the_standard_library_does(value in any::<u64>(), shift in 0..64u32) {
            prop_assert_eq!(written(|out| integer(out, value >> shift)), (value >> shift).to_string());
        }
    }
}
