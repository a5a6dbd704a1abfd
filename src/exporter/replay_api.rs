//! Answers the API from a recording, as it would have been answered at one of its moments.
//!
//! The parameter `at` selects the moment; without it, it is the beginning of the problem. A stream begins there and goes on
//! by a recorded second each second, until the end of the recording.

use std::ops::ControlFlow;
use std::sync::Arc;

use futures_util::stream;
use hyper::body::Bytes;
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Duration, Instant, sleep_until};

use super::body::Events;
use super::history_api::{self, Columns, EventId, HistoryError, MAX_RESPONSE_POINTS, Row, SINCE, unix_seconds};
use super::limits::{MAX_STREAM_TIME, MAX_VIEWERS};
use super::pools_api::PoolsError;
use super::query::{self, Parameter};
use super::stream::{Delta, PoolLine, RETRY, SPARKLINE_POINTS, Snapshot, StreamError, event};
use crate::diagnosis::recording::{RecordedPool, Recording};
use crate::telemetry::history::{MAX_POINTS, Point, PoolPoints};
use crate::text::printable;

const AT: Parameter = Parameter { name: "at", placeholder: "SECONDS", absent: "for the beginning of the problem" };

/// The verdicts that are listed at most.
const MAX_CHANGES: usize = 100;

/// The time in which a stream goes on by a recorded second.
const PACE: Duration = Duration::from_secs(1);

/// A recording that exporters serve.
#[derive(Debug)]
pub(super) struct Replay {
    epoch: u64,
    recording: Recording,
    points: PoolPoints,
    about: ReplayJson,
    permits: Arc<Semaphore>,
    trace_url: Option<String>,
}

/// What is known about the recording as a whole. Times are in seconds since the Unix epoch.
#[derive(Clone, Debug, Serialize)]
pub(super) struct ReplayJson {
    begin: f64,
    end: f64,
    /// When the file was begun, and why; `None` if it is not an incident file.
    incident: Option<ChangeJson>,
    /// Where and why reading ended before the end of the recording.
    truncation: Option<String>,
    /// The version of the library that wrote it.
    library_version: String,
    /// The causes of the verdicts, and since when.
    changes: Vec<ChangeJson>,
}

#[derive(Clone, Debug, Serialize)]
struct ChangeJson {
    time: f64,
    cause: String,
}

impl Replay {
    pub(super) fn new(recording: Recording, trace_url: Option<String>) -> Self {
        let points = recording.points();
        let about = ReplayJson::new(&recording, &points);
        let permits = Arc::new(Semaphore::new(MAX_VIEWERS));
        Self { epoch: fastrand::u64(..), recording, points, about, permits, trace_url }
    }

    /// Returns the index of the last second at or before a moment, else of the first one.
    fn index(&self, at: Option<&str>) -> Result<usize, String> {
        let Some(at) = at else { return Ok(self.recording.incident_second()) };
        let millis = history_api::unix_millis(AT.name, at)?;
        // Times are shown in thousandths, and floats may be a little less.
        let after = self.points.points.partition_point(|point| point.unix_millis <= millis.saturating_add(1));
        Ok(after.saturating_sub(1))
    }

    fn is_selected(&self, pool: Option<&str>) -> bool {
        pool.is_none_or(|pool| *printable(pool) == *printable(&self.recording.header.pool))
    }

    /// Returns the points up to an index.
    fn until(&self, index: usize, skip_millis: Option<u64>, limit: usize) -> PoolPoints {
        let end = (index + 1).min(self.points.points.len());
        self.points.within(0..end, |point| skip_millis.is_some_and(|since| point.unix_millis <= since), limit)
    }

    fn id(&self, index: usize) -> EventId {
        EventId { epoch: self.epoch, tick: index as u64 + 1 }
    }

    fn snapshot(&self, index: usize, pool: Option<&str>) -> Bytes {
        let is_detailed = pool.is_some() && self.is_selected(pool);
        let (line, history) = (self.until(index, None, SPARKLINE_POINTS), self.until(index, None, MAX_POINTS));
        let snapshot = Snapshot {
            id: self.id(index).to_string(),
            version: env!("CARGO_PKG_VERSION"),
            trace_url: self.trace_url.as_deref(),
            pools: PoolLine::new(&line).into_iter().collect(),
            pool: is_detailed.then(|| self.recording.pool(index)).flatten(),
            history: is_detailed.then(|| Columns::new(&history)),
            replay: Some(&self.about),
        };
        let mut bytes = RETRY.to_vec();
        bytes.extend(event("snapshot", Some(self.id(index)), &json(&snapshot)));
        bytes.into()
    }

    /// Returns the events of a second: the pool in detail if it is selected, and the point.
    fn second(&self, index: usize, pool: Option<&str>) -> Option<Bytes> {
        let point = self.points.points.get(index)?;
        let mut bytes = Vec::new();
        if pool.is_some()
            && self.is_selected(pool)
            && let Some(pool) = self.recording.pool(index)
        {
            bytes.extend(event("pool", None, &json(&pool)));
        }
        let delta = Delta { pools: vec![Row::new(&self.points, point)] };
        bytes.extend(event("delta", Some(self.id(index)), &json(&delta)));
        Some(bytes.into())
    }
}

/// Encodes a value whose maps have strings as keys.
fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

impl ReplayJson {
    fn new(recording: &Recording, points: &PoolPoints) -> Self {
        let time = |point: Option<&Arc<Point>>| point.map_or(0.0, |point| unix_seconds(point.unix_millis));
        let at = |seconds: f64| unix_seconds(recording.unix_millis(seconds));
        let incident = recording.header.incident.as_ref();
        let mut changes: Vec<ChangeJson> = Vec::new();
        for (second, point) in recording.seconds.iter().zip(&points.points) {
            let Some(verdict) = &second.verdict else { continue };
            if changes.last().is_none_or(|last| last.cause != verdict.cause) && changes.len() < MAX_CHANGES {
                changes.push(ChangeJson { time: unix_seconds(point.unix_millis), cause: verdict.cause.clone() });
            }
        }
        Self {
            begin: time(points.points.first()),
            end: time(points.points.last()),
            incident: incident
                .map(|incident| ChangeJson { time: at(incident.at_seconds), cause: incident.cause.clone() }),
            truncation: recording.truncation.as_ref().map(ToString::to_string),
            library_version: recording.header.library_version.clone(),
            changes,
        }
    }
}

/// The endpoints of one bound exporter.
#[derive(Debug)]
pub(super) struct ReplayApi {
    replay: Arc<Replay>,
    closing: watch::Sender<bool>,
}

impl ReplayApi {
    pub(super) fn new(replay: Arc<Replay>) -> Self {
        Self { replay, closing: watch::Sender::new(false) }
    }

    /// Ends all streams.
    pub(super) fn begin_shutdown(&self) {
        self.closing.send_replace(true);
    }

    pub(super) fn pools(&self, query: &str) -> Result<Vec<u8>, PoolsError> {
        #[derive(Serialize)]
        struct List<'a> {
            pools: Vec<RecordedPool<'a>>,
        }
        let [pool, at] = query::parse(query, [query::POOL, AT]).map_err(PoolsError::Query)?;
        let index = self.replay.index(at.as_deref()).map_err(PoolsError::Query)?;
        let recorded = self.replay.recording.pool(index).filter(|_| self.replay.is_selected(pool.as_deref()));
        serde_json::to_vec(&List { pools: recorded.into_iter().collect() }).map_err(|_| PoolsError::Encoding)
    }

    /// Returns the points up to a moment; all of them without `at`.
    pub(super) fn history(&self, query: &str) -> Result<Vec<u8>, HistoryError> {
        let [pool, since, at] = query::parse(query, [query::POOL, SINCE, AT]).map_err(HistoryError::Query)?;
        let since = since.map(|since| history_api::unix_millis(SINCE.name, &since));
        let since = since.transpose().map_err(HistoryError::Query)?;
        let replay = &self.replay;
        let last = replay.points.points.len().saturating_sub(1);
        let index = at.map_or(Ok(last), |at| replay.index(Some(&at))).map_err(HistoryError::Query)?;
        let points = replay.is_selected(pool.as_deref()).then(|| replay.until(index, since, MAX_RESPONSE_POINTS));
        let points: Vec<_> = points.into_iter().collect();
        history_api::encode(replay.id(index), &points).map_err(|_| HistoryError::Encoding)
    }

    /// Opens a stream. `last_event_id` is the ID of the last event that the client has.
    pub(super) fn open(&self, query: &str, last_event_id: Option<&str>) -> Result<Events, StreamError> {
        let replay = &self.replay;
        let [pool, at] = query::parse(query, [query::POOL, AT]).map_err(StreamError::Query)?;
        let index = replay.index(at.as_deref()).map_err(StreamError::Query)?;
        let permit = Arc::clone(&replay.permits).try_acquire_owned().map_err(|_| StreamError::TooManyViewers)?;
        let last = last_event_id.and_then(|id| id.parse::<EventId>().ok()).filter(|id| id.epoch == replay.epoch);
        let last = last.and_then(|id| usize::try_from(id.tick).ok()).filter(|tick| *tick <= replay.points.points.len());
        let (first, next) = match last {
            // The tick of a second is its index and one.
            Some(tick) => (Bytes::from_static(RETRY), tick),
            None => (replay.snapshot(index, pool.as_deref()), index + 1),
        };
        let now = Instant::now();
        let viewer = Viewer {
            replay: Arc::clone(replay),
            pool,
            next,
            due: now + PACE,
            until: now + MAX_STREAM_TIME,
            closing: self.closing.subscribe(),
            _permit: permit,
        };
        let events = stream::unfold((viewer, Some(first)), |(mut viewer, first)| async move {
            let event = match first {
                Some(first) => first,
                None => viewer.next().await?,
            };
            Some((event, (viewer, None)))
        });
        Ok(Box::pin(events))
    }
}

/// A client of a stream.
#[derive(Debug)]
struct Viewer {
    replay: Arc<Replay>,
    pool: Option<String>,
    /// The index of the next second, and when it is due.
    next: usize,
    due: Instant,
    until: Instant,
    closing: watch::Receiver<bool>,
    _permit: OwnedSemaphorePermit,
}

impl Viewer {
    /// Waits until the next second is due, and returns its events; `None` at the end of the stream.
    async fn next(&mut self) -> Option<Bytes> {
        let (due, until) = (self.due, self.until);
        let waited = tokio::select! {
            biased;
            _ = self.closing.wait_for(|closing| *closing) => ControlFlow::Break(()),
            () = sleep_until(until) => ControlFlow::Break(()),
            () = sleep_until(due) => ControlFlow::Continue(()),
        };
        if waited.is_break() {
            return None;
        }
        // A client that did not read continues at this pace, and misses nothing.
        self.due = Instant::now() + PACE;
        let events = self.replay.second(self.next, self.pool.as_deref())?;
        self.next += 1;
        Some(events)
    }
}
