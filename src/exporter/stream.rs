//! Answers `/api/v1/stream`: the state of the pools as server-sent events, once per second.
//!
//! The first event is a `snapshot`; then each second a `delta` has the new point of each pool. With `?pool=NAME`, a `pool`
//! event before each delta has the verdict, the holders and the waiters of that pool, and the snapshot its history.
//!
//! Events are encoded once for all viewers. A viewer that is behind, or reconnects with `Last-Event-ID`, receives the deltas
//! that it missed from the history; after a restart of the process, or if that were too much, a snapshot. All of this is
//! encoded on blocking threads, within the limit of `/api/v1/pools`.
//!
//! What a viewer may cost is bounded: at most [`MAX_VIEWERS`] streams are open, an event is produced only once the one
//! before was written, and a client that stops reading is dropped as with any other response. A stream ends after
//! [`MAX_STREAM_TIME`], so that a client is authorized again.

use std::fmt::Write as _;
use std::sync::Arc;

use futures_util::stream;
use hyper::body::Bytes;
use serde::Serialize;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep_until};

use super::blocking::{BlockingLimiter, JobError};
use super::body::Events;
use super::history_api::{self, Columns, EventId, Row, unix_seconds};
use super::limits::{MAX_STREAM_TIME, MAX_VIEWERS};
use super::pools_api::PoolJson;
use super::query;
use super::replay_api::ReplayJson;
use crate::telemetry::Collector;
use crate::telemetry::history::{History, MAX_POINTS, Point, PoolPoints};
use crate::text::printable;

/// The holders, and the waiters, of an event: the oldest of them.
pub(super) const MAX_STREAMED: usize = 200;

/// The points of missed deltas that are sent; a viewer that missed more receives a snapshot, which is smaller. A point takes
/// about a kilobyte.
const MAX_MISSED_POINTS: u64 = 2000;

/// The points of the line that a snapshot has for each pool.
pub(super) const SPARKLINE_POINTS: usize = 60;

/// Why a request has no stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum StreamError {
    /// The query is invalid.
    Query(String),
    /// There are [`MAX_VIEWERS`] already.
    TooManyViewers,
    /// The first event could not be built.
    Job(JobError),
}

/// The streams of one exporter and its clones, which share the limits.
#[derive(Debug)]
pub(super) struct Viewers {
    collector: Collector,
    history: Arc<History>,
    permits: Arc<Semaphore>,
    limiter: BlockingLimiter,
    /// The template of links to traces, if there is one.
    trace_url: Option<String>,
    latest: Mutex<Latest>,
    details: Mutex<Details>,
}

/// The delta of the last tick.
#[derive(Debug, Default)]
struct Latest {
    tick: u64,
    delta: Bytes,
}

/// The `pool` events of the last tick.
#[derive(Debug, Default)]
struct Details {
    tick: u64,
    pools: Vec<(Arc<str>, Bytes)>,
}

/// The streams of one bound exporter.
#[derive(Debug)]
pub(super) struct StreamApi {
    viewers: Arc<Viewers>,
    closing: watch::Sender<bool>,
}

impl StreamApi {
    pub(super) fn new(viewers: Arc<Viewers>) -> Self {
        Self { viewers, closing: watch::Sender::new(false) }
    }

    /// Ends all streams: they would delay the shutdown.
    pub(super) fn begin_shutdown(&self) {
        self.closing.send_replace(true);
    }

    /// Opens a stream. `last_event_id` is the ID of the last event that the client has.
    pub(super) async fn open(&self, query: &str, last_event_id: Option<&str>) -> Result<Events, StreamError> {
        let [pool] = query::parse(query, [query::POOL]).map_err(StreamError::Query)?;
        let pool = pool.map(|pool| Arc::from(&*printable(&pool)));
        let permits = Arc::clone(&self.viewers.permits);
        let permit = permits.try_acquire_owned().map_err(|_| StreamError::TooManyViewers)?;
        let last = last_event_id.and_then(|id| id.parse::<EventId>().ok());
        let last = last.filter(|id| id.epoch == self.viewers.history.epoch()).map(|id| id.tick);
        let viewers = Arc::clone(&self.viewers);
        let ticks = viewers.history.subscribe();
        let mut viewer = Viewer {
            viewers,
            pool,
            last: last.unwrap_or(0),
            ticks,
            closing: self.closing.subscribe(),
            _permit: permit,
        };
        let first = match last.filter(|last| *last <= viewer.viewers.history.latest()) {
            // What was missed follows with the next tick.
            Some(_) => Bytes::from_static(RETRY),
            None => viewer.snapshot().await.map_err(StreamError::Job)?,
        };
        let until = Instant::now() + MAX_STREAM_TIME;
        let events = stream::unfold((viewer, Some(first)), move |(mut viewer, first)| async move {
            let event = match first {
                Some(first) => first,
                None => viewer.next(until).await?,
            };
            Some((event, (viewer, None)))
        });
        Ok(Box::pin(events))
    }
}

/// The time after which a browser's `EventSource` reconnects.
pub(super) const RETRY: &[u8] = b"retry: 2000\n\n";

/// A client of the stream.
#[derive(Debug)]
struct Viewer {
    viewers: Arc<Viewers>,
    pool: Option<Arc<str>>,
    /// The tick of the last event.
    last: u64,
    ticks: watch::Receiver<u64>,
    closing: watch::Receiver<bool>,
    _permit: OwnedSemaphorePermit,
}

impl Viewer {
    /// Waits for the next tick, and returns its events, or those of missed ticks; `None` at the end of the stream.
    async fn next(&mut self, until: Instant) -> Option<Bytes> {
        let mut after = self.last;
        loop {
            let tick = tokio::select! {
                biased;
                _ = self.closing.wait_for(|closing| *closing) => return None,
                () = sleep_until(until) => return None,
                tick = self.ticks.wait_for(|tick| *tick > after) => *tick.ok()?,
            };
            let missed = tick - self.last - 1;
            if missed > 0 {
                return self.missed(missed).await;
            }
            let detail = match &self.pool {
                // Without it, the viewer keeps what it has until the next second.
                Some(pool) => self.viewers.detail(pool, tick).await.unwrap_or_default(),
                None => Bytes::new(),
            };
            let Ok(delta) = self.viewers.delta(tick).await else {
                // It follows as a missed one.
                after = tick;
                continue;
            };
            self.last = tick;
            return Some(if detail.is_empty() { delta } else { [detail, delta].concat().into() });
        }
    }

    /// Returns the deltas of missed ticks, or a snapshot if they are too many.
    async fn missed(&mut self, missed: u64) -> Option<Bytes> {
        let last = self.last + missed;
        if self.viewers.keeps(missed)
            && let Ok(deltas) = self.viewers.missed(self.last, last).await
        {
            self.last = last;
            return Some(deltas);
        }
        self.snapshot().await.ok()
    }

    async fn snapshot(&mut self) -> Result<Bytes, JobError> {
        let (viewers, pool) = (Arc::clone(&self.viewers), self.pool.clone());
        let build = move || viewers.snapshot(pool.as_deref());
        let (tick, event) = self.viewers.limiter.run(build).await?;
        self.last = tick;
        Ok(event)
    }
}

impl Viewers {
    pub(super) fn new(collector: Collector, limiter: BlockingLimiter, trace_url: Option<String>) -> Self {
        Self {
            history: Arc::clone(collector.history()),
            collector,
            permits: Arc::new(Semaphore::new(MAX_VIEWERS)),
            limiter,
            trace_url,
            latest: Mutex::default(),
            details: Mutex::default(),
        }
    }

    /// Returns whether that many missed deltas can be sent.
    fn keeps(&self, missed: u64) -> bool {
        let pools = self.history.pools_at(self.history.latest()).len() as u64;
        missed < MAX_POINTS as u64 && missed * pools <= MAX_MISSED_POINTS
    }

    /// Returns the delta of a tick, which is usually the last one, and is built at most once.
    async fn delta(self: &Arc<Self>, tick: u64) -> Result<Bytes, JobError> {
        let mut latest = self.latest.lock().await;
        if latest.tick != tick {
            *latest = Latest { tick, delta: self.missed(tick - 1, tick).await? };
        }
        Ok(latest.delta.clone())
    }

    /// Returns the deltas after one tick, up to and including another.
    async fn missed(self: &Arc<Self>, after: u64, last: u64) -> Result<Bytes, JobError> {
        let viewers = Arc::clone(self);
        self.limiter.run(move || viewers.deltas(after, last).concat().into()).await
    }

    /// Encodes the deltas after one tick, up to and including another.
    fn deltas(&self, after: u64, last: u64) -> Vec<Vec<u8>> {
        let pools = self.history.select(|_| true, |point| point.tick <= after, |_| usize::MAX);
        let mut next = vec![0; pools.len()];
        (after + 1..=last)
            .map(|tick| {
                let mut rows = Vec::with_capacity(pools.len());
                for (pool, next) in pools.iter().zip(&mut next) {
                    if let Some(point) = pool.points.get(*next).filter(|point| point.tick == tick) {
                        rows.push(Row::new(pool, point));
                        *next += 1;
                    }
                }
                self.event("delta", Some(tick), &Delta { pools: rows })
            })
            .collect()
    }

    /// Returns the `pool` event of a pool, which is built at most once for each tick.
    async fn detail(&self, name: &Arc<str>, tick: u64) -> Result<Bytes, JobError> {
        let mut details = self.details.lock().await;
        if details.tick != tick {
            *details = Details { tick, pools: Vec::new() };
        }
        if let Some((_, event)) = details.pools.iter().find(|(known, _)| known == name) {
            return Ok(event.clone());
        }
        let (collector, pool) = (self.collector.clone(), Arc::clone(name));
        let json = self.limiter.run(move || {
            let snapshot = collector.snapshot_of(&pool)?;
            serde_json::to_string(&PoolJson::new(&snapshot, MAX_STREAMED)).ok()
        });
        let event = json.await?.map_or_else(Bytes::new, |json| event("pool", None, &json).into());
        details.pools.push((Arc::clone(name), event.clone()));
        Ok(event)
    }

    /// Returns the snapshot for a viewer of this pool, and its tick.
    fn snapshot(&self, pool: Option<&str>) -> (u64, Bytes) {
        let tick = self.history.latest();
        let names = self.history.pools_at(tick);
        // The points of a tick that is not complete yet follow with its delta.
        let complete = |mut pools: Vec<PoolPoints>| {
            for pool in &mut pools {
                while pool.points.last().is_some_and(|point| point.tick > tick) {
                    pool.points.pop();
                }
            }
            pools
        };
        let lines = complete(self.history.select(
            |name| names.iter().any(|live| **live == *name),
            |_| false,
            |_| SPARKLINE_POINTS,
        ));
        let history =
            pool.map(|pool| complete(self.history.select(|name| name == pool, |_| false, history_api::limit)));
        let current = pool.and_then(|pool| self.collector.snapshot_of(pool));
        let snapshot = Snapshot {
            id: EventId { epoch: self.history.epoch(), tick }.to_string(),
            version: env!("CARGO_PKG_VERSION"),
            trace_url: self.trace_url.as_deref(),
            pools: lines.iter().filter_map(PoolLine::new).collect(),
            pool: current.as_ref().map(|snapshot| PoolJson::new(snapshot, MAX_STREAMED)),
            history: history.as_ref().and_then(|pools| pools.first()).map(Columns::new),
            replay: None,
        };
        let mut bytes = RETRY.to_vec();
        bytes.extend(self.event("snapshot", Some(tick), &snapshot));
        (tick, bytes.into())
    }

    fn event(&self, name: &str, tick: Option<u64>, data: &impl Serialize) -> Vec<u8> {
        let id = tick.map(|tick| EventId { epoch: self.history.epoch(), tick });
        // Its maps have strings as keys, so that it can be encoded.
        event(name, id, &serde_json::to_string(data).unwrap_or_default())
    }
}

/// Encodes an event. The data is on one line, since JSON escapes line breaks.
pub(super) fn event(name: &str, id: Option<EventId>, json: &str) -> Vec<u8> {
    let mut event = String::with_capacity(json.len() + 80);
    let _ = writeln!(event, "event: {name}");
    if let Some(id) = id {
        let _ = writeln!(event, "id: {id}");
    }
    let _ = write!(event, "data: {json}\n\n");
    event.into_bytes()
}

/// The first event. `P` is a pool in detail.
#[derive(Debug, Serialize)]
pub(super) struct Snapshot<'a, P> {
    pub(super) id: String,
    pub(super) version: &'static str,
    pub(super) trace_url: Option<&'a str>,
    pub(super) pools: Vec<PoolLine<'a>>,
    pub(super) pool: Option<P>,
    pub(super) history: Option<Columns<'a>>,
    /// The recording, if this is one.
    pub(super) replay: Option<&'a ReplayJson>,
}

/// A pool of the snapshot: its last point, and the last minute of some values.
#[derive(Debug, Serialize)]
pub(super) struct PoolLine<'a> {
    last: Row<'a>,
    time: Vec<f64>,
    used: Vec<u16>,
    waiting: Vec<u16>,
}

impl<'a> PoolLine<'a> {
    pub(super) fn new(pool: &'a PoolPoints) -> Option<Self> {
        let points = || pool.points.iter().map(|point| -> &Point { point });
        Some(Self {
            last: Row::new(pool, pool.points.last()?),
            time: points().map(|point| unix_seconds(point.unix_millis)).collect(),
            used: points().map(|point| point.used).collect(),
            waiting: points().map(|point| point.waiting).collect(),
        })
    }
}

#[derive(Debug, Serialize)]
pub(super) struct Delta<'a> {
    pub(super) pools: Vec<Row<'a>>,
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::{Duration, SystemTime};

    use super::*;

    /// The workers of the runtime serve the application.
    #[tokio::test]
    async fn deltas_are_encoded_within_the_limit_of_blocking_jobs() {
        let waited = Duration::from_millis(20);
        let limiter = BlockingLimiter::new(1, waited);
        let viewers = Arc::new(Viewers::new(Collector::new(), limiter.clone(), None));
        let tick = viewers.history.begin(Instant::now(), SystemTime::now()).expect("a tick");
        viewers.history.end(tick);
        let (release, released) = mpsc::channel::<()>();
        let hanging = tokio::spawn(async move { limiter.run(move || released.recv()).await });
        let busy = JobError::Busy { max_running: 1, waited };
        // The job has its permit once others find none.
        while viewers.missed(0, 1).await.as_ref() != Err(&busy) {
            tokio::task::yield_now().await;
        }
        assert!(matches!(viewers.delta(1).await, Err(JobError::Busy { .. })));
        drop(release);
        hanging.await.expect("no panic").expect("a result").expect_err("no message");
        let delta = viewers.delta(1).await.expect("a delta");
        assert!(delta.starts_with(b"event: delta\nid: "), "{delta:?}");
        assert_eq!(viewers.missed(0, 1).await, Ok(delta));
    }

    #[tokio::test]
    async fn missed_points_are_bounded() {
        let viewers = Viewers::new(Collector::new(), BlockingLimiter::new(1, Duration::ZERO), None);
        assert!(viewers.keeps(MAX_POINTS as u64 - 1) && !viewers.keeps(MAX_POINTS as u64));
    }
}
