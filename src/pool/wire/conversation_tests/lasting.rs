//! What may have lasted, and what would not be known if no more answers came.

use super::super::witness::{From, Talk};
use super::{Both, Client, Server, client, error, message, query, ready, server};
use crate::labels::ErrorCode;
use crate::telemetry::evidence::Risk;

fn said(exchange: &[(From, Vec<u8>)]) -> Talk {
    let mut both = Both::begun();
    for (from, bytes) in exchange {
        both.says(*from, bytes);
    }
    both.understood()
}

fn asks(text: &str) -> (From, Vec<u8>) {
    (Client, query(text))
}

/// Done, with this tag; then this transaction.
fn done(tag: &str, status: u8) -> (From, Vec<u8>) {
    (Server, [message(b'C', &[tag.as_bytes(), b"\0"].concat()), ready(status)].concat())
}

fn fails(code: &str, status: u8) -> (From, Vec<u8>) {
    (Server, [error("ERROR", code), ready(status)].concat())
}

/// A statement is prepared.
fn prepares(name: &str, text: &str) -> [(From, Vec<u8>); 2] {
    let body = [name.as_bytes(), b"\0", text.as_bytes(), b"\0\0\0"].concat();
    [(Client, [message(b'P', &body), client("DS")].concat()), (Server, server("1tnZ"))]
}

/// It is run.
fn runs(name: &str) -> (From, Vec<u8>) {
    let body = [b"\0", name.as_bytes(), b"\0\0\0\0\0\0\0"].concat();
    (Client, [message(b'B', &body), client("ES")].concat())
}

#[test]
fn whether_anything_may_have_been_committed_is_told_with_the_answer() {
    let begin = [asks("BEGIN"), done("BEGIN", b'T')];
    for (exchange, committed) in [
        (&[asks("INSERT"), done("INSERT 0 1", b'I')][..], 1),
        (&[asks("INSERT"), fails("40001", b'I')], 0),
        (&[asks("SET x = 1"), done("SET", b'I')], 0),
        (&[&begin[..], &[asks("INSERT"), done("INSERT 0 1", b'T')]].concat(), 0),
        (&[&begin[..], &[asks("INSERT"), fails("40001", b'E'), asks("ROLLBACK"), done("ROLLBACK", b'I')]].concat(), 0),
        (&[&begin[..], &[asks("COMMIT"), done("COMMIT", b'I')]].concat(), 1),
        (&[&begin[..], &[asks("COMMIT"), fails("40001", b'I')]].concat(), 0),
        (&[&begin[..], &[asks("x"), fails("40001", b'E'), asks("COMMIT"), done("ROLLBACK", b'I')]].concat(), 0),
        // All in one: what was committed in its midst is told by what the server says of it.
        (&[asks("BEGIN; INSERT; COMMIT"), (Server, server("CC")), fails("40001", b'I')], 0),
        (&[asks("BEGIN; INSERT; COMMIT; INSERT"), done("COMMIT", b'I')], 1),
        (
            &[
                asks("BEGIN; COMMIT; INSERT"),
                (Server, message(b'C', b"BEGIN\0")),
                (Server, message(b'C', b"COMMIT\0")),
                fails("40001", b'I'),
            ],
            1,
        ),
        (
            &[
                asks("SELECT 1; PREPARE TRANSACTION"),
                (Server, message(b'C', b"PREPARE TRANSACTION\0")),
                fails("40001", b'I'),
            ],
            1,
        ),
        (&[asks("SELECT 1; PREPARE a"), (Server, message(b'C', b"PREPARE\0")), fails("40001", b'I')], 0),
        (&[asks("CALL moves()"), fails("40001", b'I')], 1),
        (&[&begin[..], &[asks("CALL moves()"), fails("40001", b'E')]].concat(), 0),
        (&[asks("ROLLBACK"), done("ROLLBACK", b'I')], 0),
        (&[asks("ROLLBACK PREPARED 'x'"), done("ROLLBACK PREPARED", b'I')], 1),
        // By the extended protocol.
        (&[&prepares("s", "INSERT")[..], &[runs("s"), done("INSERT 0 1", b'I')]].concat(), 1),
        (&[&prepares("s", "SHOW x")[..], &[runs("s"), done("SHOW", b'I')]].concat(), 0),
        (&[&prepares("s", "COMMIT")[..], &begin, &[runs("s"), done("COMMIT", b'T')]].concat(), 1),
        (&[&prepares("s", "INSERT")[..], &begin, &[runs("s"), done("INSERT 0 1", b'T')]].concat(), 0),
        (&prepares("s", "INSERT"), 0),
    ] {
        assert_eq!(said(exchange).witness.committed, committed, "{exchange:?}");
    }
}

#[test]
fn what_is_not_answered_is_told_as_a_risk_until_it_is() {
    let begin = [asks("BEGIN"), done("BEGIN", b'T')];
    for (exchange, risk) in [
        (&[asks("INSERT")][..], Risk::Statement),
        (&[asks("INSERT"), done("INSERT 0 1", b'I')], Risk::None),
        (&[asks("BEGIN")], Risk::None),
        (&[&begin[..], &[asks("INSERT")]].concat(), Risk::None),
        (&[&begin[..], &[asks("COMMIT")]].concat(), Risk::Commit),
        (&[&begin[..], &[asks("INSERT; SELECT 1")]].concat(), Risk::Commit),
        // Half of it.
        (&[&begin[..], &[(Client, query("INSERT")[..8].to_vec())]].concat(), Risk::Commit),
        (&[&prepares("s", "COMMIT")[..], &begin, &[runs("s")]].concat(), Risk::Commit),
        (&[&prepares("s", "INSERT")[..], &begin, &[runs("s")]].concat(), Risk::None),
        (&[&prepares("s", "COMMIT")[..], &prepares("s", "INSERT"), &begin, &[runs("s")]].concat(), Risk::None),
        (&[&prepares("s", "COMMIT")[..], &begin, &[(Client, client("PDS"))]].concat(), Risk::None),
        (&[(Client, client("PDS"))], Risk::None),
        // What has failed is known to have come to nothing before the server says that it is ready.
        (&[asks("INSERT"), (Server, error("ERROR", "23505"))], Risk::None),
        (&[asks("CALL moves()"), (Server, error("ERROR", "23505"))], Risk::Statement),
        // Whatever the server says last, if it does not say that it is ready.
        (&[asks("INSERT"), (Server, error("FATAL", "57P01"))], Risk::Statement),
        (&[&begin[..], &[asks("COMMIT"), (Server, error("FATAL", "57P01"))]].concat(), Risk::Commit),
    ] {
        assert_eq!(said(exchange).witness.risk, risk, "{exchange:?}");
    }
}

#[test]
fn an_error_is_overcome_by_what_succeeds_after_it_and_not_by_a_rollback() {
    let failed = [asks("BEGIN"), done("BEGIN", b'T'), asks("INSERT"), fails("40001", b'E')];
    let error = |exchange: &[(From, Vec<u8>)]| said(exchange).witness.error.map(|complaint| complaint.code);
    for end in ["ROLLBACK", "rollback;", "COMMIT"] {
        let rolled_back = [&failed[..], &[asks(end), done("ROLLBACK", b'I')]].concat();
        assert_eq!(error(&rolled_back), Some(ErrorCode::word("40001")), "{end}");
        assert_eq!(error(&[&rolled_back[..], &[asks("SELECT 1"), done("SELECT 1", b'I')]].concat()), None);
    }
    let back = [&failed[..], &[asks("ROLLBACK TO a"), done("ROLLBACK", b'T')]].concat();
    assert_eq!(error(&back), Some(ErrorCode::word("40001")));
    assert_eq!(error(&[&back[..], &[asks("INSERT"), done("INSERT 0 1", b'T')]].concat()), None);
}

#[test]
fn a_plan_that_is_stale_is_told_from_what_the_server_cannot_do() {
    for (fields, stale) in [
        ("SERROR\0VERROR\0C0A000\0MDer Plan\0RRevalidateCachedQuery\0\0", true),
        ("SERROR\0VERROR\0C0A000\0Mcached plan must not change result type\0Rother\0\0", false),
        ("SERROR\0VERROR\0C0A000\0RRevalidateCachedQueries\0\0", false),
        ("SERROR\0VERROR\0C42601\0RRevalidateCachedQuery\0\0", false),
    ] {
        let exchange = [asks("SELECT 1"), (Server, message(b'E', fields.as_bytes()))];
        assert_eq!(said(&exchange).witness.error.map(|complaint| complaint.stale_plan), Some(stale), "{fields}");
    }
}
