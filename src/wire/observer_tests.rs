#![allow(clippy::unwrap_used)]

use std::time::Duration;

use super::*;
use crate::labels::{Activity, ErrorPhase};
use crate::telemetry::PoolSnapshot;
use crate::telemetry::clock::Clock;
use crate::telemetry::ledger::{Limits, Recorder};
use crate::telemetry::operations::OperationId;

/// A connection whose bytes the test feeds to the observer.
struct TestConnection {
    ledger: Arc<Ledger>,
    recorder: Recorder,
    mock_clock: Arc<quanta::Mock>,
    stats: Arc<ConnectionStats>,
    observer: ProtocolObserver,
}

fn caches() -> Arc<StatementCaches> {
    Arc::new(StatementCaches::new(true, |_| ()))
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
    [&[tag], &length[..], body].concat()
}

impl TestConnection {
    /// Returns an established connection, created for the operation `connects`.
    fn new() -> Self {
        let (clock, mock_clock) = Clock::mock();
        let ledger = Arc::new(Ledger::new("test".into(), Limits::for_tests(), clock));
        let recorder = Recorder::new(Arc::clone(&ledger));
        let stats = Arc::new(ConnectionStats::new(recorder.operation("connects"), recorder.now()));
        recorder.connection_creating(&stats);
        let mut observer = ProtocolObserver::new(Arc::clone(&stats), &ledger, None, false, caches());
        observer.sent(&[0, 0, 0, 10, 0, 3, 0, 0, b'u', 0]);
        observer.received(&[message(b'R', &[0; 4]), message(b'K', &[0, 0, 0, 7, 1, 2, 3, 4])].concat()).unwrap();
        mock_clock.increment(Duration::from_millis(40));
        observer.received(&message(b'Z', b"I")).unwrap();
        Self { ledger, recorder, mock_clock, stats, observer }
    }

    fn now(&self) -> Nanos {
        self.recorder.now()
    }

    fn advance(&self, millis: u64) {
        self.mock_clock.increment(Duration::from_millis(millis));
    }

    fn check_out(&self, operation: &str) -> (OperationId, Nanos) {
        let (operation, at) = (self.recorder.operation(operation), self.now());
        self.recorder.checkout_served(&self.stats, operation, at);
        (operation, at)
    }

    fn check_in(&self, (operation, since): (OperationId, Nanos)) {
        let (stats, at) = (&*self.stats, self.now());
        self.recorder.connection_returned(stats, operation, since, at);
        self.recorder.connection_idle(stats, at);
    }

    fn query(&mut self, query: &str) {
        self.observer.sent(&message(b'Q', &[query.as_bytes(), b"\0"].concat()));
    }

    fn ready(&mut self, status: &[u8]) {
        self.observer.received(&message(b'Z', status)).unwrap();
    }

    fn snapshot(&self) -> PoolSnapshot {
        self.ledger.snapshot()
    }

    /// Returns the milliseconds executing, idle, and idle in a transaction.
    fn millis(&self, operation: &str) -> [u64; 3] {
        let snapshot = self.snapshot();
        let found = snapshot.operations.iter().find(|totals| &*totals.name == operation).unwrap();
        found.activity_nanos.map(|nanos| (nanos + 500_000) / 1_000_000)
    }
}

#[test]
fn connecting_is_no_use_and_reports_the_backend_pid() {
    let connection = TestConnection::new();
    assert_eq!(connection.millis("connects"), [0, 0, 0]);
    assert_eq!(connection.stats.wire().backend(), Some(7));
    assert_eq!(connection.stats.wire().status(), SessionStatus::Idle);
    let connects = &connection.snapshot().operations[1];
    assert_eq!((&*connects.name, connects.wire_bytes, connects.queries), ("connects", [10, 28,], 0));
}

#[test]
fn each_moment_of_a_use_counts_as_one_activity() {
    let mut connection = TestConnection::new();
    let held = connection.check_out("works");
    connection.advance(10);
    assert_eq!(connection.millis("works"), [0, 10, 0]);
    connection.query("BEGIN");
    connection.advance(5);
    assert_eq!(connection.millis("works"), [5, 10, 0]);
    connection.ready(b"T");
    connection.advance(30);
    assert_eq!(connection.millis("works"), [5, 10, 30]);
    connection.query("SELECT 1/0");
    connection.advance(1);
    connection.ready(b"E");
    connection.advance(3);
    assert_eq!(connection.millis("works"), [6, 10, 33]);
    assert_eq!(connection.snapshot().holders[0].activity, Some(Activity::IdleInTransaction));
    connection.query("ROLLBACK");
    connection.advance(2);
    assert_eq!(connection.snapshot().holders[0].activity, Some(Activity::Executing));
    connection.ready(b"I");
    connection.advance(4);
    connection.check_in(held);
    connection.advance(1000);
    assert_eq!(connection.millis("works"), [8, 14, 33]);
    let works = &connection.snapshot().operations[2];
    assert_eq!((works.queries, works.queries_finished, works.use_nanos), (3, 3, 55_000_000));
}

#[test]
fn each_use_is_counted_separately() {
    let mut connection = TestConnection::new();
    let held = connection.check_out("first");
    connection.query("SELECT 1");
    assert_eq!(connection.snapshot().holders[0].queries, 1);
    connection.advance(7);
    connection.ready(b"I");
    connection.check_in(held);
    connection.advance(5);
    let _held = connection.check_out("second");
    assert_eq!(connection.snapshot().holders[0].queries, 0);
    connection.query("SELECT 1");
    connection.query("SELECT 2");
    connection.advance(2);
    assert_eq!(connection.snapshot().holders[0].queries, 2);
    connection.ready(b"I");
    connection.advance(2);
    connection.ready(b"I");
    assert_eq!((connection.millis("first"), connection.millis("second")), ([7, 0, 0], [4, 0, 0]));
}

#[test]
fn pool_queries_count_as_time_and_not_as_queries() {
    let mut connection = TestConnection::new();
    let (operation, since) = (connection.recorder.operation("pinged"), connection.now());
    connection.recorder.maintenance_started(&connection.stats, operation, since);
    connection.advance(2);
    connection.query("");
    connection.advance(3);
    connection.ready(b"I");
    let at = connection.now();
    connection.recorder.maintenance_finished(&connection.stats, operation, since, at);
    connection.recorder.connection_idle(&connection.stats, at);
    connection.advance(50);
    assert_eq!(connection.millis("pinged"), [3, 2, 0], "time after the ping does not count");
    assert_eq!(connection.snapshot().operations[2].queries, 0);
}

#[test]
fn closed_connection_keeps_its_counts() {
    let mut connection = TestConnection::new();
    let (operation, since) = connection.check_out("works");
    connection.query("SELECT pg_sleep(60)");
    connection.advance(9);
    let (stats, at) = (&*connection.stats, connection.now());
    connection.recorder.connection_returned(stats, operation, since, at);
    connection.ledger.connection_closed(stats, crate::labels::CloseReason::Discarded);
    connection.advance(100);
    assert_eq!(connection.millis("works"), [9, 0, 0]);
}

#[test]
fn errors_count_for_the_user_and_fatal_end_the_session() {
    let mut connection = TestConnection::new();
    let error =
        |code: &str, severity: &str| message(b'E', format!("S{severity}\0V{severity}\0C{code}\0Mx\0\0").as_bytes());
    let held = connection.check_out("works");
    connection.query("SELECT 1/0");
    connection.observer.received(&error("22012", "ERROR")).unwrap();
    connection.ready(b"I");
    assert!(!connection.stats.wire().is_ended());
    connection.check_in(held);
    connection.observer.received(&error("57P01", "FATAL")).unwrap();
    assert!(connection.stats.wire().is_ended());
    let counted: Vec<_> = connection
        .snapshot()
        .query_errors
        .iter()
        .map(|e| (e.operation.to_string(), e.code.as_str().to_owned(), e.count))
        .collect();
    assert_eq!(counted, [("other".to_owned(), "57P01".to_owned(), 1), ("works".to_owned(), "22012".to_owned(), 1)]);
    let by_phase: Vec<_> =
        connection.snapshot().errors.iter().map(|e| (e.phase, e.code.as_str().to_owned(), e.count)).collect();
    assert_eq!(by_phase, [(ErrorPhase::Query, "22012".to_owned(), 1), (ErrorPhase::Query, "57P01".to_owned(), 1)]);
}

#[test]
fn bytes_are_counted_after_a_protocol_error() {
    let mut connection = TestConnection::new();
    let _held = connection.check_out("works");
    connection.query("SELECT 1");
    connection.advance(6);
    let before = connection.snapshot().operations[2].wire_bytes;
    connection.observer.received(b"?\0\0\0\x08text").unwrap();
    connection.observer.received(b"?\0\0\0\x08text").unwrap();
    connection.observer.sent(b"?");
    connection.advance(10);
    let snapshot = connection.snapshot();
    assert_eq!(snapshot.wires_lost, 1);
    assert_eq!(connection.stats.wire().status(), SessionStatus::Unread);
    assert_eq!(snapshot.holders[0].activity, None);
    assert_eq!(snapshot.operations[2].wire_bytes, [before[0] + 1, before[1] + 18]);
    assert_eq!(connection.millis("works"), [6, 10, 0], "unknown time counts as idle");
}

#[test]
fn observer_does_not_keep_a_dropped_pool_alive() {
    let TestConnection { ledger, recorder, mut observer, .. } = TestConnection::new();
    drop((ledger, recorder));
    assert!(observer.handler.writer.ledger.upgrade().is_none());
    observer.received(b"?").unwrap();
}

/// Returns the summary, error, count and total milliseconds of the queries that ended.
fn times(connection: &TestConnection) -> Vec<(String, String, u64, u64)> {
    let snapshot = connection.snapshot();
    let queries = snapshot.queries.iter().map(|query| {
        let error = query.error.as_ref().map_or("", |code| code.as_str()).to_owned();
        (query.summary.to_string(), error, query.durations.count(), query.durations.sum_nanos / 1_000_000)
    });
    queries.collect()
}

#[test]
fn queries_are_timed_by_summary_and_error() {
    let mut connection = TestConnection::new();
    let held = connection.check_out("works");
    for (text, millis) in [("SELECT * FROM orders WHERE id = 1", 4), ("select x from orders", 6)] {
        connection.query(text);
        connection.advance(millis);
        connection.ready(b"I");
    }
    connection.query("UPDATE orders SET a = 'secret'");
    connection.advance(3);
    connection.observer.received(&message(b'E', b"SERROR\0VERROR\0C40001\0\0")).unwrap();
    connection.advance(2);
    connection.ready(b"I");
    // A prepared statement.
    connection.observer.sent(&[message(b'P', b"s1\0DELETE FROM carts\0\0\0"), message(b'S', b"")].concat());
    connection.ready(b"I");
    for _ in 0..2 {
        let bind = message(b'B', b"\0s1\0\0\0\0\0\0\0");
        connection.observer.sent(&[bind, message(b'E', b"\0\0\0\0\0"), message(b'S', b"")].concat());
        connection.advance(1);
        connection.ready(b"I");
    }
    let done = [("SELECT orders", "", 2, 10), ("DELETE carts", "", 2, 2), ("UPDATE orders", "40001", 1, 5)];
    let expected = |done: &[(&str, &str, u64, u64)]| -> Vec<_> {
        done.iter()
            .map(|(summary, error, count, millis)| (summary.to_string(), error.to_string(), *count, *millis))
            .collect()
    };
    assert_eq!(times(&connection), expected(&done));
    // A query that is never answered.
    connection.query("COMMIT");
    connection.advance(7);
    connection.check_in(held);
    connection.advance(1);
    drop(std::mem::replace(
        &mut connection.observer,
        ProtocolObserver::new(Arc::clone(&connection.stats), &connection.ledger, None, false, caches()),
    ));
    assert_eq!(times(&connection)[2..], expected(&[done[2], ("COMMIT", "io", 1, 8)]));
    // The counts outlive the connection.
    connection.ledger.connection_closed(&connection.stats, crate::labels::CloseReason::Broken);
    assert_eq!(times(&connection)[..2], expected(&done[..2]));
}
