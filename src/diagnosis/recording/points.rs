//! A recording as the points of a history.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::super::interval::{BUCKETS, Interval};
use super::read::{Recording, Second};
use crate::labels::{Activity, Cause, Outcome, PoolKind};
use crate::telemetry::history::{
    MAX_ERRORS, MAX_NAMES, MAX_OPERATIONS, OperationPoint, Point, PoolPoints, Slots, quantile,
};

/// The names of operations, each with its index.
#[derive(Debug, Default)]
struct Names {
    names: Vec<Arc<str>>,
    indexes: HashMap<Arc<str>, u16>,
}

impl Names {
    fn index(&mut self, name: &Arc<str>) -> Option<u16> {
        if let Some(index) = self.indexes.get(name) {
            return Some(*index);
        }
        let index = u16::try_from(self.names.len()).ok().filter(|_| self.names.len() < MAX_NAMES)?;
        self.names.push(Arc::clone(name));
        self.indexes.insert(Arc::clone(name), index);
        Some(index)
    }
}

impl Recording {
    /// Returns the time from which the seconds of the recording count; the Unix epoch if the header has none.
    pub(crate) fn started(&self) -> SystemTime {
        humantime::parse_rfc3339_weak(&self.header.started).unwrap_or(UNIX_EPOCH)
    }

    /// Returns the time of a number of seconds after the start, in milliseconds since the Unix epoch.
    pub(crate) fn unix_millis(&self, at_seconds: f64) -> u64 {
        let since = Duration::try_from_secs_f64(at_seconds).unwrap_or_default();
        let time = self.started().checked_add(since).unwrap_or(UNIX_EPOCH);
        let millis = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
        u64::try_from(millis).unwrap_or(u64::MAX)
    }

    /// Returns a point for each second, numbered from one.
    pub(crate) fn points(&self) -> PoolPoints {
        let mut names = Names::default();
        let mut cause = None;
        let mut latest = 0;
        let point = |(second, tick): (&Second, u64)| {
            if let Some(verdict) = &second.verdict {
                cause = Cause::ALL.iter().find(|cause| cause.as_str() == verdict.cause).copied();
            }
            // Times increase, as the clients of a history rely on, whatever the file has.
            latest = self.unix_millis(second.at_seconds).max(latest + 1);
            Arc::new(point(&second.interval, (tick, latest), cause, &mut names))
        };
        let points = self.seconds.iter().zip(1..).map(point).collect();
        let is_proxied = self.seconds.first().is_some_and(|second| second.interval.is_proxied);
        PoolPoints::new(self.header.pool.as_str().into(), PoolKind::of(is_proxied), points, names.names)
    }
}

fn point(interval: &Interval, (tick, unix_millis): (u64, u64), cause: Option<Cause>, names: &mut Names) -> Point {
    let waits: [u64; BUCKETS] = std::array::from_fn(|bucket| count(interval.waits[bucket]));
    let mean = |held: f64| single(held / interval.seconds);
    let operations = interval.operations.iter().filter(|operation| operation.held_in_all() > 0.0);
    let operations = operations.take(MAX_OPERATIONS).filter_map(|operation| {
        Some(OperationPoint { name: names.index(&operation.name)?, held: operation.held.map(mean) })
    });
    let server = interval.server.as_ref().filter(|server| !server.unreachable);
    Point {
        tick,
        unix_millis,
        seconds: single(interval.seconds),
        max: short(interval.max),
        used: short(interval.used),
        idle: short(interval.idle),
        creating: short(interval.creating),
        closing: short(interval.closing),
        waiting: short(interval.queued),
        // Recordings before version 1.2 have those that wait for capacity only.
        in_flight: short(interval.in_flight.max(interval.queued)),
        suspected_leaks: short(interval.suspected_leaks),
        oldest_wait: single(interval.oldest_wait),
        cause,
        slots: server.map(|server| Slots { total: short(server.slots), left: short(server.slots_left) }),
        wait_p50: quantile(&waits, 0.5),
        wait_p99: quantile(&waits, 0.99),
        outcomes: std::array::from_fn::<_, { Outcome::COUNT }, _>(|outcome| counted(interval.outcomes[outcome])),
        retries: counted(interval.retries),
        held: std::array::from_fn::<_, { Activity::COUNT }, _>(|activity| mean(interval.held[activity])),
        operations: operations.collect(),
        errors: interval.errors.iter().take(MAX_ERRORS).map(|(code, count)| (*code, counted(*count))).collect(),
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "casts of floats saturate")]
fn short(value: f64) -> u16 {
    value.round() as u16
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "casts of floats saturate")]
fn counted(value: f64) -> u32 {
    value.round() as u32
}

/// Less than 2^48, so that a sum of them does not overflow.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "casts of floats saturate")]
fn count(value: f64) -> u64 {
    (value.round() as u64).min(1 << 48)
}

#[allow(clippy::cast_possible_truncation, reason = "seven digits are enough for a plot")]
fn single(value: f64) -> f32 {
    value as f32
}
