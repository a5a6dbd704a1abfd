//! Commits, and what would remain unknown if the server answered no more.

use super::checker::{CheckedProtocol, Report, Side};
use super::{Client, Dialogue, Server, StatementProblem, client, error, message, query, ready, server};
use crate::labels::ErrorCode;
use crate::telemetry::evidence::Risk;

fn replay(exchange: &[(Side, Vec<u8>)]) -> CheckedProtocol {
    let mut dialogue = Dialogue::after_startup();
    for (from, bytes) in exchange {
        dialogue.send(*from, bytes);
    }
    dialogue.replayed()
}

fn sends(text: &str) -> (Side, Vec<u8>) {
    (Client, query(text))
}

/// The server completes a statement with this tag, and is ready with this transaction status.
fn completes(tag: &str, status: u8) -> (Side, Vec<u8>) {
    (Server, [message(b'C', &[tag.as_bytes(), b"\0"].concat()), ready(status)].concat())
}

fn fails(code: &str, status: u8) -> (Side, Vec<u8>) {
    (Server, [error("ERROR", code), ready(status)].concat())
}

/// A statement is prepared and described.
fn prepares(name: &str, text: &str) -> [(Side, Vec<u8>); 2] {
    let body = [name.as_bytes(), b"\0", text.as_bytes(), b"\0\0\0"].concat();
    [(Client, [message(b'P', &body), client("DS")].concat()), (Server, server("1tnZ"))]
}

/// A prepared statement is executed.
fn runs(name: &str) -> (Side, Vec<u8>) {
    let body = [b"\0", name.as_bytes(), b"\0\0\0\0\0\0\0"].concat();
    (Client, [message(b'B', &body), client("ES")].concat())
}

#[test]
fn answer_reports_whether_anything_committed() {
    let begin = [sends("BEGIN"), completes("BEGIN", b'T')];
    for (exchange, committed) in [
        (&[sends("INSERT"), completes("INSERT 0 1", b'I')][..], 1),
        (&[sends("INSERT"), fails("40001", b'I')], 0),
        (&[sends("SET x = 1"), completes("SET", b'I')], 0),
        (&[&begin[..], &[sends("INSERT"), completes("INSERT 0 1", b'T')]].concat(), 0),
        (
            &[&begin[..], &[sends("INSERT"), fails("40001", b'E'), sends("ROLLBACK"), completes("ROLLBACK", b'I')]]
                .concat(),
            0,
        ),
        (&[&begin[..], &[sends("COMMIT"), completes("COMMIT", b'I')]].concat(), 1),
        (&[&begin[..], &[sends("COMMIT"), fails("40001", b'I')]].concat(), 0),
        (&[&begin[..], &[sends("x"), fails("40001", b'E'), sends("COMMIT"), completes("ROLLBACK", b'I')]].concat(), 0),
        // Several statements in one query: command tags show what was committed midway.
        (&[sends("BEGIN; INSERT; COMMIT"), (Server, server("CC")), fails("40001", b'I')], 0),
        (&[sends("BEGIN; INSERT; COMMIT; INSERT"), completes("COMMIT", b'I')], 1),
        (
            &[
                sends("BEGIN; COMMIT; INSERT"),
                (Server, message(b'C', b"BEGIN\0")),
                (Server, message(b'C', b"COMMIT\0")),
                fails("40001", b'I'),
            ],
            1,
        ),
        (
            &[
                sends("SELECT 1; PREPARE TRANSACTION"),
                (Server, message(b'C', b"PREPARE TRANSACTION\0")),
                fails("40001", b'I'),
            ],
            1,
        ),
        (&[sends("SELECT 1; PREPARE a"), (Server, message(b'C', b"PREPARE\0")), fails("40001", b'I')], 0),
        (&[sends("CALL moves()"), fails("40001", b'I')], 1),
        (&[&begin[..], &[sends("CALL moves()"), fails("40001", b'E')]].concat(), 0),
        (&[sends("ROLLBACK"), completes("ROLLBACK", b'I')], 0),
        (&[sends("ROLLBACK PREPARED 'x'"), completes("ROLLBACK PREPARED", b'I')], 1),
        // The extended protocol.
        (&[&prepares("s", "INSERT")[..], &[runs("s"), completes("INSERT 0 1", b'I')]].concat(), 1),
        (&[&prepares("s", "SHOW x")[..], &[runs("s"), completes("SHOW", b'I')]].concat(), 0),
        (&[&prepares("s", "COMMIT")[..], &begin, &[runs("s"), completes("COMMIT", b'T')]].concat(), 1),
        (&[&prepares("s", "INSERT")[..], &begin, &[runs("s"), completes("INSERT 0 1", b'T')]].concat(), 0),
        (&prepares("s", "INSERT"), 0),
    ] {
        assert_eq!(replay(exchange).handler.committed, committed, "{exchange:?}");
    }
}

#[test]
fn risk_is_reported_until_the_answer() {
    let begin = [sends("BEGIN"), completes("BEGIN", b'T')];
    for (exchange, risk) in [
        (&[sends("INSERT")][..], Risk::Statement),
        (&[sends("INSERT"), completes("INSERT 0 1", b'I')], Risk::None),
        (&[sends("BEGIN")], Risk::None),
        (&[&begin[..], &[sends("INSERT")]].concat(), Risk::None),
        (&[&begin[..], &[sends("COMMIT")]].concat(), Risk::Commit),
        (&[&begin[..], &[sends("INSERT; SELECT 1")]].concat(), Risk::Commit),
        // Sent in part.
        (&[&begin[..], &[(Client, query("INSERT")[..8].to_vec())]].concat(), Risk::Commit),
        (&[&prepares("s", "COMMIT")[..], &begin, &[runs("s")]].concat(), Risk::Commit),
        (&[&prepares("s", "INSERT")[..], &begin, &[runs("s")]].concat(), Risk::None),
        (&[&prepares("s", "COMMIT")[..], &prepares("s", "INSERT"), &begin, &[runs("s")]].concat(), Risk::None),
        (&[&prepares("s", "COMMIT")[..], &begin, &[(Client, client("PDS"))]].concat(), Risk::None),
        (&[(Client, client("PDS"))], Risk::None),
        // An error settles the outcome before the server is ready.
        (&[sends("INSERT"), (Server, error("ERROR", "23505"))], Risk::None),
        (&[sends("CALL moves()"), (Server, error("ERROR", "23505"))], Risk::Statement),
        // A fatal error does not.
        (&[sends("INSERT"), (Server, error("FATAL", "57P01"))], Risk::Statement),
        (&[&begin[..], &[sends("COMMIT"), (Server, error("FATAL", "57P01"))]].concat(), Risk::Commit),
    ] {
        assert_eq!(replay(exchange).handler.risk, risk, "{exchange:?}");
    }
}

#[test]
fn success_clears_an_error_and_rollback_does_not() {
    let failed = [sends("BEGIN"), completes("BEGIN", b'T'), sends("INSERT"), fails("40001", b'E')];
    let error = |exchange: &[(Side, Vec<u8>)]| replay(exchange).handler.error.map(|error| error.code);
    for end in ["ROLLBACK", "rollback;", "COMMIT"] {
        let rolled_back = [&failed[..], &[sends(end), completes("ROLLBACK", b'I')]].concat();
        assert_eq!(error(&rolled_back), Some(ErrorCode::new("40001")), "{end}");
        assert_eq!(error(&[&rolled_back[..], &[sends("SELECT 1"), completes("SELECT 1", b'I')]].concat()), None);
    }
    let back = [&failed[..], &[sends("ROLLBACK TO a"), completes("ROLLBACK", b'T')]].concat();
    assert_eq!(error(&back), Some(ErrorCode::new("40001")));
    assert_eq!(error(&[&back[..], &[sends("INSERT"), completes("INSERT 0 1", b'T')]].concat()), None);
}

#[test]
fn stale_plan_is_told_from_unsupported_features() {
    for (fields, stale) in [
        ("SERROR\0VERROR\0C0A000\0MDer Plan\0RRevalidateCachedQuery\0\0", true),
        ("SERROR\0VERROR\0C0A000\0Mcached plan must not change result type\0Rother\0\0", false),
        ("SERROR\0VERROR\0C0A000\0RRevalidateCachedQueries\0\0", false),
        ("SERROR\0VERROR\0C42601\0RRevalidateCachedQuery\0\0", false),
    ] {
        let exchange = [sends("SELECT 1"), (Server, message(b'E', fields.as_bytes()))];
        assert_eq!(replay(&exchange).handler.error.map(|error| error.stale_plan), Some(stale), "{fields}");
    }
}

#[test]
fn refused_statements_are_reported() {
    let refused = |exchange: &[&[(Side, Vec<u8>)]]| -> Vec<_> {
        let reports = replay(&exchange.concat()).handler.reports.into_iter();
        let problem = |report| if let Report::StatementRefused(problem) = report { Some(problem) } else { None };
        reports.filter_map(problem).collect()
    };
    let (prepared, run) = (prepares("s1", "SELECT 1"), [runs("s1")]);
    let missing = [runs("s1"), fails("26000", b'I')];
    assert_eq!(refused(&[&prepared, &missing]), [StatementProblem::Missing]);
    // It is in no cache any more, unless it was prepared again.
    assert_eq!(refused(&[&prepared, &missing, &missing]), [StatementProblem::Missing]);
    assert_eq!(refused(&[&prepared, &missing, &prepared, &missing]), [StatementProblem::Missing; 2]);
    let stale = message(b'E', b"SERROR\0VERROR\0C0A000\0RRevalidateCachedQuery\0\0");
    let stale = [(Server, [stale, ready(b'I')].concat())];
    assert_eq!(refused(&[&prepared, &run, &stale]), [StatementProblem::Stale]);
    let taken = [prepared[0].clone(), fails("42P05", b'I')];
    assert_eq!(refused(&[&taken]), [StatementProblem::NameTaken]);
    // Of PREPARE and EXECUTE in SQL.
    for code in ["26000", "42P05"] {
        assert_eq!(refused(&[&[sends("EXECUTE s1"), fails(code, b'I')]]), []);
    }
    assert_eq!(refused(&[&prepared, &run, &[fails("22P02", b'I')]]), []);
}
