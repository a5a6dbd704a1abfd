//! The texts of queries without what they were asked with, for those who may see no more.

use std::collections::HashMap;
use std::num::NonZeroU16;
use std::sync::Arc;

use super::words::{Token, Tokens};
use crate::telemetry::queries::QueryId;

/// How many texts are kept for each connection, and of which length together. Those of more statements are not told.
const MOST: usize = 1000;
const MOST_BYTES: usize = 256 * 1024;

/// What a text asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) query: QueryId,
    /// Which of the texts that are kept it is.
    pub(super) text: Option<NonZeroU16>,
}

impl Asked {
    pub(super) const OTHER: Self = Self { query: QueryId::OTHER, text: None };

    #[cfg(any(test, fuzzing))]
    pub(crate) const fn of_kind(id: u16) -> Self {
        Self { query: QueryId::from_u16(id), text: None }
    }
}

/// The texts of one connection.
#[derive(Debug, Default)]
pub(super) struct Texts {
    known: HashMap<Arc<str>, NonZeroU16>,
    texts: Vec<Arc<str>>,
    bytes: usize,
}

impl Texts {
    /// Keeps a text, without its literals; answers where, if there is room.
    pub(super) fn keep(&mut self, text: &[u8]) -> Option<NonZeroU16> {
        let text = without_literals(text);
        if let Some(known) = self.known.get(&*text) {
            return Some(*known);
        }
        if self.texts.len() >= MOST || self.bytes + text.len() > MOST_BYTES {
            return None;
        }
        self.bytes += text.len();
        let text: Arc<str> = text.into();
        self.texts.push(Arc::clone(&text));
        let place = u16::try_from(self.texts.len()).ok().and_then(NonZeroU16::new)?;
        self.known.insert(text, place);
        Some(place)
    }

    pub(super) fn get(&self, asked: Asked) -> Option<&str> {
        Some(self.texts.get(usize::from(asked.text?.get()) - 1)?)
    }
}

/// The text with `?` for each literal, one for a list of them, and without its comments. What may be part of a literal counts
/// as one.
pub(super) fn without_literals(text: &[u8]) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut tokens = Tokens::new(text);
    while let Some((token, piece, apart)) = tokens.piece() {
        if apart && !shown.is_empty() {
            shown.push(' ');
        }
        if !is_literal(token, piece) {
            shown.push_str(&String::from_utf8_lossy(piece));
            continue;
        }
        let list = shown.trim_end().strip_suffix(',').map(str::trim_end).filter(|before| before.ends_with('?'));
        match list.map(str::len) {
            Some(length) => shown.truncate(length),
            None => shown.push('?'),
        }
    }
    shown
}

fn is_literal(token: Token<'_>, piece: &[u8]) -> bool {
    let is_parameter = piece[0] == b'$' && piece.get(1).is_some_and(u8::is_ascii_digit);
    // An operator is one byte, and so may a number be.
    let is_operator = piece.len() == 1 && !piece[0].is_ascii_digit() && piece[0] != b'$';
    token == Token::Other && !is_parameter && !is_operator
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::{Index, select};

    use super::super::summary::summary;
    use super::*;

    /// Pieces of texts; what is secret is in literals and comments alone.
    const PIECES: &[&str] = &[
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

    const BETWEEN: &[&str] = &[" ", "\n", ", ", "(", ")", " || ", "=", ";"];

    proptest! {
        #[test]
        fn no_part_of_a_literal_is_told_wherever_a_text_is_cut(
            pieces in vec((select(PIECES), select(BETWEEN)), 1..12),
            cut in any::<Index>(),
        ) {
            let text: String = pieces.iter().flat_map(|(piece, between)| [*piece, *between]).collect();
            let cut = cut.index(text.len() + 1);
            for text in [text.as_bytes(), &text.as_bytes()[..cut]] {
                let shown = without_literals(text);
                prop_assert!(!shown.contains("secret"), "{shown}");
                prop_assert!(!summary(text).contains("secret"), "{}", summary(text));
            }
        }
    }

    #[test]
    fn literals_are_replaced_and_nothing_else_is() {
        for (text, shown) in [
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
            assert_eq!(without_literals(text.as_bytes()), shown, "{text}");
        }
    }

    #[test]
    fn a_text_is_kept_once_and_only_so_many_are() {
        let mut texts = Texts::default();
        let asked = |text| Asked { query: QueryId::OTHER, text };
        let first = texts.keep(b"SELECT 1");
        assert_eq!(texts.get(asked(first)), Some("SELECT ?"));
        assert_eq!(texts.keep(b"SELECT 'two'"), first);
        for table in 1..MOST {
            assert!(texts.keep(format!("TABLE t{table}").as_bytes()).is_some());
        }
        assert_eq!((texts.keep(b"TABLE t0"), texts.keep(b"SELECT 3")), (None, first));
        assert_eq!((texts.get(asked(None)), texts.get(asked(NonZeroU16::new(1001)))), (None, None));
    }
}
