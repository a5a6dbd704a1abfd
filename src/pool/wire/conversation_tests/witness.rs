//! A listener that remembers what it is told and holds it to what must always be true, for the tests and for fuzzing.

use super::{Body, Conversation, Listener, OutOfStep, Transaction};
use crate::labels::ErrorCode;
use crate::pool::wire::listener::Answer;
use crate::pool::wire::texts::Asked;
use crate::telemetry::clock::Nanos;
use crate::telemetry::evidence::{Risk, ServerError};
use crate::telemetry::names::fnv;

/// What a listener is told, but for when work begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fact {
    Query,
    Finished(u32),
    Ready(Transaction),
    Failed(ErrorCode, bool),
    Backend(i32),
}

/// Everything that one conversation told.
#[derive(Debug, Default)]
pub(crate) struct Witness {
    pub(crate) facts: Vec<Fact>,
    /// Whether the server has work, and if so whether it is nothing but requests that come to their end.
    pub(crate) busy: Option<bool>,
    pub(crate) queries: u32,
    pub(crate) finished: u32,
    /// Requests with queries that were begun and not answered.
    pub(crate) unanswered: u32,
    /// Requests of which something may have been committed.
    pub(crate) committed: u32,
    pub(crate) risk: Risk,
    /// What was answered last, and with which error.
    pub(crate) last: Option<(Asked, Option<ErrorCode>)>,
    /// The error that was told last, unless something succeeded since.
    pub(crate) error: Option<ServerError>,
}

impl Listener for Witness {
    fn busy(&mut self, ending: bool) {
        assert_ne!(self.busy, Some(ending), "told twice");
        self.busy = Some(ending);
    }

    fn query(&mut self, first: bool) {
        assert!(self.busy.is_some(), "a query is work");
        self.queries += 1;
        self.unanswered += u32::from(first);
        self.facts.push(Fact::Query);
    }

    fn finished(&mut self, queries: u32) {
        self.finished += queries;
        assert!(queries > 0 && self.finished <= self.queries, "{} of {}", self.finished, self.queries);
        self.facts.push(Fact::Finished(queries));
    }

    fn ready(&mut self, transaction: Transaction) {
        self.busy = None;
        self.facts.push(Fact::Ready(transaction));
    }

    fn failed(&mut self, complaint: ServerError) {
        self.facts.push(Fact::Failed(complaint.code, complaint.fatal));
        self.error = Some(complaint);
    }

    /// One word for each text: nothing is allocated.
    fn text(&mut self, text: &[u8]) -> Asked {
        Asked::of_kind(fnv(text) as u16)
    }

    fn now(&self) -> Nanos {
        Nanos::ZERO
    }

    fn answered(&mut self, Answer { begun, asked, error, committed, overcomes, .. }: Answer) {
        self.unanswered = self.unanswered.checked_sub(begun).expect("an answer to what was begun");
        self.committed += u32::from(committed);
        self.last = Some((asked, error));
        self.error = self.error.filter(|_| !overcomes);
    }

    fn risks(&mut self, risk: Risk) {
        assert_ne!(self.risk, risk, "told twice");
        self.risk = risk;
    }

    fn backend(&mut self, pid: i32) {
        self.facts.push(Fact::Backend(pid));
    }
}

/// Who wrote a part of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From {
    Client,
    Server,
}

/// A conversation and its witness.
#[derive(Debug)]
pub(crate) struct Talk {
    conversation: Conversation,
    pub(crate) witness: Witness,
}

impl Talk {
    pub(crate) fn new() -> Self {
        Self { conversation: Conversation::new(), witness: Witness::default() }
    }

    pub(crate) fn hear(&mut self, from: From, bytes: &[u8]) -> Result<(), OutOfStep> {
        match from {
            From::Client => self.conversation.sent(bytes, &mut self.witness),
            From::Server => self.conversation.received(bytes, &mut self.witness),
        }?;
        // Whether anything is outstanding is what was told.
        let Conversation { outstanding, work, client_body, .. } = &self.conversation;
        assert_eq!(work.requests, outstanding.iter().filter(|request| request.work).count());
        assert_eq!(work.endings, outstanding.iter().filter(|request| request.ending).count());
        assert_eq!(self.witness.busy, work.state());
        // A query of which it is not known yet whether it is a ROLLBACK is not told yet.
        let untold = u32::from(matches!(client_body, Body::Query { matched: Some(_), .. }));
        let begun: u32 = outstanding.iter().map(|request| request.begun).sum();
        assert_eq!(self.witness.unanswered + untold, begun);
        assert!(self.witness.risk == Risk::None || outstanding.iter().any(|request| request.queries > 0));
        Ok(())
    }

    /// The same, byte by byte.
    pub(crate) fn hear_slowly(&mut self, from: From, bytes: &[u8]) -> Result<(), OutOfStep> {
        bytes.chunks(1).try_for_each(|byte| self.hear(from, byte))
    }
}

/// Follows a conversation by whole reads and byte by byte, up to where it is not understood: both tell the same.
pub(crate) fn compare(stream: &[(From, &[u8])]) -> (Talk, Result<(), OutOfStep>) {
    let (mut fast, mut slow) = (Talk::new(), Talk::new());
    for (from, bytes) in stream {
        let known = fast.witness.facts.len();
        let result = fast.hear(*from, bytes);
        assert_eq!(slow.hear_slowly(*from, bytes), result);
        assert_eq!(slow.witness.facts[known..], fast.witness.facts[known..]);
        if result.is_err() {
            return (fast, result);
        }
        assert_eq!(slow.witness.busy, fast.witness.busy);
        let lasting = |Witness { committed, risk, error, last, .. }: &Witness| (*committed, *risk, *error, *last);
        assert_eq!(lasting(&slow.witness), lasting(&fast.witness));
    }
    (fast, Ok(()))
}

/// The reads of a recorded stream: two bytes in front of each say who wrote it (the highest bit: the server) and how
/// long it is.
pub(crate) fn reads(mut recorded: &[u8]) -> Vec<(From, &[u8])> {
    let mut reads = Vec::new();
    while let [high, low, rest @ ..] = recorded {
        let from = if high & 0x80 == 0 { From::Client } else { From::Server };
        let length = usize::from(u16::from_be_bytes([high & 0x7f, *low])).min(rest.len());
        let (bytes, after) = rest.split_at(length);
        reads.push((from, bytes));
        recorded = after;
    }
    reads
}

/// Messages that mean something to a conversation, by number: so that random bytes say a lot.
pub(crate) fn messages(numbers: &[u8]) -> Vec<(From, &'static [u8])> {
    const MESSAGES: [(From, &[u8]); 48] = [
        (From::Client, b"Q\0\0\0\x0dSELECT 1\0"),
        (From::Client, b"Q\0\0\0\x0dROLLBACK\0"),
        (From::Client, b"Q\0\0\0\x11ROLLBACK TO "),
        (From::Client, b"s\0"),
        (From::Client, b"P\0\0\0\x08\0\0\0\0"),
        (From::Client, b"B\0\0\0\x04"),
        (From::Client, b"D\0\0\0\x06S\0"),
        (From::Client, b"E\0\0\0\x09\0\0\0\0\0"),
        (From::Client, b"C\0\0\0\x06S\0"),
        (From::Client, b"H\0\0\0\x04"),
        (From::Client, b"S\0\0\0\x04"),
        (From::Client, b"S\0\0\0\x04"),
        (From::Client, b"c\0\0\0\x04"),
        (From::Client, b"f\0\0\0\x05\0"),
        (From::Client, b"d\0\0\0\x06S\0"),
        (From::Client, b"F\0\0\0\x05\0"),
        (From::Client, b"B\0\0\0\x04E\0\0\0\x09\0\0\0\0\0S\0\0\0\x04"),
        (From::Client, b"B\0\0\0\x04E\0\0\0\x09\0\0\0\0\0S\0\0\0\x04"),
        (From::Client, b"Q\0\0\0\x11ROLLBACK TO a\0"),
        (From::Client, b"Q\0"),
        (From::Client, b"\0\0\x05\0"),
        (From::Client, b"X\0\0\0\x04"),
        (From::Server, b"Z\0\0\0\x05I"),
        (From::Server, b"Z\0\0\0\x05T"),
        (From::Server, b"Z\0\0\0\x05E"),
        (From::Server, b"Z\0\0\0\x05I"),
        (From::Server, b"G\0\0\0\x07\0\0\0"),
        (From::Server, b"G\0\0\0\x07\0\0\0"),
        (From::Server, b"C\0\0\0\x05\0"),
        (From::Server, b"2\0\0\0\x04"),
        (From::Server, b"D\0\0\0\x06\0\0"),
        (From::Server, b"E\0\0\0\x15SERROR\0C22P02\0\0"),
        (From::Server, b"E\0\0\0\x1cSF\0VFATAL\0C57P01\0\0\0\0\0\0"),
        (From::Server, b"A\0\0\0\x05\0"),
        (From::Server, b"N\0\0\0\x05\0"),
        (From::Server, b"K\0\0\0\x0c\0\0\0\x01\0\0\0\x02"),
        (From::Server, b"Z\0\0"),
        (From::Server, b"\0\x05"),
        (From::Server, b"T"),
        (From::Server, b"3\0\0\0\x04"),
        // What commits, by itself or by name.
        (From::Client, b"Q\0\0\0\x0bCOMMIT\0"),
        (From::Client, b"Q\0\0\0\x11BEGIN;COMMIT\0"),
        (From::Client, b"P\0\0\0\x0fs\0COMMIT\0\0\0"),
        (From::Client, b"P\0\0\0\x0fs\0SELECT\0\0\0"),
        (From::Client, b"B\0\0\0\x0d\0s\0\0\0\0\0\0\0E\0\0\0\x09\0\0\0\0\0S\0\0\0\x04"),
        (From::Client, b"B\0\0\0\x0ep\0s\0\0\0\0\0\0\0"),
        (From::Client, b"C\0\0\0\x07Ss\0"),
        (From::Server, b"C\0\0\0\x0bCOMMIT\0"),
    ];
    numbers.iter().map(|number| MESSAGES[usize::from(*number) % MESSAGES.len()]).collect()
}

/// The startup of a conversation.
pub(crate) const STARTUP: [(From, &[u8]); 2] = [
    (From::Client, b"\0\0\0\x0d\0\x03\0\0user\0"),
    (From::Server, b"R\0\0\0\x08\0\0\0\0K\0\0\0\x0c\0\0\0\x2a\0\0\0\x02Z\0\0\0\x05I"),
];

/// What a fuzzer's bytes say: as a recorded stream, and as messages.
#[cfg(fuzzing)]
pub(crate) fn exercise(bytes: &[u8]) {
    let _ = compare(&reads(bytes));
    let mut stream = STARTUP.to_vec();
    // Enough to say everything.
    stream.extend(messages(&bytes[..bytes.len().min(200)]));
    let _ = compare(&stream);
}
