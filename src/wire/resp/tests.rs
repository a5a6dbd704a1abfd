#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::checker::{Outcome, fuzz_resp, replay};
use super::commands::Command;
use crate::labels::ErrorCode;
use crate::telemetry::evidence::Risk;
use crate::telemetry::wire::SessionStatus;

/// Returns a command as a client sends it.
fn command(words: &str) -> Vec<u8> {
    let words: Vec<_> = words.split(' ').collect();
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
    }
    bytes
}

/// Replays commands, which begin with `>`, and replies.
fn conversation(parts: &[&str]) -> Outcome {
    let parts: Vec<_> = parts
        .iter()
        .map(|part| match part.strip_prefix("> ") {
            Some(words) => (true, command(words)),
            None => (false, part.as_bytes().to_vec()),
        })
        .collect();
    let each = |piece| replay(parts.iter().map(|(is_sent, bytes)| (*is_sent, &**bytes)), piece);
    let outcome = each(usize::MAX);
    for piece in [1, 2, 7] {
        let other = each(piece);
        assert_eq!(other.handler.ended, outcome.handler.ended, "in pieces of {piece}");
        assert_eq!((other.problem, other.handler.status), (outcome.problem, outcome.handler.status));
    }
    outcome
}

/// Returns the names and the codes of the commands that ended.
fn ended(outcome: &Outcome) -> Vec<(&'static str, Option<String>)> {
    let end = |end: &super::state::CommandEnd| {
        (end.command.map_or("other", Command::name), end.error.map(|code| code.as_str().to_owned()))
    };
    outcome.handler.ended.iter().map(end).collect()
}

#[test]
fn each_type_of_reply_is_one_value() {
    for reply in [
        "+OK\r\n",
        ":-7\r\n",
        "$-1\r\n",
        "*-1\r\n",
        "$0\r\n\r\n",
        "$5\r\na\r\nbc\r\n",
        "*0\r\n",
        "*3\r\n:1\r\n*2\r\n+a\r\n$1\r\nb\r\n*0\r\n",
        "_\r\n",
        "#t\r\n",
        ",3.25\r\n",
        "(3492890328409238509324850943850943825024385\r\n",
        "=15\r\ntxt:Some string\r\n",
        "%2\r\n+a\r\n:1\r\n+b\r\n~2\r\n:1\r\n:2\r\n",
        "~0\r\n",
        "|1\r\n+key-popularity\r\n%1\r\n$1\r\na\r\n,0.19\r\n*2\r\n:2039123\r\n:9543892\r\n",
        "*2\r\n:1\r\n|1\r\n+ttl\r\n:3600\r\n:2\r\n",
    ] {
        let outcome = conversation(&["> GET a", reply, "> GET b", "+b\r\n"]);
        assert_eq!(outcome.problem, None, "{reply}");
        assert_eq!(ended(&outcome), [("GET", None), ("GET", None)], "{reply}");
        assert_eq!(outcome.handler.status, Some(SessionStatus::Idle));
    }
}

#[test]
fn errors_are_known_by_their_first_word() {
    for (reply, code) in [
        ("-WRONGTYPE Operation against a key\r\n", "WRONGTYPE"),
        ("-ERR unknown command 'x', with args beginning with: 'secret'\r\n", "ERR"),
        ("-ERR max number of clients reached\r\n", "MAXCLIENTS"),
        ("!21\r\nSYNTAX invalid syntax\r\n", "other"),
        ("-LOADING Redis is loading the dataset in memory\r\n", "LOADING"),
        ("-MYMODULE failed\r\n", "other"),
        ("-\r\n", "other"),
    ] {
        let outcome = conversation(&["> get a", reply]);
        assert_eq!(ended(&outcome), [("GET", Some(code.to_owned()))]);
        assert_eq!(outcome.handler.errors[0].code.as_str(), code);
    }
    // One inside a reply is data, except in that of a transaction.
    let outcome = conversation(&["> MULTI", "+OK\r\n", "> INCR a", "+QUEUED\r\n", "> EXEC", "*1\r\n-WRONGTYPE no\r\n"]);
    assert_eq!(ended(&outcome)[2], ("EXEC", Some("WRONGTYPE".to_owned())));
    assert!(outcome.handler.ended[2].committed);
    let outcome = conversation(&["> EVAL x 0", "*1\r\n-ERR no\r\n"]);
    assert_eq!(ended(&outcome), [("EVAL", None)]);
}

#[test]
fn pipelines_are_answered_in_order() {
    let outcome = conversation(&["> SET a 1", "> GET a", "> NOSUCH a", "+OK\r\n$1\r\n1\r\n", "-ERR no\r\n"]);
    assert_eq!(ended(&outcome), [("SET", None), ("GET", None), ("other", Some("ERR".to_owned()))]);
    let committed: Vec<_> = outcome.handler.ended.iter().map(|end| (end.committed, end.clears_error)).collect();
    assert_eq!(committed, [(true, true), (false, true), (false, false)]);
    // What was sent before an error arrived does not make it irrelevant.
    let outcome = conversation(&["> SET a 1", "> GET a", "-OOM no\r\n", "+1\r\n", "> GET a", "+1\r\n"]);
    let clears: Vec<_> = outcome.handler.ended.iter().map(|end| end.clears_error).collect();
    assert_eq!(clears, [false, false, true]);
}

#[test]
fn risk_is_that_of_unanswered_writes() {
    let risk = |parts: &[&str]| conversation(parts).handler.risk;
    assert_eq!(risk(&["> GET a"]), Risk::None);
    assert_eq!(risk(&["> SET a 1"]), Risk::Statement);
    assert_eq!(risk(&["> SET a 1", "+OK\r\n"]), Risk::None);
    assert_eq!(risk(&["> NOSUCH a"]), Risk::Statement);
    assert_eq!(risk(&["> MULTI", "> SET a 1"]), Risk::None, "nothing is executed without EXEC");
    assert_eq!(risk(&["> MULTI", "> SET a 1", "> EXEC"]), Risk::Commit);
    assert_eq!(risk(&["> MULTI", "> GET a", "> EXEC"]), Risk::None);
    assert_eq!(risk(&["> MULTI", "> SET a 1", "> EXEC", "+OK\r\n+QUEUED\r\n*1\r\n+OK\r\n"]), Risk::None);
    // The server executes the others one by one.
    assert_eq!(risk(&["> MULTI", "> SET a 1", "-NOPERM no\r\n"]), Risk::Statement);
}

#[test]
fn status_follows_transactions_and_watches() {
    let status = |parts: &[&str]| conversation(parts).handler.status.unwrap();
    let multi = ["> MULTI", "+OK\r\n"];
    assert_eq!(status(&multi), SessionStatus::InTransaction);
    let after = |parts: &[&str]| status(&[&multi, parts].concat());
    assert_eq!(after(&["> GET a", "+QUEUED\r\n"]), SessionStatus::InTransaction);
    assert_eq!(after(&["> GET", "-ERR wrong number\r\n"]), SessionStatus::FailedTransaction);
    assert_eq!(after(&["> DISCARD", "+OK\r\n"]), SessionStatus::Idle);
    assert_eq!(after(&["> GET a", "+QUEUED\r\n", "> EXEC", "*1\r\n+a\r\n"]), SessionStatus::Idle);
    assert_eq!(after(&["> GET", "-ERR no\r\n", "> EXEC", "-EXECABORT no\r\n"]), SessionStatus::Idle);
    assert_eq!(status(&["> WATCH a", "+OK\r\n"]), SessionStatus::InTransaction);
    assert_eq!(status(&["> WATCH a", "+OK\r\n", "> UNWATCH", "+OK\r\n"]), SessionStatus::Idle);
    assert_eq!(
        status(&["> WATCH a", "+OK\r\n", "> MULTI", "+OK\r\n", "> EXEC", "*-1\r\n"]),
        SessionStatus::Idle,
        "a watched key was changed"
    );
}

#[test]
fn aborted_transaction_has_changed_nothing() {
    let parts = ["> MULTI", "> SET a 1", "> EXEC", "+OK\r\n+QUEUED\r\n"];
    for (reply, committed) in
        [("*1\r\n+OK\r\n", true), ("*-1\r\n", false), ("_\r\n", false), ("-EXECABORT no\r\n", false)]
    {
        let outcome = conversation(&[&parts[..], &[reply]].concat());
        assert_eq!(outcome.handler.ended[2].committed, committed, "{reply}");
    }
    // A script may have changed something before it failed, unless it was not begun.
    for (reply, committed) in [("-ERR no\r\n", true), ("-NOSCRIPT no\r\n", false), ("-READONLY no\r\n", true)] {
        assert_eq!(conversation(&["> EVALSHA a 0", reply]).handler.ended[0].committed, committed, "{reply}");
    }
}

#[test]
fn messages_of_subscriptions_are_no_replies() {
    for kind in ['>', '*'] {
        let push = |text: &str| {
            let values: Vec<_> = text.split(' ').collect();
            let encode = |value: &&str| match value.parse::<i64>() {
                Ok(number) => format!(":{number}\r\n"),
                Err(_) => format!("${}\r\n{value}\r\n", value.len()),
            };
            format!("{kind}{}\r\n{}", values.len(), values.iter().map(encode).collect::<String>())
        };
        let (one, two) = (push("subscribe a 1"), push("subscribe b 2"));
        let (message, none) = (push("message a text"), push("unsubscribe a 1"));
        let last = push("unsubscribe b 0");
        let outcome = conversation(&["> SUBSCRIBE a b", &one, &two, &message]);
        assert_eq!((outcome.problem, ended(&outcome)), (None, vec![("SUBSCRIBE", None)]), "{kind}");
        assert!(outcome.session.is_changed() && outcome.session.is_lost());
        let outcome = conversation(&["> SUBSCRIBE a b", &one, &two, "> UNSUBSCRIBE", &none, &message, &last]);
        assert_eq!(ended(&outcome), [("SUBSCRIBE", None), ("UNSUBSCRIBE", None)], "{kind}");
        assert!(!outcome.session.is_changed());
    }
    // An array that only looks like a confirmation.
    let outcome = conversation(&["> LRANGE a 0 -1", "*2\r\n+message\r\n+b\r\n"]);
    assert_eq!(ended(&outcome), [("LRANGE", None)]);
    // The server invalidates a cached key.
    let outcome = conversation(&["> GET a", ">2\r\n+invalidate\r\n*1\r\n+a\r\n", "+1\r\n"]);
    assert_eq!(ended(&outcome), [("GET", None)]);
}

#[test]
fn refused_end_of_a_transaction_ends_nothing() {
    let status = |parts: &[&str]| conversation(parts).handler.status;
    for end in ["DISCARD", "EXEC"] {
        let refused = format!("-ERR {end} without MULTI\r\n");
        let watched = status(&["> WATCH a", "+OK\r\n", &format!("> {end}"), &refused]);
        assert_eq!(watched, Some(SessionStatus::InTransaction), "{end}");
    }
    assert_eq!(status(&["> WATCH a", "+OK\r\n", "> UNWATCH", "+OK\r\n"]), Some(SessionStatus::Idle));
    let refused = status(&["> MULTI", "+OK\r\n", "> DISCARD now", "-ERR wrong number of arguments\r\n"]);
    assert_eq!(refused, Some(SessionStatus::InTransaction));
}

#[test]
fn session_changes_are_noticed() {
    let session = |parts: &[&str]| {
        let session = conversation(parts).session;
        (session.is_changed(), session.is_lost(), session.is_blocked())
    };
    assert_eq!(session(&["> SELECT 3", "+OK\r\n"]), (true, false, false));
    assert_eq!(session(&["> SELECT 3", "-ERR no\r\n"]), (false, false, false));
    assert_eq!(session(&["> SELECT 3", "+OK\r\n", "> SELECT 0", "+OK\r\n"]), (false, false, false));
    let queued = ["> MULTI", "> SELECT 3", "> EXEC", "+OK\r\n+QUEUED\r\n*1\r\n+OK\r\n"];
    assert_eq!(session(&queued), (true, true, false));
    assert_eq!(session(&["> CLIENT LIST", "+\r\n"]), (false, false, false));
    assert_eq!(session(&["> CLIENT TRACKING ON", "+OK\r\n"]), (true, true, false));
    assert_eq!(session(&["> AUTH a b"]), (true, true, false));
    assert_eq!(session(&["> BLPOP a 0"]), (false, false, true));
    assert_eq!(session(&["> BLPOP a 0", "*-1\r\n"]), (false, false, false));
    for words in ["> CLIENT REPLY OFF", "> MONITOR", "> PSYNC a 1"] {
        assert!(conversation(&[words]).problem.is_some(), "{words}");
        assert_eq!(session(&[words]), (true, true, false), "{words}");
    }
}

#[test]
fn what_is_not_understood_is_given_up() {
    for parts in [
        &["> GET a", "HTTP/1.1 400 Bad Request\r\n"][..],
        &["+OK\r\n"],
        &["> GET a", "$x\r\n"],
        &["> GET a", "$-2\r\n"],
        &["> GET a", "*99999999999999999999\r\n"],
        &["> GET a", "$?\r\n"],
    ] {
        assert!(conversation(parts).problem.is_some(), "{parts:?}");
    }
    assert!(replay([(true, &b"PING\r\n"[..])], 9).problem.is_some(), "an inline command");
    // Found by fuzzing: one of the two was accepted if it arrived at once.
    for piece in [1, 9] {
        assert!(replay([(true, &b"*1\r\r\n"[..])], piece).problem.is_some(), "a line with two carriage returns");
    }
    // The server explains why it closes.
    let outcome = conversation(&["-ERR max number of clients reached\r\n"]);
    assert_eq!((outcome.problem, outcome.handler.errors[0].fatal), (None, true));
    assert_eq!(outcome.handler.errors[0].code, ErrorCode::new("MAXCLIENTS"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// Bytes of any kind, and those that look like the protocol.
    #[test]
    fn pieces_make_no_difference(bytes in prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200),
        prop::collection::vec(prop_oneof![
            Just(b'*'), Just(b'$'), Just(b'\r'), Just(b'\n'), Just(b'1'), Just(b'2'), Just(b'>'), Just(b'-'), Just(b'+'),
            Just(0x84), Just(4), Just(0xa0), Just(0x20), any::<u8>(),
        ], 0..300),
    ]) {
        fuzz_resp(&bytes);
    }

    /// Any commands with their replies, however they are split.
    #[test]
    fn each_command_ends_once(
        kinds in prop::collection::vec(0..8_usize, 1..30),
        piece in 1..50_usize,
        ahead in 1..6_usize,
    ) {
        let pairs = kinds.iter().map(|kind| match kind {
            0 => ("GET a", "$3\r\nabc\r\n"),
            1 => ("SET a 1", "+OK\r\n"),
            2 => ("LPUSH a 1", "-WRONGTYPE no\r\n"),
            3 => ("HGETALL a", "%1\r\n+a\r\n:1\r\n"),
            4 => ("MGET a b", "*2\r\n$-1\r\n$1\r\nx\r\n"),
            5 => ("SELECT 0", "+OK\r\n"),
            6 => ("NOSUCH", "-ERR no\r\n"),
            _ => ("XRANGE a - +", "*1\r\n*2\r\n+1-0\r\n*2\r\n+f\r\n+v\r\n"),
        });
        let pairs: Vec<_> = pairs.collect();
        let mut parts = Vec::new();
        for group in pairs.chunks(ahead) {
            parts.push((true, group.iter().flat_map(|(words, _)| command(words)).collect::<Vec<_>>()));
            parts.push((false, group.iter().flat_map(|(_, reply)| reply.bytes()).collect()));
        }
        let outcome = replay(parts.iter().map(|(is_sent, bytes)| (*is_sent, &**bytes)), piece);
        prop_assert_eq!(outcome.problem, None);
        prop_assert_eq!(outcome.handler.ended.len(), kinds.len());
        prop_assert_eq!(outcome.handler.status, Some(SessionStatus::Idle));
        let errors = kinds.iter().filter(|kind| matches!(**kind, 2 | 6)).count();
        prop_assert_eq!(outcome.handler.ended.iter().filter(|end| end.error.is_some()).count(), errors);
    }
}
