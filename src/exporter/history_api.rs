//! Answers `/api/v1/history`: the last 15 minutes of each pool, as JSON.
//!
//! The same fields describe a point of the stream ([`Row`]) and the history ([`Columns`]), where each is a list. New fields
//! go to the end of their object; none is renamed or removed.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use super::blocking::{BlockingLimiter, JobError};
use super::query::{self, Parameter};
use crate::labels::{Activity, ErrorCode, Outcome};
use crate::telemetry::history::{History, Point, PoolPoints};
use crate::telemetry::log::Limiter;
use crate::text::printable;

/// The points of a response. It bounds the size of a response to some megabytes, however many pools there are.
pub(super) const MAX_RESPONSE_POINTS: usize = 20_000;

pub(super) const SINCE: Parameter = Parameter { name: "since", placeholder: "SECONDS", absent: "for all that is kept" };

/// Why a request has no history.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum HistoryError {
    /// The query is invalid.
    Query(String),
    /// The response could not be built.
    Job(JobError),
    /// The response could not be encoded as JSON.
    Encoding,
}

/// Reads the history of the pools of a collector.
#[derive(Debug)]
pub(super) struct HistoryApi {
    history: Arc<History>,
    limiter: BlockingLimiter,
}

impl HistoryApi {
    pub(super) fn new(history: Arc<History>, limiter: BlockingLimiter) -> Self {
        Self { history, limiter }
    }

    /// Returns the points that `query` selects, as JSON.
    ///
    /// # Cancel safety
    ///
    /// A response that is being built is completed, and counts against the limit until then.
    pub(super) async fn read(&self, query: &str) -> Result<Vec<u8>, HistoryError> {
        static FAILURES: Limiter = Limiter::new();
        let [pool, since] = query::parse(query, [query::POOL, SINCE]).map_err(HistoryError::Query)?;
        let since_millis =
            since.map(|since| unix_millis(SINCE.name, &since)).transpose().map_err(HistoryError::Query)?;
        let history = Arc::clone(&self.history);
        let read = self.limiter.run(move || {
            let pool = pool.as_deref().map(printable);
            let is_selected = |name: &str| pool.as_deref().is_none_or(|pool| pool == name);
            let is_old = |point: &Point| since_millis.is_some_and(|since| point.unix_millis <= since);
            let id = EventId { epoch: history.epoch(), tick: history.latest() };
            encode(id, &history.select(is_selected, is_old, limit))
        });
        match read.await {
            Ok(Ok(json)) => Ok(json),
            Ok(Err(error)) => {
                if let Some(suppressed) = FAILURES.pass_now() {
                    tracing::error!(%error, suppressed, "could not encode the history as JSON");
                }
                Err(HistoryError::Encoding)
            }
            Err(error) => Err(HistoryError::Job(error)),
        }
    }
}

/// Encodes the points of pools as of this event.
pub(super) fn encode(id: EventId, pools: &[PoolPoints]) -> serde_json::Result<Vec<u8>> {
    let pools = pools.iter().map(Columns::new).collect();
    serde_json::to_vec(&HistoryJson { id: id.to_string(), resolution_seconds: 1, pools })
}

/// Returns the limit of points of each of several pools.
pub(super) fn limit(pools: usize) -> usize {
    MAX_RESPONSE_POINTS / pools.max(1)
}

/// Parses seconds since the Unix epoch, the value of the parameter `name`.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "casts of floats saturate")]
pub(super) fn unix_millis(name: &str, value: &str) -> Result<u64, String> {
    let seconds = value.parse::<f64>().ok().filter(|seconds| seconds.is_finite() && *seconds >= 0.0);
    let seconds = seconds
        .ok_or_else(|| format!("{name} is not a number; give seconds since the Unix epoch, as in {name}=1764591600"))?;
    Ok((seconds * 1e3) as u64)
}

/// The position of a stream: a tick of one history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EventId {
    pub(super) epoch: u64,
    pub(super) tick: u64,
}

impl std::fmt::Display for EventId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}-{}", self.epoch, self.tick)
    }
}

impl std::str::FromStr for EventId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (epoch, tick) = text.split_once('-').ok_or(())?;
        Ok(Self { epoch: u64::from_str_radix(epoch, 16).map_err(drop)?, tick: tick.parse().map_err(drop)? })
    }
}

#[derive(Debug, Serialize)]
struct HistoryJson<'a> {
    id: String,
    resolution_seconds: u8,
    pools: Vec<Columns<'a>>,
}

/// Rounds to a thousandth, which is enough for a plot.
fn rounded(value: f32) -> f64 {
    (f64::from(value) * 1e3).round() / 1e3
}

/// Rounds seconds to microseconds.
fn precise(seconds: f32) -> f64 {
    (f64::from(seconds) * 1e6).round() / 1e6
}

#[allow(clippy::cast_precision_loss, reason = "exact for the next 285,000 years")]
pub(super) fn unix_seconds(millis: u64) -> f64 {
    millis as f64 / 1e3
}

/// The mean number of connections held, by activity.
#[derive(Debug, Serialize)]
pub(super) struct Held<T> {
    executing: T,
    idle: T,
    idle_in_transaction: T,
}

impl<T> Held<T> {
    fn new(mut of: impl FnMut(Activity) -> T) -> Self {
        Self {
            executing: of(Activity::Executing),
            idle: of(Activity::Idle),
            idle_in_transaction: of(Activity::IdleInTransaction),
        }
    }
}

fn held(held: &[f32; Activity::COUNT]) -> Held<f64> {
    Held::new(|activity| rounded(held[activity.index()]))
}

/// A point of one pool.
#[derive(Debug, Serialize)]
pub(super) struct Row<'a> {
    name: &'a str,
    time: f64,
    seconds: f64,
    used: u16,
    idle: u16,
    creating: u16,
    closing: u16,
    max: u16,
    waiting: u16,
    in_flight: u16,
    suspected_leaks: u16,
    oldest_wait_seconds: f64,
    wait_p50_seconds: Option<f64>,
    wait_p99_seconds: Option<f64>,
    outcomes: BTreeMap<&'static str, u32>,
    retries: u32,
    held: Held<f64>,
    operations: Vec<OperationRow<'a>>,
    errors: Vec<ErrorRow<'a>>,
    server_slots: Option<u16>,
    server_slots_left: Option<u16>,
    cause: Option<&'static str>,
    kind: &'static str,
}

#[derive(Debug, Serialize)]
struct OperationRow<'a> {
    name: &'a str,
    #[serde(flatten)]
    held: Held<f64>,
}

#[derive(Debug, Serialize)]
struct ErrorRow<'a> {
    sqlstate: &'a str,
    count: u32,
}

impl<'a> Row<'a> {
    pub(super) fn new(pool: &'a PoolPoints, point: &'a Point) -> Self {
        let operations = point
            .operations
            .iter()
            .map(|operation| OperationRow { name: pool.operation_name(operation), held: held(&operation.held) });
        Self {
            name: &pool.name,
            time: unix_seconds(point.unix_millis),
            seconds: rounded(point.seconds),
            used: point.used,
            idle: point.idle,
            creating: point.creating,
            closing: point.closing,
            max: point.max,
            waiting: point.waiting,
            in_flight: point.in_flight,
            suspected_leaks: point.suspected_leaks,
            oldest_wait_seconds: precise(point.oldest_wait),
            wait_p50_seconds: point.wait_p50.map(precise),
            wait_p99_seconds: point.wait_p99.map(precise),
            outcomes: Outcome::ALL.iter().map(|outcome| (outcome.as_str(), point.outcomes[outcome.index()])).collect(),
            retries: point.retries,
            held: held(&point.held),
            operations: operations.collect(),
            errors: point
                .errors
                .iter()
                .map(|(code, count)| ErrorRow { sqlstate: code.as_str(), count: *count })
                .collect(),
            server_slots: point.slots.map(|slots| slots.total),
            server_slots_left: point.slots.map(|slots| slots.left),
            cause: point.cause.map(|cause| cause.as_str()),
            kind: pool.kind.as_str(),
        }
    }
}

/// The points of one pool.
#[derive(Debug, Serialize)]
pub(super) struct Columns<'a> {
    name: &'a str,
    /// Whether older points were left out because of the limit.
    truncated: bool,
    time: Vec<f64>,
    seconds: Vec<f64>,
    used: Vec<u16>,
    idle: Vec<u16>,
    creating: Vec<u16>,
    closing: Vec<u16>,
    max: Vec<u16>,
    waiting: Vec<u16>,
    in_flight: Vec<u16>,
    suspected_leaks: Vec<u16>,
    oldest_wait_seconds: Vec<f64>,
    wait_p50_seconds: Vec<Option<f64>>,
    wait_p99_seconds: Vec<Option<f64>>,
    outcomes: BTreeMap<&'static str, Vec<u32>>,
    retries: Vec<u32>,
    held: Held<Vec<f64>>,
    operations: Vec<OperationColumns<'a>>,
    errors: Vec<ErrorColumn>,
    server_slots: Vec<Option<u16>>,
    server_slots_left: Vec<Option<u16>>,
    cause: Vec<Option<&'static str>>,
    kind: &'static str,
}

#[derive(Debug, Serialize)]
struct OperationColumns<'a> {
    name: &'a str,
    #[serde(flatten)]
    held: Held<Vec<f64>>,
}

#[derive(Debug, Serialize)]
struct ErrorColumn {
    sqlstate: String,
    count: Vec<u32>,
}

impl<'a> Columns<'a> {
    pub(super) fn new(pool: &'a PoolPoints) -> Self {
        fn column<T>(points: &[Arc<Point>], of: impl Fn(&Point) -> T) -> Vec<T> {
            points.iter().map(|point| of(point)).collect()
        }
        let points = &*pool.points;
        let outcomes = Outcome::ALL
            .iter()
            .map(|outcome| (outcome.as_str(), column(points, |point| point.outcomes[outcome.index()])));
        Self {
            name: &pool.name,
            truncated: pool.is_truncated,
            time: column(points, |point| unix_seconds(point.unix_millis)),
            seconds: column(points, |point| rounded(point.seconds)),
            used: column(points, |point| point.used),
            idle: column(points, |point| point.idle),
            creating: column(points, |point| point.creating),
            closing: column(points, |point| point.closing),
            max: column(points, |point| point.max),
            waiting: column(points, |point| point.waiting),
            in_flight: column(points, |point| point.in_flight),
            suspected_leaks: column(points, |point| point.suspected_leaks),
            oldest_wait_seconds: column(points, |point| precise(point.oldest_wait)),
            wait_p50_seconds: column(points, |point| point.wait_p50.map(precise)),
            wait_p99_seconds: column(points, |point| point.wait_p99.map(precise)),
            outcomes: outcomes.collect(),
            retries: column(points, |point| point.retries),
            held: Held::new(|activity| column(points, |point| rounded(point.held[activity.index()]))),
            operations: operation_columns(pool),
            errors: error_columns(points),
            server_slots: column(points, |point| point.slots.map(|slots| slots.total)),
            server_slots_left: column(points, |point| point.slots.map(|slots| slots.left)),
            cause: column(points, |point| point.cause.map(|cause| cause.as_str())),
            kind: pool.kind.as_str(),
        }
    }
}

/// Returns a column for each operation that a point has, those first that held most. An operation that a point does not
/// have is zero there.
fn operation_columns(pool: &PoolPoints) -> Vec<OperationColumns<'_>> {
    let mut columns: BTreeMap<&str, (f32, Held<Vec<f64>>)> = BTreeMap::new();
    for (index, point) in pool.points.iter().enumerate() {
        for operation in &point.operations {
            let zeros = || (0.0, Held::new(|_| vec![0.0; pool.points.len()]));
            let (total, column) = columns.entry(pool.operation_name(operation)).or_insert_with(zeros);
            *total += operation.held.iter().sum::<f32>();
            let Held { executing, idle, idle_in_transaction } = held(&operation.held);
            column.executing[index] = executing;
            column.idle[index] = idle;
            column.idle_in_transaction[index] = idle_in_transaction;
        }
    }
    let mut columns: Vec<_> = columns.into_iter().collect();
    columns.sort_by(|(_, (a, _)), (_, (b, _))| b.total_cmp(a));
    columns.into_iter().map(|(name, (_, held))| OperationColumns { name, held }).collect()
}

/// Returns a column for each error code that a point has.
fn error_columns(points: &[Arc<Point>]) -> Vec<ErrorColumn> {
    let mut columns: BTreeMap<ErrorCode, Vec<u32>> = BTreeMap::new();
    for (index, point) in points.iter().enumerate() {
        for (code, count) in &point.errors {
            columns.entry(*code).or_insert_with(|| vec![0; points.len()])[index] = *count;
        }
    }
    columns.into_iter().map(|(code, count)| ErrorColumn { sqlstate: code.as_str().to_owned(), count }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_seconds_of_the_unix_epoch() {
        assert_eq!(unix_millis("since", "1764591600.5"), Ok(1_764_591_600_500));
        assert_eq!(unix_millis("since", "0"), Ok(0));
        for wrong in ["", "yesterday", "-1", "NaN", "inf", "2026-12-01T00:00:00Z"] {
            assert!(unix_millis("since", wrong).unwrap_err().starts_with("since is not a number"), "{wrong}");
        }
    }

    #[test]
    fn event_ids_are_read_back() {
        let id = EventId { epoch: u64::MAX - 7, tick: 42 };
        assert_eq!(id.to_string().parse(), Ok(id));
        for wrong in ["", "-", "1", "x-1", "1-x", "1-2-3", "fffffffffffffffff-1"] {
            assert_eq!(wrong.parse::<EventId>(), Err(()), "{wrong}");
        }
    }
}
