//! What a query is, in a few words: what it does and to which tables, as in `SELECT orders` or `INSERT log SELECT orders`.
//!
//! OpenTelemetry calls that `db.query.summary`: the names of the operations and of their targets in the order in which
//! they stand in the text, without anything that differs from one query to the next. The text is not parsed, but taken
//! apart into words, with what is quoted or in parentheses told apart; where a statement is unusual the summary says less.
//!
//! Source: OpenTelemetry's semantic conventions for database spans, "Generating a summary of the query", version 1.44.

use std::iter::Peekable;

use super::words::{Token, Tokens};
use crate::telemetry::ledger::MAX_SUMMARY_BYTES;

/// The longest summary, in bytes: what is one word too long ends before that word.
const LONGEST: usize = MAX_SUMMARY_BYTES;

/// Operations wherever they stand.
const QUERYING: [&[u8]; 5] = [b"SELECT", b"INSERT", b"DELETE", b"MERGE", b"UPDATE"];

/// Words between the first one of a statement that defines something and what it defines.
const MODIFIERS: [&[u8]; 14] = [
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

/// Statements that define something: the next words say of what kind it is, and then its name.
const DEFINING: [&[u8]; 4] = [b"CREATE", b"ALTER", b"DROP", b"REFRESH"];

/// Kinds that take two words, of which this is the first.
const KINDS_OF_TWO: [&[u8]; 4] = [b"MATERIALIZED", b"FOREIGN", b"EVENT", b"ACCESS"];

/// Statements whose next name is their target.
const WITH_TARGET: [&[u8]; 5] = [b"CALL", b"COPY", b"EXECUTE", b"LOCK", b"TRUNCATE"];

/// Words behind which UPDATE, DELETE and SELECT are no operation: FOR UPDATE, DO UPDATE, ON DELETE, NO KEY UPDATE, and in
/// the definition of a trigger.
const NOT_BEFORE_OPERATION: [&[u8]; 7] = [b"FOR", b"DO", b"ON", b"KEY", b"BEFORE", b"AFTER", b"OF"];

/// What the next name is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Next {
    /// Nothing of interest.
    #[default]
    Any,
    /// The kind of what is defined.
    Kind,
    /// A target; one of a list if so.
    Target { listed: bool },
    /// The alias of a target of a list, or what ends the list.
    Listed,
}

/// What is within one pair of parentheses, or in none.
#[derive(Clone, Copy, Debug, Default)]
struct Level {
    /// Whether a query is there, so that FROM names tables. In `extract(year FROM x)` it does not.
    queries: bool,
    next: Next,
}

/// The summary of a text, which may be cut.
pub(super) fn summary(text: &[u8]) -> String {
    let mut writer = Writer::default();
    let mut tokens = Tokens::new(text).peekable();
    let mut outer: Vec<Level> = Vec::new();
    let mut level = Level::default();
    let mut begins = true;
    let mut before: &[u8] = b"";
    while let Some(token) = tokens.next() {
        match token {
            Token::Semicolon => (level, begins) = (Level::default(), true),
            Token::Open => {
                outer.push(level);
                level = Level::default();
            }
            Token::Close => {
                level = outer.pop().unwrap_or_default();
                // A query in parentheses in the place of a table.
                level.next = match level.next {
                    Next::Target { listed: true } => Next::Listed,
                    Next::Target { listed: false } => Next::Any,
                    other => other,
                };
            }
            Token::Comma if level.next == Next::Listed => level.next = Next::Target { listed: true },
            Token::Word(word) => {
                let first = std::mem::take(&mut begins);
                if first || !keyword(&mut level, &mut writer, word, before) {
                    if first {
                        begin(&mut level, &mut writer, word, &mut tokens);
                    } else {
                        name(&mut level, &mut writer, word, &mut tokens);
                    }
                }
                before = word;
                continue;
            }
            Token::Quoted(quoted) => name(&mut level, &mut writer, quoted, &mut tokens),
            Token::Comma | Token::Dot | Token::Other => {}
        }
        before = b"";
    }
    writer.0
}

fn is(word: &[u8], words: &[&[u8]]) -> bool {
    words.iter().any(|known| known.eq_ignore_ascii_case(word))
}

/// The first word of a statement.
fn begin(level: &mut Level, writer: &mut Writer, word: &[u8], tokens: &mut Peekable<Tokens<'_>>) {
    if is(word, &[b"WITH"]) || (is(word, &QUERYING) && keyword(level, writer, word, b"")) {
        return;
    }
    writer.operation(word);
    if is(word, &DEFINING) {
        level.next = Next::Kind;
    } else if is(word, &WITH_TARGET) {
        level.next = Next::Target { listed: false };
    } else if is(word, &[b"START"])
        && let Some(Token::Word(second)) = tokens.peek()
    {
        writer.operation(second);
    }
}

/// A word that is not a name, if it is none.
fn keyword(level: &mut Level, writer: &mut Writer, word: &[u8], before: &[u8]) -> bool {
    let operates = !is(before, &NOT_BEFORE_OPERATION);
    if is(word, &[b"SELECT", b"INSERT", b"DELETE", b"MERGE"]) && operates {
        writer.operation(word);
        *level = Level { queries: true, next: Next::Any };
    } else if is(word, &[b"UPDATE"]) && operates {
        writer.operation(word);
        *level = Level { queries: true, next: Next::Target { listed: false } };
    } else if (is(word, &[b"FROM"]) && level.queries && !is(before, &[b"DISTINCT"])) || is(word, &[b"JOIN"]) {
        level.next = Next::Target { listed: true };
    } else if is(word, &[b"INTO"]) {
        level.next = Next::Target { listed: false };
    } else if is(word, &[b"USING"]) && level.queries && matches!(level.next, Next::Any | Next::Listed) {
        level.next = Next::Target { listed: true };
    } else if is(word, &[b"TABLE", b"ONLY", b"LATERAL"]) && matches!(level.next, Next::Target { .. }) {
        // Before the name.
    } else if is(
        word,
        &[b"WHERE", b"SET", b"VALUES", b"ON", b"GROUP", b"ORDER", b"LIMIT", b"UNION", b"RETURNING", b"AS"],
    ) && !matches!(level.next, Next::Kind)
    {
        if !(is(word, &[b"AS"]) && level.next == Next::Listed) {
            level.next = Next::Any;
        }
    } else {
        return false;
    }
    true
}

/// A word or what is quoted, as a name.
fn name(level: &mut Level, writer: &mut Writer, word: &[u8], tokens: &mut Peekable<Tokens<'_>>) {
    match level.next {
        Next::Any | Next::Listed => {}
        _ if is(word, &MODIFIERS) => {}
        Next::Kind => {
            writer.operation(word);
            if !is(word, &KINDS_OF_TWO) {
                level.next = Next::Target { listed: false };
            }
        }
        Next::Target { listed } => {
            let mut target = word.to_vec();
            while tokens.next_if_eq(&Token::Dot).is_some() {
                if let Some(Token::Word(part) | Token::Quoted(part)) = tokens.peek() {
                    target.push(b'.');
                    target.extend(*part);
                    tokens.next();
                }
            }
            // A function in the place of a table; but a procedure that is called, or a table with its columns.
            let is_function = listed && tokens.peek() == Some(&Token::Open);
            if !is_function {
                writer.target(&target);
            }
            level.next = if listed { Next::Listed } else { Next::Any };
        }
    }
}

/// The summary so far.
#[derive(Debug, Default)]
struct Writer(String);

impl Writer {
    fn operation(&mut self, word: &[u8]) {
        self.push(&word.to_ascii_uppercase());
    }

    fn target(&mut self, name: &[u8]) {
        self.push(name);
    }

    fn push(&mut self, word: &[u8]) {
        let word = String::from_utf8_lossy(word);
        let space = usize::from(!self.0.is_empty());
        if self.0.len() + space + word.len() > LONGEST {
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
    fn a_summary_has_the_operations_and_their_targets_in_the_order_of_the_text() {
        for (text, expected) in [
            // The conventions' own.
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
            // What is not a table.
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
            // Writing.
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
            // Defining.
            ("CREATE TABLE IF NOT EXISTS orders (id int REFERENCES x ON DELETE CASCADE)", "CREATE TABLE orders"),
            ("create unique index concurrently by_id on orders (id)", "CREATE INDEX by_id"),
            ("CREATE TEMP TABLE t AS SELECT * FROM orders", "CREATE TABLE t SELECT orders"),
            ("DROP MATERIALIZED VIEW v", "DROP MATERIALIZED VIEW v"),
            ("ALTER TABLE orders ADD COLUMN a int", "ALTER TABLE orders"),
            // Everything else.
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
    fn a_summary_is_bounded_and_ends_between_words() {
        let tables: Vec<_> = (0..100).map(|n| format!("table_{n}")).collect();
        let summary = summary(format!("SELECT * FROM {}", tables.join(", ")).as_bytes());
        assert!(summary.len() <= LONGEST && summary.len() > LONGEST - 10, "{summary}");
        assert!(summary.ends_with(|last: char| last.is_ascii_digit()));
    }

    proptest! {
        #[test]
        fn no_literal_becomes_part_of_a_summary(literal in "[a-z0-9 ]{1,20}", number in any::<u32>()) {
            let text = format!("SELECT a FROM t WHERE b = '{literal}' AND c = {number} AND d IN ('{literal}', E'{literal}', $${literal}$$)");
            prop_assert_eq!(summary(text.as_bytes()), "SELECT t");
            let text = format!("INSERT INTO t VALUES ({number}, '{literal}')");
            prop_assert_eq!(summary(text.as_bytes()), "INSERT t");
        }

        #[test]
        fn any_bytes_have_a_summary(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(summary(&bytes).len() <= LONGEST);
        }
    }
}
