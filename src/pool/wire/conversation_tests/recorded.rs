//! Conversations with a real server, which were recorded, heard in any pieces.

use proptest::prelude::*;

use super::super::witness::{Fact, From, Talk, compare, reads};
use super::{ErrorCode, Transaction};

/// A recorded stream, and what is true of it.
struct Recorded {
    name: &'static str,
    bytes: &'static [u8],
    queries: (u32, u32),
    errors: &'static [(&'static str, bool)],
    /// How it ended: nothing if the session did in the midst of work.
    ended: Option<Transaction>,
}

macro_rules! recorded {
    ($name:literal, $queries:expr, $errors:expr, $ended:expr) => {
        Recorded {
            name: $name,
            bytes: include_bytes!(concat!("../recorded/", $name)),
            queries: $queries,
            errors: &$errors,
            ended: $ended,
        }
    };
}

/// The names are explained in the directory's README.
const RECORDED: [Recorded; 10] = [
    recorded!("prepared", (5, 5), [], Some(Transaction::None)),
    recorded!(
        "transactions",
        (10, 10),
        [("22012", false), ("42703", false), ("22012", false)],
        Some(Transaction::Failed)
    ),
    recorded!("pipeline", (4, 4), [("22012", false)], Some(Transaction::None)),
    recorded!("copy-extended", (5, 5), [("57014", false), ("22P02", false)], Some(Transaction::None)),
    recorded!("copy-refused", (1, 1), [("42809", false)], Some(Transaction::None)),
    recorded!("copy-misused", (2, 0), [("08P01", false), ("08P01", true)], None),
    recorded!("copy-simple", (8, 8), [("22P02", false), ("42809", false)], Some(Transaction::None)),
    recorded!("notify", (3, 3), [], Some(Transaction::None)),
    recorded!("cancelled", (4, 3), [("57014", false), ("57P01", true)], None),
    recorded!("unwelcome", (0, 0), [("28P01", true)], None),
];

/// The same stream in smaller pieces.
fn pieces<'a>(stream: &[(From, &'a [u8])], cuts: &[u8]) -> Vec<(From, &'a [u8])> {
    let mut cuts = cuts.iter().cycle();
    let mut pieces = Vec::new();
    for (from, bytes) in stream {
        let mut left = *bytes;
        while let Some(cut) = cuts.next().filter(|_| !left.is_empty()) {
            let (piece, rest) = left.split_at(left.len().min(1 + usize::from(*cut)));
            pieces.push((*from, piece));
            left = rest;
        }
    }
    pieces
}

#[test]
fn what_is_told_of_a_recorded_stream_is_what_was_done() {
    for recorded in &RECORDED {
        let (talk, result) = compare(&reads(recorded.bytes));
        result.unwrap();
        let Talk { witness, .. } = talk;
        let name = recorded.name;
        assert_eq!((witness.queries, witness.finished), recorded.queries, "{name}");
        let errors = witness.facts.iter().filter(|fact| matches!(fact, Fact::Failed(..))).copied();
        let expected = recorded.errors.iter().map(|(code, fatal)| Fact::Failed(ErrorCode::word(code), *fatal));
        assert!(errors.eq(expected), "{name}: {:?}", witness.facts);
        let backends = witness.facts.iter().filter(|fact| matches!(fact, Fact::Backend(pid) if *pid > 0)).count();
        assert_eq!(backends, usize::from(name != "unwelcome"), "{name}");
        assert_eq!(witness.busy.is_none(), recorded.ended.is_some(), "{name}");
        if let Some(transaction) = recorded.ended {
            let ready = witness.facts.iter().rev().find(|fact| matches!(fact, Fact::Ready(_)));
            assert_eq!(ready, Some(&Fact::Ready(transaction)), "{name}");
        }
    }
}

proptest! {
    #[test]
    fn a_recorded_stream_tells_the_same_in_any_pieces(cuts in proptest::collection::vec(any::<u8>(), 1..50)) {
        for recorded in &RECORDED {
            let stream = reads(recorded.bytes);
            let (whole, _) = compare(&stream);
            let mut talk = Talk::new();
            for (from, piece) in pieces(&stream, &cuts) {
                talk.hear(from, piece).unwrap();
            }
            prop_assert_eq!(&talk.witness.facts, &whole.witness.facts, "{}", recorded.name);
            prop_assert_eq!(talk.witness.busy, whole.witness.busy);
        }
    }
}
