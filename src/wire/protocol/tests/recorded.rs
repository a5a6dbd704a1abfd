//! Recorded sessions with a real server, replayed in any chunks.

use proptest::prelude::*;

use super::checker::{CheckedProtocol, Report, Side, reads, replay};
use super::{ErrorCode, TransactionStatus};

/// A recorded stream and the expected reports.
struct Recorded {
    name: &'static str,
    bytes: &'static [u8],
    queries: (u32, u32),
    errors: &'static [(&'static str, bool)],
    /// The final status; `None` if the session ended while the server had work.
    ended: Option<TransactionStatus>,
}

macro_rules! recorded {
    ($name:literal, $queries:expr, $errors:expr, $ended:expr) => {
        Recorded {
            name: $name,
            bytes: include_bytes!(concat!("../../recorded/", $name)),
            queries: $queries,
            errors: &$errors,
            ended: $ended,
        }
    };
}

/// Described in the README of the directory.
const RECORDED: [Recorded; 10] = [
    recorded!("prepared", (5, 5), [], Some(TransactionStatus::Idle)),
    recorded!(
        "transactions",
        (10, 10),
        [("22012", false), ("42703", false), ("22012", false)],
        Some(TransactionStatus::Failed)
    ),
    recorded!("pipeline", (4, 4), [("22012", false)], Some(TransactionStatus::Idle)),
    recorded!("copy-extended", (5, 5), [("57014", false), ("22P02", false)], Some(TransactionStatus::Idle)),
    recorded!("copy-refused", (1, 1), [("42809", false)], Some(TransactionStatus::Idle)),
    recorded!("copy-misused", (2, 0), [("08P01", false), ("08P01", true)], None),
    recorded!("copy-simple", (8, 8), [("22P02", false), ("42809", false)], Some(TransactionStatus::Idle)),
    recorded!("notify", (3, 3), [], Some(TransactionStatus::Idle)),
    recorded!("cancelled", (4, 3), [("57014", false), ("57P01", true)], None),
    recorded!("unwelcome", (0, 0), [("28P01", true)], None),
];

/// Splits the reads of a stream into chunks.
fn chunks<'a>(stream: &[(Side, &'a [u8])], cuts: &[u8]) -> Vec<(Side, &'a [u8])> {
    let mut cuts = cuts.iter().cycle();
    let mut chunks = Vec::new();
    for (from, bytes) in stream {
        let mut left = *bytes;
        while let Some(cut) = cuts.next().filter(|_| !left.is_empty()) {
            let (chunk, rest) = left.split_at(left.len().min(1 + usize::from(*cut)));
            chunks.push((*from, chunk));
            left = rest;
        }
    }
    chunks
}

#[test]
fn recorded_streams_report_what_was_done() {
    for recorded in &RECORDED {
        let (protocol, result) = replay(&reads(recorded.bytes));
        result.unwrap();
        let CheckedProtocol { handler, .. } = protocol;
        let name = recorded.name;
        assert_eq!((handler.queries, handler.finished), recorded.queries, "{name}");
        let errors = handler.reports.iter().filter(|report| matches!(report, Report::Error(..))).copied();
        let expected = recorded.errors.iter().map(|(code, fatal)| Report::Error(ErrorCode::new(code), *fatal));
        assert!(errors.eq(expected), "{name}: {:?}", handler.reports);
        let backends =
            handler.reports.iter().filter(|report| matches!(report, Report::BackendPid(pid) if *pid > 0)).count();
        assert_eq!(backends, usize::from(name != "unwelcome"), "{name}");
        assert_eq!(handler.busy.is_none(), recorded.ended.is_some(), "{name}");
        if let Some(transaction) = recorded.ended {
            let ready = handler.reports.iter().rev().find(|report| matches!(report, Report::Ready(_)));
            assert_eq!(ready, Some(&Report::Ready(transaction)), "{name}");
        }
    }
}

proptest! {
    #[test]
    fn recorded_streams_report_the_same_in_any_chunks(cuts in proptest::collection::vec(any::<u8>(), 1..50)) {
        for recorded in &RECORDED {
            let stream = reads(recorded.bytes);
            let (whole, _) = replay(&stream);
            let mut protocol = CheckedProtocol::new();
            for (from, chunk) in chunks(&stream, &cuts) {
                protocol.feed(from, chunk).unwrap();
            }
            prop_assert_eq!(&protocol.handler.reports, &whole.handler.reports, "{}", recorded.name);
            prop_assert_eq!(protocol.handler.busy, whole.handler.busy);
        }
    }
}
