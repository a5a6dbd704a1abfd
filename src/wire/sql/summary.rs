//! The summary of a query: its operations and their tables, such as `SELECT orders` or `INSERT log SELECT orders`.
//!
//! OpenTelemetry's `db.query.summary`: the operations and their targets in the order of the text, without anything that
//! varies from one query to the next. The text is split into tokens and not parsed; the summary of an unusual statement
//! is less complete.
//!
//! Source: OpenTelemetry's semantic conventions for database spans, "Generating a summary of the query", version 1.44.

use std::iter::Peekable;

use super::tokens::{Token, Tokenizer};
use crate::telemetry::ledger::MAX_SUMMARY_BYTES;

/// Keywords that are operations anywhere in a statement.
const QUERY_KEYWORDS: [&[u8]; 5] = [b"SELECT", b"INSERT", b"DELETE", b"MERGE", b"UPDATE"];

/// Words that may stand between a DDL keyword and the name of the object.
const DDL_MODIFIERS: [&[u8]; 14] = [
    b"OR",
    b"REPLACE",
    b"TEMP",
    b"TEMPORARY",
    b"UNLOGGED",
    b"GLOBAL",
    b"LOCAL",
    b"UNIQUE",
    b"RECURSIVE",
    b"CONCURRENTLY",
    b"IF",
    b"NOT",
    b"EXISTS",
    b"ONLY",
];

/// Keywords that are followed by the kind of an object and its name.
const DDL_KEYWORDS: [&[u8]; 4] = [b"CREATE", b"ALTER", b"DROP", b"REFRESH"];

/// The first words of object kinds that consist of two.
const TWO_WORD_KINDS: [&[u8]; 4] = [b"MATERIALIZED", b"FOREIGN", b"EVENT", b"ACCESS"];

/// Keywords whose next name is their target.
const TARGET_KEYWORDS: [&[u8]; 5] = [b"CALL", b"COPY", b"EXECUTE", b"LOCK", b"TRUNCATE"];

/// Words after which UPDATE, DELETE and SELECT are not operations: FOR UPDATE, DO UPDATE, ON DELETE, NO KEY UPDATE, and
/// in the definition of a trigger.
const NON_OPERATION_PREFIXES: [&[u8]; 7] = [b"FOR", b"DO", b"ON", b"KEY", b"BEFORE", b"AFTER", b"OF"];

/// The role of the next name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Expected {
    /// Nothing of interest.
    #[default]
    Nothing,
    /// The kind of the object that is defined.
    ObjectKind,
    /// A target, which may be one of a list.
    Target { listed: bool },
    /// The alias of a target in a list, or the end of the list.
    ListEnd,
}

/// The state within one pair of parentheses, or outside all of them.
#[derive(Clone, Copy, Debug, Default)]
struct QueryScope {
    /// Whether FROM names tables. In `extract(year FROM x)` it does not.
    in_query: bool,
    expected: Expected,
}

/// Returns the summary of a text, which may be truncated.
pub(crate) fn summary(text: &[u8]) -> String {
    let mut writer = SummaryWriter::default();
    let mut tokens = Tokenizer::new(text).peekable();
    let mut outer: Vec<QueryScope> = Vec::new();
    let mut scope = QueryScope::default();
    let mut at_start = true;
    let mut before: &[u8] = b"";
    while let Some(token) = tokens.next() {
        match token {
            Token::Semicolon => (scope, at_start) = (QueryScope::default(), true),
            Token::Open => {
                outer.push(scope);
                scope = QueryScope::default();
            }
            Token::Close => {
                scope = outer.pop().unwrap_or_default();
                // A subquery in place of a table.
                scope.expected = match scope.expected {
                    Expected::Target { listed: true } => Expected::ListEnd,
                    Expected::Target { listed: false } => Expected::Nothing,
                    other => other,
                };
            }
            Token::Comma if scope.expected == Expected::ListEnd => scope.expected = Expected::Target { listed: true },
            Token::Word(word) => {
                let is_first = std::mem::take(&mut at_start);
                if is_first || !keyword(&mut scope, &mut writer, word, before) {
                    if is_first {
                        begin(&mut scope, &mut writer, word, &mut tokens);
                    } else {
                        name(&mut scope, &mut writer, word, &mut tokens);
                    }
                }
                before = word;
                continue;
            }
            Token::Quoted(quoted) => name(&mut scope, &mut writer, quoted, &mut tokens),
            Token::Comma | Token::Dot | Token::Other => {}
        }
        before = b"";
    }
    writer.0
}

/// Returns whether `word` is one of `words`, in any case.
fn is(word: &[u8], words: &[&[u8]]) -> bool {
    words.iter().any(|known| known.eq_ignore_ascii_case(word))
}

/// Handles the first word of a statement.
fn begin(scope: &mut QueryScope, writer: &mut SummaryWriter, word: &[u8], tokens: &mut Peekable<Tokenizer<'_>>) {
    if is(word, &[b"WITH"]) || (is(word, &QUERY_KEYWORDS) && keyword(scope, writer, word, b"")) {
        return;
    }
    writer.operation(word);
    if is(word, &DDL_KEYWORDS) {
        scope.expected = Expected::ObjectKind;
    } else if is(word, &TARGET_KEYWORDS) {
        scope.expected = Expected::Target { listed: false };
    } else if is(word, &[b"START"])
        && let Some(Token::Word(second)) = tokens.peek()
    {
        writer.operation(second);
    }
}

/// Handles a keyword. Returns `false` if the word is a name.
fn keyword(scope: &mut QueryScope, writer: &mut SummaryWriter, word: &[u8], before: &[u8]) -> bool {
    let operates = !is(before, &NON_OPERATION_PREFIXES);
    if is(word, &[b"SELECT", b"INSERT", b"DELETE", b"MERGE"]) && operates {
        writer.operation(word);
        *scope = QueryScope { in_query: true, expected: Expected::Nothing };
    } else if is(word, &[b"UPDATE"]) && operates {
        writer.operation(word);
        *scope = QueryScope { in_query: true, expected: Expected::Target { listed: false } };
    } else if (is(word, &[b"FROM"]) && scope.in_query && !is(before, &[b"DISTINCT"])) || is(word, &[b"JOIN"]) {
        scope.expected = Expected::Target { listed: true };
    } else if is(word, &[b"INTO"]) {
        scope.expected = Expected::Target { listed: false };
    } else if is(word, &[b"USING"]) && scope.in_query && matches!(scope.expected, Expected::Nothing | Expected::ListEnd)
    {
        scope.expected = Expected::Target { listed: true };
    } else if is(word, &[b"TABLE", b"ONLY", b"LATERAL"]) && matches!(scope.expected, Expected::Target { .. }) {
        // Before the name.
    } else if is(
        word,
        &[b"WHERE", b"SET", b"VALUES", b"ON", b"GROUP", b"ORDER", b"LIMIT", b"UNION", b"RETURNING", b"AS"],
    ) && !matches!(scope.expected, Expected::ObjectKind)
    {
        if !(is(word, &[b"AS"]) && scope.expected == Expected::ListEnd) {
            scope.expected = Expected::Nothing;
        }
    } else {
        return false;
    }
    true
}

/// Handles a name, quoted or not.
fn name(scope: &mut QueryScope, writer: &mut SummaryWriter, word: &[u8], tokens: &mut Peekable<Tokenizer<'_>>) {
    match scope.expected {
        Expected::Nothing | Expected::ListEnd => {}
        _ if is(word, &DDL_MODIFIERS) => {}
        Expected::ObjectKind => {
            writer.operation(word);
            if !is(word, &TWO_WORD_KINDS) {
                scope.expected = Expected::Target { listed: false };
            }
        }
        Expected::Target { listed } => {
            let mut target = word.to_vec();
            while tokens.next_if_eq(&Token::Dot).is_some() {
                if let Some(Token::Word(part) | Token::Quoted(part)) = tokens.peek() {
                    target.push(b'.');
                    target.extend(*part);
                    tokens.next();
                }
            }
            // A function in place of a table. Outside a list it is a called procedure, or a table with its columns.
            let is_function = listed && tokens.peek() == Some(&Token::Open);
            if !is_function {
                writer.target(&target);
            }
            scope.expected = if listed { Expected::ListEnd } else { Expected::Nothing };
        }
    }
}

/// Builds the summary. A word that would make it longer than [`MAX_SUMMARY_BYTES`] is left out.
#[derive(Debug, Default)]
struct SummaryWriter(String);

impl SummaryWriter {
    fn operation(&mut self, word: &[u8]) {
        self.push(&word.to_ascii_uppercase());
    }

    fn target(&mut self, name: &[u8]) {
        self.push(name);
    }

    fn push(&mut self, word: &[u8]) {
        let word = String::from_utf8_lossy(word);
        let space = usize::from(!self.0.is_empty());
        if self.0.len() + space + word.len() > MAX_SUMMARY_BYTES {
            return;
        }
        if space == 1 {
            self.0.push(' ');
        }
        self.0.push_str(&word);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn summary_lists_operations_and_targets_in_order() {
        for (text, expected) in [
            // The examples of the semantic conventions.
            ("SELECT * FROM wuser_table WHERE username = ?", "SELECT wuser_table"),
            (
                "INSERT INTO shipping_details (order_id, address) SELECT order_id, address FROM orders WHERE order_id = 1",
                "INSERT shipping_details SELECT orders",
            ),
            ("SELECT * FROM songs, artists WHERE songs.artist_id = artists.id", "SELECT songs artists"),
            (
                "SELECT order_date FROM (SELECT * FROM orders o JOIN customers c ON o.customer_id = c.customer_id)",
                "SELECT SELECT orders customers",
            ),
            ("SELECT * FROM \"song list\", 'artists'", "SELECT \"song list\""),
            // Not tables.
            ("select 1", "SELECT"),
            ("SELECT extract(year FROM placed_at) FROM orders", "SELECT orders"),
            ("SELECT trim(both FROM name), (SELECT max(id) FROM b) FROM a", "SELECT SELECT b a"),
            ("SELECT * FROM generate_series(1, 3) AS n, orders", "SELECT orders"),
            ("SELECT 'FROM x', $$FROM y$$, $a$ FROM z $a$, E'\\'FROM q' FROM t", "SELECT t"),
            ("SELECT /* FROM x /* FROM y */ */ 1 -- FROM z\n FROM t", "SELECT t"),
            ("SELECT a FROM t WHERE b IS DISTINCT FROM c", "SELECT t"),
            ("SELECT * FROM t FOR UPDATE", "SELECT t"),
            ("SELECT * FROM a AS x, LATERAL (SELECT * FROM b) y, c", "SELECT a SELECT b c"),
            ("SELECT * FROM a x LEFT JOIN b.c y USING (id), d", "SELECT a b.c d"),
            ("SELECT a INTO t FROM s", "SELECT t s"),
            ("SELECT * FROM Orders UNION ALL SELECT * FROM Archive", "SELECT Orders SELECT Archive"),
            ("WITH n AS (SELECT * FROM a) SELECT * FROM n", "SELECT a SELECT n"),
            // Writes.
            ("INSERT INTO public.orders VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET a = 1", "INSERT public.orders"),
            ("UPDATE orders SET cents = 1 FROM prices WHERE id = $1", "UPDATE orders prices"),
            ("UPDATE ONLY orders SET cents = 1", "UPDATE orders"),
            ("DELETE FROM orders USING carts WHERE a = b", "DELETE orders carts"),
            (
                "MERGE INTO stock s USING deliveries d ON s.id = d.id WHEN MATCHED THEN UPDATE SET n = 1",
                "MERGE stock deliveries UPDATE",
            ),
            ("COPY orders (id) FROM STDIN", "COPY orders"),
            ("COPY (SELECT * FROM orders) TO STDOUT", "COPY SELECT orders"),
            ("TRUNCATE TABLE orders", "TRUNCATE orders"),
            ("CALL moves(1, 2)", "CALL moves"),
            // DDL.
            ("CREATE TABLE IF NOT EXISTS orders (id int REFERENCES x ON DELETE CASCADE)", "CREATE TABLE orders"),
            ("create unique index concurrently by_id on orders (id)", "CREATE INDEX by_id"),
            ("CREATE TEMP TABLE t AS SELECT * FROM orders", "CREATE TABLE t SELECT orders"),
            ("DROP MATERIALIZED VIEW v", "DROP MATERIALIZED VIEW v"),
            ("ALTER TABLE orders ADD COLUMN a int", "ALTER TABLE orders"),
            // Other statements.
            ("BEGIN", "BEGIN"),
            ("START TRANSACTION ISOLATION LEVEL SERIALIZABLE", "START TRANSACTION"),
            ("COMMIT", "COMMIT"),
            ("SET statement_timeout = 5", "SET"),
            ("SHOW transaction_read_only", "SHOW"),
            ("EXPLAIN SELECT * FROM orders", "EXPLAIN SELECT orders"),
            ("BEGIN; UPDATE a SET b = 1; COMMIT", "BEGIN UPDATE a COMMIT"),
            ("", ""),
            (" ; ", ""),
            ("/* cut", ""),
            ("SELECT 'cut", "SELECT"),
        ] {
            assert_eq!(summary(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn summary_is_bounded_and_ends_between_words() {
        let tables: Vec<_> = (0..100).map(|n| format!("table_{n}")).collect();
        let summary = summary(format!("SELECT * FROM {}", tables.join(", ")).as_bytes());
        assert!(summary.len() <= MAX_SUMMARY_BYTES && summary.len() > MAX_SUMMARY_BYTES - 10, "{summary}");
        assert!(summary.ends_with(|last: char| last.is_ascii_digit()));
    }

    proptest! {
        #[test]
        fn summary_contains_no_literals(literal in "[a-z0-9 ]{1,20}", number in any::<u32>()) {
            let text = format!("SELECT a FROM t WHERE b = '{literal}' AND c = {number} AND d IN ('{literal}', E'{literal}', $${literal}$$)");
            prop_assert_eq!(summary(text.as_bytes()), "SELECT t");
            let text = format!("INSERT INTO t VALUES ({number}, '{literal}')");
            prop_assert_eq!(summary(text.as_bytes()), "INSERT t");
        }

        #[test]
        fn arbitrary_bytes_have_a_summary(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(summary(&bytes).len() <= MAX_SUMMARY_BYTES);
        }
    }
}
