//! The pools as `/api/v1/pools` shows them.
//!
//! What is serialised is said here, field by field, and not by the snapshot's own types: those may change, while
//! whoever reads this relies on its names. New fields go to the end of their object.

use std::panic::Location;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::telemetry::{Holder, OwnHold, PoolSnapshot, TraceContext, Waiter};

/// How many holders and how many waiters of one pool are listed, the oldest of them. The size of an answer is bounded
/// by this, however many tasks an outage makes wait.
pub(super) const MAX_LISTED: usize = 1000;

/// The whole answer.
#[derive(Debug, Serialize)]
pub(super) struct Listing<'a> {
    pools: Vec<Pool<'a>>,
}

impl<'a> Listing<'a> {
    /// All of `snapshots`, or the one of this name.
    pub(super) fn new(snapshots: &'a [PoolSnapshot], only: Option<&str>) -> Self {
        let asked_for = |snapshot: &&PoolSnapshot| only.is_none_or(|name| *snapshot.name == *name);
        Self { pools: snapshots.iter().filter(asked_for).map(Pool::new).collect() }
    }
}

#[derive(Debug, Serialize)]
struct Pool<'a> {
    name: &'a str,
    state: State,
    holders: Vec<Held<'a>>,
    waiters: Vec<Waiting<'a>>,
    suspected_leaks: usize,
    /// Of those who hold or wait, how many are beyond [`MAX_LISTED`].
    holders_omitted: usize,
    waiters_omitted: usize,
}

impl<'a> Pool<'a> {
    fn new(snapshot: &'a PoolSnapshot) -> Self {
        let PoolSnapshot { name, holders, waiters, suspected_leaks, .. } = snapshot;
        Self {
            name,
            state: State::new(snapshot),
            holders: holders.iter().take(MAX_LISTED).map(Held::new).collect(),
            waiters: waiters.iter().take(MAX_LISTED).map(Waiting::new).collect(),
            suspected_leaks: *suspected_leaks,
            holders_omitted: holders.len().saturating_sub(MAX_LISTED),
            waiters_omitted: waiters.len().saturating_sub(MAX_LISTED),
        }
    }
}

#[derive(Debug, Serialize)]
struct State {
    used: usize,
    idle: usize,
    creating: usize,
    /// Those who wait for capacity: the waiters whose phase is `queue`.
    waiting: usize,
    max: usize,
}

impl State {
    fn new(snapshot: &PoolSnapshot) -> Self {
        let connections = snapshot.connections;
        Self {
            used: connections.used,
            idle: connections.idle,
            creating: connections.creating,
            waiting: snapshot.queued,
            max: snapshot.limits.max(),
        }
    }
}

#[derive(Debug, Serialize)]
struct Held<'a> {
    operation: &'a str,
    call_site: Option<Site>,
    age_seconds: Seconds,
    activity: Option<&'static str>,
    queries: u64,
    backend_pid: Option<i32>,
    trace_id: Option<TraceId>,
    silent_seconds: Seconds,
    maintenance: bool,
    suspected_leak: bool,
}

impl<'a> Held<'a> {
    fn new(holder: &'a Holder) -> Self {
        Self {
            operation: &holder.operation,
            call_site: holder.call_site.map(Site),
            age_seconds: Seconds(holder.age),
            activity: holder.activity.map(|activity| activity.as_str()),
            queries: holder.queries,
            backend_pid: holder.backend_pid,
            trace_id: holder.trace.map(TraceId),
            silent_seconds: Seconds(holder.silent),
            maintenance: holder.maintenance,
            suspected_leak: holder.suspected_leak,
        }
    }
}

#[derive(Debug, Serialize)]
struct Waiting<'a> {
    operation: &'a str,
    call_site: Site,
    phase: &'static str,
    age_seconds: Seconds,
    own: Option<Own<'a>>,
    trace_id: Option<TraceId>,
}

impl<'a> Waiting<'a> {
    fn new(waiter: &'a Waiter) -> Self {
        Self {
            operation: &waiter.operation,
            call_site: Site(waiter.call_site),
            phase: waiter.phase.as_str(),
            age_seconds: Seconds(waiter.age),
            own: waiter.own.as_ref().map(Own::new),
            trace_id: waiter.trace.map(TraceId),
        }
    }
}

/// The connection that a waiter's own task holds.
#[derive(Debug, Serialize)]
struct Own<'a> {
    operation: &'a str,
    call_site: Option<Site>,
}

impl<'a> Own<'a> {
    fn new(own: &'a OwnHold) -> Self {
        Self { operation: &own.operation, call_site: own.call_site.map(Site) }
    }
}

/// `src/orders.rs:42`
#[derive(Clone, Copy, Debug)]
struct Site(&'static Location<'static>);

impl Serialize for Site {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}:{}", self.0.file(), self.0.line()))
    }
}

/// 32 hexadecimal digits.
#[derive(Clone, Copy, Debug)]
struct TraceId(TraceContext);

impl Serialize for TraceId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0.trace())
    }
}

/// Seconds, to the microsecond: what is finer is noise, and nine digits are hard to read.
#[derive(Clone, Copy, Debug)]
struct Seconds(Duration);

impl Serialize for Seconds {
    #[allow(clippy::cast_precision_loss, reason = "exact for the first 285 years")]
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.0.as_micros() as f64 / 1e6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_have_six_decimals_at_most() {
        for (nanos, shown) in [
            (0, "0.0"),
            (999, "0.0"),
            (1_000_000_000, "1.0"),
            (1_234_567_891, "1.234567"),
            (300_000, "0.0003"),
            // A year and a bit.
            (40_000_000_000_001_999, "40000000.000001"),
        ] {
            assert_eq!(serde_json::to_string(&Seconds(Duration::from_nanos(nanos))).unwrap(), shown);
        }
    }

    #[test]
    fn a_place_is_a_file_and_a_line() {
        let here = Location::caller();
        let shown = serde_json::to_string(&Site(here)).unwrap();
        assert_eq!(shown, format!("\"src/exporter/listing.rs:{}\"", here.line()));
    }
}
