//! The texts of queries without their literals, for the spans of queries.

use std::collections::HashMap;
use std::num::NonZeroU16;
use std::sync::Arc;

use super::tokens::{Token, Tokenizer};
use crate::telemetry::operations::OperationId;
use crate::telemetry::queries::QueryId;

/// The number of texts kept for a connection, and their total length in bytes. Spans of further queries have no text.
const MAX_TEXTS: usize = 1000;
const MAX_TOTAL_BYTES: usize = 256 * 1024;

/// Refers to a query's summary and, if it is kept, to its text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct QueryRef {
    pub(crate) query: QueryId,
    /// The position of its text in [`QueryTexts`], counted from one.
    pub(crate) text: Option<NonZeroU16>,
    /// The operation that its comment names; [`OperationId::OTHER`] if it names none.
    pub(crate) operation: OperationId,
}

impl QueryRef {
    pub(crate) const OTHER: Self = Self { query: QueryId::OTHER, text: None, operation: OperationId::OTHER };

    #[cfg(any(test, fuzzing))]
    pub(crate) const fn without_text(id: u16) -> Self {
        Self { query: QueryId::from_u16(id), ..Self::OTHER }
    }
}

/// The texts of one connection's queries.
#[derive(Debug, Default)]
pub(crate) struct QueryTexts {
    known: HashMap<Arc<str>, NonZeroU16>,
    texts: Vec<Arc<str>>,
    bytes: usize,
}

impl QueryTexts {
    /// Stores `text` without its literals, and returns its position; `None` if there is no space left.
    pub(crate) fn intern(&mut self, text: &[u8]) -> Option<NonZeroU16> {
        let text = redact_literals(text);
        if let Some(known) = self.known.get(&*text) {
            return Some(*known);
        }
        if self.texts.len() >= MAX_TEXTS || self.bytes + text.len() > MAX_TOTAL_BYTES {
            return None;
        }
        self.bytes += text.len();
        let text: Arc<str> = text.into();
        self.texts.push(Arc::clone(&text));
        let position = u16::try_from(self.texts.len()).ok().and_then(NonZeroU16::new)?;
        self.known.insert(text, position);
        Some(position)
    }

    pub(crate) fn get(&self, query: QueryRef) -> Option<&str> {
        Some(self.texts.get(usize::from(query.text?.get()) - 1)?)
    }
}

/// Returns the text with `?` in place of each literal or list of literals, and without comments. Anything that may be
/// part of a literal is treated as one.
fn redact_literals(text: &[u8]) -> String {
    let mut redacted = String::with_capacity(text.len());
    let mut tokens = Tokenizer::new(text);
    while let Some((token, bytes, separated)) = tokens.next_token() {
        if separated && !redacted.is_empty() {
            redacted.push(' ');
        }
        if !is_literal(token, bytes) {
            redacted.push_str(&String::from_utf8_lossy(bytes));
            continue;
        }
        let list = redacted.trim_end().strip_suffix(',').map(str::trim_end).filter(|before| before.ends_with('?'));
        match list.map(str::len) {
            Some(length) => redacted.truncate(length),
            None => redacted.push('?'),
        }
    }
    redacted
}

fn is_literal(token: Token<'_>, bytes: &[u8]) -> bool {
    let is_parameter = bytes[0] == b'$' && bytes.get(1).is_some_and(u8::is_ascii_digit);
    // An operator is a single byte; so is a one-digit number.
    let is_operator = bytes.len() == 1 && !bytes[0].is_ascii_digit() && bytes[0] != b'$';
    token == Token::Other && !is_parameter && !is_operator
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::{Index, select};

    use super::super::summary::summary;
    use super::*;

    /// Fragments of queries. `secret` occurs in literals and comments only.
    const FRAGMENTS: &[&str] = &[
        "'secret'",
        "'it''s secret'",
        "E'\\'secret'",
        "e'secret\\\\'",
        "U&'secret\\0441'",
        "N'secret'",
        "b'secret'",
        "X'secret'",
        "$$secret$$",
        "$tag$secret$$secret$tag$",
        "$\u{e9}1$secret$\u{e9}1$",
        "'secret\nsecret'",
        "-- secret\n",
        "-- secret 'secret\r\n",
        "/* secret /* secret */ secret */",
        "'secret' \n 'secret'",
        "1",
        "1.5e3",
        "7$$secret$$",
        "$1$$secret$$",
        "$1",
        "$12",
        "0xff",
        "name",
        "\"quoted 'name\"",
        "SELECT",
        "FROM",
        "INSERT INTO",
        "(",
        ")",
        ",",
        ".",
        ";",
        "::",
    ];

    const SEPARATORS: &[&str] = &[" ", "\n", ", ", "(", ")", " || ", "=", ";"];

    proptest! {
        #[test]
        fn no_literal_is_shown_however_a_text_is_truncated(
            fragments in vec((select(FRAGMENTS), select(SEPARATORS)), 1..12),
            cut in any::<Index>(),
        ) {
            let text: String = fragments.iter().flat_map(|(fragment, separator)| [*fragment, *separator]).collect();
            let cut = cut.index(text.len() + 1);
            for text in [text.as_bytes(), &text.as_bytes()[..cut]] {
                let redacted = redact_literals(text);
                prop_assert!(!redacted.contains("secret"), "{redacted}");
                prop_assert!(!summary(text).contains("secret"), "{}", summary(text));
            }
        }
    }

    #[test]
    fn only_literals_are_replaced() {
        for (text, redacted) in [
            ("SELECT 1", "SELECT ?"),
            (
                "SELECT name FROM orders WHERE id = $1 AND total > 1.5e3",
                "SELECT name FROM orders WHERE id = $1 AND total > ?",
            ),
            ("UPDATE t SET a='it''s', b = E'\\'x' WHERE c IN (1, 2,3)", "UPDATE t SET a=?, b = ? WHERE c IN (?)"),
            ("INSERT INTO t VALUES ('a', 1), ('b', 2)", "INSERT INTO t VALUES (?), (?)"),
            ("SELECT $$secret$$, $tag$se$$cret$tag$, b'01', x'ff', N'n'", "SELECT ?"),
            ("SELECT \"a 1\".\"b\"  --secret\n, c2 /* secret /* 2 */ */ FROM t", "SELECT \"a 1\".\"b\" , c2 FROM t"),
            ("SELECT U&'\\0441' FROM t", "SELECT U&?"),
            ("SELECT N'\\', 'secret' FROM t", "SELECT ?"),
            ("SELECT -5, a.b::int4", "SELECT -?, a.b::int4"),
            ("SELECT 'C:\\', 'secret' FROM t", "SELECT ?"),
            ("SELECT 'cut secr", "SELECT ?"),
            ("SELECT $cut", "SELECT ?"),
            ("SELECT 5$$secret$$, $1$$secret$$, 1.5e3 FROM t", "SELECT ??, $1? FROM t"),
            ("SELECT '5' = 5", "SELECT ? = ?"),
            ("", ""),
        ] {
            assert_eq!(redact_literals(text.as_bytes()), redacted, "{text}");
        }
    }

    #[test]
    fn texts_are_stored_once_and_bounded() {
        let mut texts = QueryTexts::default();
        let query = |text| QueryRef { text, ..QueryRef::OTHER };
        let first = texts.intern(b"SELECT 1");
        assert_eq!(texts.get(query(first)), Some("SELECT ?"));
        assert_eq!(texts.intern(b"SELECT 'two'"), first);
        for table in 1..MAX_TEXTS {
            assert!(texts.intern(format!("TABLE t{table}").as_bytes()).is_some());
        }
        assert_eq!((texts.intern(b"TABLE t0"), texts.intern(b"SELECT 3")), (None, first));
        assert_eq!((texts.get(query(None)), texts.get(query(NonZeroU16::new(1001)))), (None, None));
    }
}
