//! The comment in which a client names what sends a query, in the format of sqlcommenter, or that of Rails' query logs.
//!
//! ```text
//! SELECT … /*controller='orders',route='%2Forders%2F%3Cid%3E',traceparent='00-5b…-05…-01'*/
//! /*application:Shop,controller:orders,action:index*/ SELECT …
//! ```
//!
//! Source: <https://google.github.io/sqlcommenter/spec/>: keys and values are percent-encoded, a quote in a value is
//! escaped with a backslash, and the comment ends the statement. Some libraries can place it in front.

use std::borrow::Cow;

use percent_encoding::percent_decode;

use crate::telemetry::trace::TraceContext;

/// The longest value that is used, in bytes before decoding.
const MAX_VALUE_BYTES: usize = 512;

/// The comment of a query.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Comment<'a>(&'a [u8]);

/// Returns the comment at the end of a text, or else the one at its beginning. `tail` is the end of a text that is
/// longer than `text`.
pub(crate) fn comment_of<'a>(text: &'a [u8], tail: &'a [u8]) -> Option<Comment<'a>> {
    let end = if tail.is_empty() { text } else { tail };
    trailing(end).or_else(|| leading(text)).map(Comment)
}

fn trailing(text: &[u8]) -> Option<&[u8]> {
    let is_end = |byte: &u8| byte.is_ascii_whitespace() || matches!(*byte, b';' | 0);
    let length = text.iter().rposition(|byte| !is_end(byte))? + 1;
    let inner = text[..length].strip_suffix(b"*/")?;
    let start = inner.windows(2).rposition(|pair| pair == b"/*")?;
    Some(&inner[start + 2..])
}

fn leading(text: &[u8]) -> Option<&[u8]> {
    let inner = text.trim_ascii_start().strip_prefix(b"/*")?;
    let length = inner.windows(2).position(|pair| pair == b"*/")?;
    Some(&inner[..length])
}

impl<'a> Comment<'a> {
    /// Returns the decoded value of a key, unless it is missing, empty or too long.
    pub(crate) fn get(self, key: &str) -> Option<String> {
        let (_, value) = self.pairs().find(|(name, _)| *name == key.as_bytes())?;
        if value.is_empty() || value.len() > MAX_VALUE_BYTES {
            return None;
        }
        let unescaped: Cow<'_, [u8]> = if value.contains(&b'\\') {
            // Only quotes are escaped; a backslash is percent-encoded.
            value.iter().copied().filter(|byte| *byte != b'\\').collect()
        } else {
            value.into()
        };
        Some(percent_decode(&unescaped).decode_utf8_lossy().into_owned())
    }

    /// Returns the span of the client that sent the query, if its trace is sampled.
    pub(crate) fn sampled_span(self) -> Option<TraceContext> {
        let (_, value) = self.pairs().find(|(name, _)| *name == b"traceparent")?;
        let mut parts = value.split(|byte| *byte == b'-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let (trace_id, span_id) = (hexadecimal::<16>(trace)?, hexadecimal::<8>(span)?);
        let [flags] = hexadecimal::<1>(flags)?;
        let is_valid = version.len() == 2 && version != b"ff" && trace_id != [0; 16] && span_id != [0; 8];
        (is_valid && flags & 1 == 1).then(|| TraceContext::new(trace_id, span_id))
    }

    /// Returns the keys and the values as they are written, without quotes.
    fn pairs(self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            loop {
                rest = rest.trim_ascii_start();
                let separator = rest.iter().position(|byte| matches!(byte, b'=' | b':' | b','))?;
                let (key, behind) = rest.split_at(separator);
                let (mark, behind) = behind.split_first()?;
                if *mark == b',' {
                    rest = behind;
                    continue;
                }
                let (value, after) = match behind.trim_ascii_start().split_first() {
                    Some((b'\'', quoted)) => {
                        let end = closing_quote(quoted)?;
                        (&quoted[..end], &quoted[end + 1..])
                    }
                    _ => {
                        let end = behind.iter().position(|byte| *byte == b',').unwrap_or(behind.len());
                        (behind[..end].trim_ascii(), &behind[end..])
                    }
                };
                rest = after;
                return Some((key.trim_ascii(), value));
            }
        })
    }
}

/// Returns the position of the quote that ends a value.
fn closing_quote(text: &[u8]) -> Option<usize> {
    let mut escaped = false;
    text.iter().position(|byte| {
        let closes = *byte == b'\'' && !escaped;
        escaped = *byte == b'\\' && !escaped;
        closes
    })
}

fn hexadecimal<const BYTES: usize>(digits: &[u8]) -> Option<[u8; BYTES]> {
    if digits.len() != 2 * BYTES {
        return None;
    }
    let mut bytes = [0; BYTES];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
        let digit = |digit: u8| char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        *byte = (digit(pair[0])? << 4) | digit(pair[1])?;
    }
    Some(bytes)
}

/// Which keys of a comment form the name of an operation: the first alternative of which all keys are present. Their
/// values are joined by a slash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CommentNames(Vec<Vec<String>>);

impl CommentNames {
    /// Parses alternatives, each a key or several joined by a slash.
    pub(crate) fn new<'a>(alternatives: impl IntoIterator<Item = &'a str>) -> Self {
        let keys = |alternative: &str| alternative.split('/').map(str::to_owned).collect();
        Self(alternatives.into_iter().map(keys).collect())
    }

    /// Returns the name of the operation that sent a query with this comment.
    pub(crate) fn name_of(&self, comment: Comment<'_>) -> Option<String> {
        let values = |keys: &Vec<String>| keys.iter().map(|key| comment.get(key)).collect::<Option<Vec<_>>>();
        self.0.iter().find_map(values).map(|values| values.join("/"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> Option<String> {
        CommentNames::new(["route", "controller/action", "job"]).name_of(comment_of(text.as_bytes(), b"")?)
    }

    #[test]
    fn name_comes_from_the_first_complete_alternative() {
        for (text, expected) in [
            ("SELECT 1 /*action='%2Fparam*d',controller='index',framework='spring'*/", Some("index//param*d")),
            ("SELECT 1 /*controller='orders',action='show',route='%2Forders%2F%3Cid%3E'*/;", Some("/orders/<id>")),
            ("/*application:Shop,controller:orders,action:index*/ SELECT 1", Some("orders/index")),
            ("/* application:Shop, job:Mail */\nSELECT 1", Some("Mail")),
            ("SELECT 1 /*route='a'*/ \n ; ", Some("a")),
            ("SELECT 1 /* first */ /*route='it\\'s'*/", Some("it's")),
            ("SELECT 1 /*route=''*/", None),
            ("SELECT 1 /*route='cut", None),
            ("SELECT 1 /*route='cut*/", None),
            ("SELECT '/*route=''a''*/'", None),
            ("SELECT 1 /*,,=,'=,:*/", None),
            ("SELECT 1 /**/", None),
            ("SELECT 1", None),
            ("*/", None),
            ("", None),
        ] {
            assert_eq!(name(text).as_deref(), expected, "{text}");
        }
        let tail = b"rders /*route='a'*/";
        let comment = comment_of(b"SELECT * FROM o", tail).unwrap();
        assert_eq!(CommentNames::new(["route"]).name_of(comment).as_deref(), Some("a"));
    }

    #[test]
    fn sampled_span_is_valid_and_sampled() {
        let span = |value: &str| {
            comment_of(format!("SELECT 1 /*traceparent='{value}'*/").as_bytes(), b"").and_then(Comment::sampled_span)
        };
        let trace = "5bd66ef5095369c7b0d1f8f4bd33716a";
        let found = span(&format!("00-{trace}-c532cb4098ac3dd2-01")).unwrap();
        assert_eq!(found.to_string(), format!("{trace}-c532cb4098ac3dd2"));
        for invalid in [
            format!("00-{trace}-c532cb4098ac3dd2-00"),
            format!("ff-{trace}-c532cb4098ac3dd2-01"),
            format!("00-{trace}-0000000000000000-01"),
            format!("00-{trace}-c532cb4098ac3dd-01"),
            format!("00-{trace}-c532cb4098ac3dd2"),
            "é".repeat(20),
        ] {
            assert_eq!(span(&invalid), None, "{invalid}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), inner in "[a-z=':,\\\\%*/ ]{0,40}") {
            for text in [&bytes[..], format!("/*{inner}*/").as_bytes()] {
                if let Some(comment) = comment_of(text, b"") {
                    let _ = (comment.get("a"), comment.sampled_span(), comment.pairs().count());
                }
            }
        }
    }
}
