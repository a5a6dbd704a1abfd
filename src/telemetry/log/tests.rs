//! Counts the lines of ten minutes of each event.
#![allow(clippy::unwrap_used)]

use std::io;

use tracing::Level;

use super::log_lines::{Count, LogLines};
use super::*;
use crate::labels::Phase;
use crate::telemetry::queries::QueryId;

/// How often each event happens.
const PERIOD: Duration = Duration::from_millis(100);
const EVENTS: u64 = 6000;

/// The lines of ten minutes: intervals of 1, 2, 4, … and 256 s, and the first one.
const MAX_LINES: u64 = 10;

fn verdict(cause: Cause) -> Verdict {
    Verdict {
        cause,
        lasting: PERIOD,
        operation: None,
        call_site: None,
        finding: "found".to_owned(),
        evidence: Vec::new(),
        advice: String::new(),
        consequences: Vec::new(),
        sample_interval: PERIOD,
    }
}

type LogEvent = fn(Log<'_>, &(dyn Error + 'static));

/// Logs an event again and again, and once more after a quiet time.
fn repeat(event: LogEvent) -> LogLines {
    let (clock, mock) = Clock::mock();
    let (limiters, lines) = (Limiters::default(), LogLines::default());
    let log = Log::new("shop", &limiters, &clock);
    let error = io::Error::other("no");
    let _capture = lines.capture();
    for _ in 0..EVENTS {
        event(log, &error);
        mock.increment(PERIOD);
    }
    mock.increment(Duration::from_secs(300));
    event(log, &error);
    lines
}

#[test]
fn repeated_events_are_counted_together() {
    let events: &[(Level, &str, LogEvent)] = &[
        (Level::WARN, "checkout timed out: no", |log, error| {
            log.checkout_timed_out((OperationId::OTHER, "other", Location::caller(), None), &error);
        }),
        (Level::WARN, "slow checkout", |log, _| {
            log.checkout_slow((OperationId::OTHER, "other", Location::caller()), PERIOD, (Phase::Queue, PERIOD));
        }),
        (Level::WARN, "slow query", |log, _| {
            log.query_slow((QueryId::OTHER, "SELECT"), "other", None, PERIOD, Some(ErrorCode::IO));
        }),
        (Level::WARN, "connection error", |log, error| log.connection_error(ErrorPhase::Connect, ErrorCode::IO, error)),
        (Level::WARN, "connection was returned dirty", |log, _| log.connection_dirty("a", None, Dirt::ALL[0])),
        (Level::WARN, "connection was busy until", |log, _| log.kept_busy("a", None)),
        (Level::WARN, "the server has not let go", |log, _| log.close_timed_out("a")),
        (Level::WARN, "suspected leak", |log, _| log.leak_suspected((OperationId::OTHER, "other"), None, PERIOD)),
        (Level::INFO, "no leak: the suspected connection is", |log, _| log.suspect_used("a", None, PERIOD)),
        (Level::INFO, "no leak: the suspected connection was", |log, _| log.suspect_returned("a", None, PERIOD)),
        (Level::WARN, "protocol of a connection", |log, _| log.wire_lost("unknown")),
        (Level::INFO, "operation failed; retrying", |log, _| log.retrying("a", ErrorCode::IO, 1, PERIOD)),
        (Level::WARN, "operation failed; not", |log, _| log.retry_exhausted("a", ErrorCode::IO, GiveUp::Budget, 2)),
    ];
    for (level, message, event) in events {
        let lines = repeat(*event);
        let Count { lines: count, suppressed } = lines.count(*level, message);
        assert_eq!((count, count + suppressed), (MAX_LINES + 1, EVENTS + 1), "{message}");
        assert_eq!(lines.total(), count, "{message}");
    }
}

#[test]
fn lasting_condition_is_logged_once() {
    let events: &[LogEvent] = &[
        |log, error| log.connecting_suspended(ConnectFailure::ServerDown, ErrorCode::IO, error),
        |log, error| log.server_view_failed(error),
        |log, _| log.diagnosed(&verdict(Cause::ServerDown)),
    ];
    for event in events {
        assert_eq!(repeat(*event).total(), 1);
    }
    // That a pool is healthy from the start is no news.
    assert_eq!(repeat(|log, _| log.diagnosed(&verdict(Cause::Healthy))).total(), 0);
    assert_eq!(repeat(|log, _| log.server_view_succeeded()).total(), 0);
    assert_eq!(repeat(|log, _| log.connecting_resumed(PERIOD)).total(), 0);
}

#[test]
fn unknown_statements_are_logged_once() {
    assert_eq!(repeat(|log, _| log.statement_unknown(ErrorCode::new("26000"))).total(), 1);
}

#[test]
fn flapping_condition_is_counted_together() {
    let events: &[(&str, &str, LogEvent)] = &[
        ("connecting failed", "connecting succeeded again", |log, error| {
            log.connecting_suspended(ConnectFailure::ServerDown, ErrorCode::IO, error);
            log.connecting_resumed(PERIOD);
        }),
        ("querying the server's state failed", "querying the server's state succeeded again", |log, error| {
            log.server_view_failed(error);
            log.server_view_succeeded();
        }),
        ("diagnosis: found", "diagnosis: found", |log, _| {
            log.diagnosed(&verdict(Cause::ServerDown));
            log.diagnosed(&verdict(Cause::Healthy));
        }),
    ];
    for (begins, ends, event) in events {
        let lines = repeat(*event);
        let Count { lines: begun, suppressed } = lines.count(Level::WARN, begins);
        assert_eq!((begun, begun + suppressed), (MAX_LINES + 1, EVENTS + 1), "{begins}");
        assert_eq!((lines.count(Level::INFO, ends).lines, lines.total()), (begun, 2 * begun), "{begins}");
    }
}

/// Each leak is reported once, so those of another operation must not hide it.
#[test]
fn leaks_of_each_operation_are_logged() {
    let lines = repeat(|log, _| {
        log.leak_suspected((OperationId::from_index(1), "list_orders"), None, PERIOD);
        log.leak_suspected((OperationId::from_index(2), "add_order"), None, PERIOD);
    });
    assert_eq!(lines.count(Level::WARN, "suspected leak").lines, 2 * (MAX_LINES + 1));
}
