#![allow(clippy::unwrap_used)]

use std::time::Duration;

use super::*;
use crate::labels::{Activity, ErrorPhase};
use crate::telemetry::PoolSnapshot;
use crate::telemetry::ledger::Limits;

/// A connection's wire, by hand.
struct Line {
    ledger: Arc<Ledger>,
    recorder: Recorder,
    hands: Arc<quanta::Mock>,
    stats: Arc<ConnectionStats>,
    eyes: ProtocolObserver,
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
    [&[tag], &length[..], body].concat()
}

impl Line {
    /// Connected, for `connects`.
    fn new() -> Self {
        let (clock, hands) = Clock::mock();
        let ledger = Arc::new(Ledger::new("line".into(), Limits::of_one(), clock));
        let recorder = Recorder::new(Arc::clone(&ledger));
        let stats = Arc::new(ConnectionStats::new(recorder.operation("connects"), recorder.now()));
        recorder.connection_creating(&stats);
        let mut eyes = ProtocolObserver::new(Arc::clone(&stats), &ledger, None, false);
        eyes.sent(&[0, 0, 0, 10, 0, 3, 0, 0, b'u', 0]);
        eyes.received(&[message(b'R', &[0; 4]), message(b'K', &[0, 0, 0, 7, 1, 2, 3, 4])].concat());
        hands.increment(Duration::from_millis(40));
        eyes.received(&message(b'Z', b"I"));
        Self { ledger, recorder, hands, stats, eyes }
    }

    fn now(&self) -> Nanos {
        self.recorder.now()
    }

    fn pass(&self, millis: u64) {
        self.hands.increment(Duration::from_millis(millis));
    }

    fn take(&self, operation: &str) -> (OperationId, Nanos) {
        let (operation, at) = (self.recorder.operation(operation), self.now());
        self.recorder.checkout_served(&self.stats, operation, at);
        (operation, at)
    }

    fn give_back(&self, (operation, since): (OperationId, Nanos)) {
        let (stats, at) = (&*self.stats, self.now());
        self.recorder.connection_returned(stats, operation, since, at);
        self.recorder.connection_idle(stats, at);
    }

    fn asks(&mut self, query: &str) {
        self.eyes.sent(&message(b'Q', &[query.as_bytes(), b"\0"].concat()));
    }

    fn answers(&mut self, status: &[u8]) {
        self.eyes.received(&message(b'Z', status));
    }

    fn snapshot(&self) -> PoolSnapshot {
        self.ledger.snapshot()
    }

    /// Milliseconds executing, idle and idle in a transaction.
    fn millis(&self, operation: &str) -> [u64; 3] {
        let snapshot = self.snapshot();
        let found = snapshot.operations.iter().find(|totals| &*totals.name == operation).unwrap();
        found.activity_nanos.map(|nanos| (nanos + 500_000) / 1_000_000)
    }
}

#[test]
fn connecting_is_nobodys_use_and_tells_the_servers_process() {
    let line = Line::new();
    assert_eq!(line.millis("connects"), [0, 0, 0]);
    assert_eq!(line.stats.wire().backend(), Some(7));
    assert_eq!(line.stats.wire().status(), Status::Idle);
    let connects = &line.snapshot().operations[1];
    assert_eq!((&*connects.name, connects.wire_bytes, connects.queries), ("connects", [10, 28,], 0));
}

#[test]
fn each_moment_of_a_hold_is_counted_as_one_activity_also_while_it_lasts() {
    let mut line = Line::new();
    let held = line.take("works");
    line.pass(10);
    assert_eq!(line.millis("works"), [0, 10, 0]);
    line.asks("BEGIN");
    line.pass(5);
    assert_eq!(line.millis("works"), [5, 10, 0]);
    line.answers(b"T");
    line.pass(30);
    assert_eq!(line.millis("works"), [5, 10, 30]);
    line.asks("SELECT 1/0");
    line.pass(1);
    line.answers(b"E");
    line.pass(3);
    assert_eq!(line.millis("works"), [6, 10, 33]);
    assert_eq!(line.snapshot().holders[0].activity, Some(Activity::IdleInTransaction));
    line.asks("ROLLBACK");
    line.pass(2);
    assert_eq!(line.snapshot().holders[0].activity, Some(Activity::Executing));
    line.answers(b"I");
    line.pass(4);
    line.give_back(held);
    line.pass(1000);
    assert_eq!(line.millis("works"), [8, 14, 33]);
    let works = &line.snapshot().operations[2];
    assert_eq!((works.queries, works.queries_finished, works.use_nanos), (3, 3, 55_000_000));
}

#[test]
fn the_next_holder_has_an_account_of_his_own() {
    let mut line = Line::new();
    let held = line.take("first");
    line.asks("SELECT 1");
    assert_eq!(line.snapshot().holders[0].queries, 1);
    line.pass(7);
    line.answers(b"I");
    line.give_back(held);
    line.pass(5);
    let _held = line.take("second");
    assert_eq!(line.snapshot().holders[0].queries, 0);
    line.asks("SELECT 1");
    line.asks("SELECT 2");
    line.pass(2);
    assert_eq!(line.snapshot().holders[0].queries, 2);
    line.answers(b"I");
    line.pass(2);
    line.answers(b"I");
    assert_eq!((line.millis("first"), line.millis("second")), ([7, 0, 0], [4, 0, 0]));
}

#[test]
fn what_the_pool_itself_asks_is_time_and_no_query() {
    let mut line = Line::new();
    let (operation, since) = (line.recorder.operation("pinged"), line.now());
    line.recorder.maintenance_started(&line.stats, operation, since);
    line.pass(2);
    line.asks("");
    line.pass(3);
    line.answers(b"I");
    let at = line.now();
    line.recorder.maintenance_finished(&line.stats, operation, since, at);
    line.recorder.connection_idle(&line.stats, at);
    line.pass(50);
    assert_eq!(line.millis("pinged"), [3, 2, 0], "all of it is use, and nothing after it is");
    assert_eq!(line.snapshot().operations[2].queries, 0);
}

#[test]
fn a_connection_that_is_closed_takes_nothing_along() {
    let mut line = Line::new();
    let (operation, since) = line.take("works");
    line.asks("SELECT pg_sleep(60)");
    line.pass(9);
    let (stats, at) = (&*line.stats, line.now());
    line.recorder.connection_returned(stats, operation, since, at);
    line.ledger.connection_closed(stats, crate::labels::CloseReason::Discarded);
    line.pass(100);
    assert_eq!(line.millis("works"), [9, 0, 0]);
}

#[test]
fn errors_are_counted_for_whoever_holds_the_connection_and_a_fatal_one_ends_it() {
    let mut line = Line::new();
    let error =
        |code: &str, severity: &str| message(b'E', format!("S{severity}\0V{severity}\0C{code}\0Mx\0\0").as_bytes());
    let held = line.take("works");
    line.asks("SELECT 1/0");
    line.eyes.received(&error("22012", "ERROR"));
    line.answers(b"I");
    assert!(!line.stats.wire().is_ended());
    line.give_back(held);
    line.eyes.received(&error("57P01", "FATAL"));
    assert!(line.stats.wire().is_ended());
    let counted: Vec<_> = line
        .snapshot()
        .query_errors
        .iter()
        .map(|e| (e.operation.to_string(), e.code.as_str().to_owned(), e.count))
        .collect();
    assert_eq!(counted, [("other".to_owned(), "57P01".to_owned(), 1), ("works".to_owned(), "22012".to_owned(), 1)]);
    let by_phase: Vec<_> =
        line.snapshot().errors.iter().map(|e| (e.phase, e.code.as_str().to_owned(), e.count)).collect();
    assert_eq!(by_phase, [(ErrorPhase::Query, "22012".to_owned(), 1), (ErrorPhase::Query, "57P01".to_owned(), 1)]);
}

#[test]
fn what_is_not_understood_is_said_once_and_the_bytes_are_counted_on() {
    let mut line = Line::new();
    let _held = line.take("works");
    line.asks("SELECT 1");
    line.pass(6);
    let before = line.snapshot().operations[2].wire_bytes;
    line.eyes.received(b"?nonsense");
    line.eyes.received(b"?nonsense");
    line.eyes.sent(b"?");
    line.pass(10);
    let snapshot = line.snapshot();
    assert_eq!(snapshot.wires_lost, 1);
    assert_eq!(line.stats.wire().status(), Status::Unread);
    assert_eq!(snapshot.holders[0].activity, None);
    assert_eq!(snapshot.operations[2].wire_bytes, [before[0] + 1, before[1] + 18]);
    assert_eq!(line.millis("works"), [6, 10, 0], "what is not known is idle");
}

#[test]
fn a_pool_that_is_gone_is_not_kept_by_its_wires() {
    let Line { ledger, recorder, mut eyes, .. } = Line::new();
    drop((ledger, recorder));
    assert!(eyes.account.ledger.upgrade().is_none());
    eyes.received(b"?");
}

/// How often queries of each kind ended, and after how many milliseconds.
fn times(line: &Line) -> Vec<(String, String, u64, u64)> {
    let snapshot = line.snapshot();
    let queries = snapshot.queries.iter().map(|query| {
        let error = query.error.as_ref().map_or("", |code| code.as_str()).to_owned();
        (query.summary.to_string(), error, query.durations.count(), query.durations.sum_nanos / 1_000_000)
    });
    queries.collect()
}

#[test]
fn queries_are_timed_by_what_they_are_and_by_the_error_they_ended_with() {
    let mut line = Line::new();
    let held = line.take("works");
    for (text, millis) in [("SELECT * FROM orders WHERE id = 1", 4), ("select x from orders", 6)] {
        line.asks(text);
        line.pass(millis);
        line.answers(b"I");
    }
    line.asks("UPDATE orders SET a = 'secret'");
    line.pass(3);
    line.eyes.received(&message(b'E', b"SERROR\0VERROR\0C40001\0\0"));
    line.pass(2);
    line.answers(b"I");
    // By name, and after it was prepared.
    line.eyes.sent(&[message(b'P', b"s1\0DELETE FROM carts\0\0\0"), message(b'S', b"")].concat());
    line.answers(b"I");
    for _ in 0..2 {
        let bind = message(b'B', b"\0s1\0\0\0\0\0\0\0");
        line.eyes.sent(&[bind, message(b'E', b"\0\0\0\0\0"), message(b'S', b"")].concat());
        line.pass(1);
        line.answers(b"I");
    }
    let done = [("SELECT orders", "", 2, 10), ("DELETE carts", "", 2, 2), ("UPDATE orders", "40001", 1, 5)];
    let expected = |done: &[(&str, &str, u64, u64)]| -> Vec<_> {
        done.iter().map(|(what, error, count, millis)| (what.to_string(), error.to_string(), *count, *millis)).collect()
    };
    assert_eq!(times(&line), expected(&done));
    // What is never answered, and what the pool itself asks.
    line.asks("COMMIT");
    line.pass(7);
    line.give_back(held);
    line.pass(1);
    drop(std::mem::replace(&mut line.eyes, ProtocolObserver::new(Arc::clone(&line.stats), &line.ledger, None, false)));
    assert_eq!(times(&line)[2..], expected(&[done[2], ("COMMIT", "io", 1, 8)]));
    // A connection that is gone has counted.
    line.ledger.connection_closed(&line.stats, crate::labels::CloseReason::Broken);
    assert_eq!(times(&line)[..2], expected(&done[..2]));
}
