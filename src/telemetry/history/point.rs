//! A pool's state at one moment, and what happened in the second before.

use std::sync::Arc;

use tokio::time::Instant;

use super::Tick;
use crate::labels::{Activity, Cause, ErrorCode, Outcome};
use crate::telemetry::clock::seconds;
use crate::telemetry::ledger::PoolSnapshot;
use crate::telemetry::owned::{BOUNDS_SECONDS, BUCKETS};
use crate::telemetry::server::ServerPoll;

/// The operations that a point has: those that held connections longest.
pub(crate) const MAX_OPERATIONS: usize = 6;

/// The error codes that a point has: the most frequent ones.
pub(crate) const MAX_ERRORS: usize = 4;

/// A pool's state at one moment, and what happened since the moment before.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Point {
    /// The number of the tick.
    pub(crate) tick: u64,
    /// The end of the interval, in milliseconds since the Unix epoch.
    pub(crate) unix_millis: u64,
    /// The length of the interval; zero for the first point of a pool.
    pub(crate) seconds: f32,

    // The state at the end.
    pub(crate) max: u16,
    pub(crate) used: u16,
    pub(crate) idle: u16,
    pub(crate) creating: u16,
    pub(crate) closing: u16,
    /// Checkouts waiting for capacity.
    pub(crate) waiting: u16,
    /// Checkouts in flight, whatever they wait for.
    pub(crate) in_flight: u16,
    pub(crate) suspected_leaks: u16,
    pub(crate) oldest_wait: f32,
    /// `None` before the first verdict.
    pub(crate) cause: Option<Cause>,
    /// `None` if the server is not watched, or did not answer.
    pub(crate) slots: Option<Slots>,

    // What happened.
    /// Quantiles of the waits that ended, in seconds; `None` if there were none.
    pub(crate) wait_p50: Option<f32>,
    pub(crate) wait_p99: Option<f32>,
    /// Checkouts that ended, by [`Outcome::ALL`].
    pub(crate) outcomes: [u32; Outcome::COUNT],
    pub(crate) retries: u32,
    /// The mean number of connections held, by [`Activity::ALL`].
    pub(crate) held: [f32; Activity::COUNT],
    /// The same for the operations that held most, most first.
    pub(crate) operations: Box<[OperationPoint]>,
    /// Errors by code, most frequent first.
    pub(crate) errors: Box<[(ErrorCode, u32)]>,
}

/// The connection slots of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slots {
    pub(crate) total: u16,
    pub(crate) left: u16,
}

/// The mean number of connections that an operation held.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct OperationPoint {
    /// The index of its name.
    pub(crate) name: u16,
    /// By [`Activity::ALL`].
    pub(crate) held: [f32; Activity::COUNT],
}

/// The counters of a reading.
#[derive(Clone, Debug)]
pub(super) struct Totals {
    at: Instant,
    held: Vec<(Arc<str>, [u64; Activity::COUNT])>,
    waits: [u64; BUCKETS],
    outcomes: [u64; Outcome::COUNT],
    retries: u64,
    errors: Vec<(ErrorCode, u64)>,
}

impl Totals {
    pub(super) fn of(at: Instant, snapshot: &PoolSnapshot) -> Self {
        let mut totals = Self {
            at,
            held: Vec::new(),
            waits: [0; BUCKETS],
            outcomes: [0; Outcome::COUNT],
            retries: 0,
            errors: Vec::new(),
        };
        totals.update(at, snapshot);
        totals
    }

    /// Becomes the counters of another reading, reusing the allocated memory.
    pub(super) fn update(&mut self, at: Instant, snapshot: &PoolSnapshot) {
        self.at = at;
        self.held.clear();
        self.held.extend(snapshot.operations.iter().map(|of| (Arc::clone(&of.name), of.activity_nanos)));
        self.waits = snapshot.wait_time.buckets;
        self.outcomes = outcomes(snapshot);
        self.retries = retries(snapshot);
        self.errors.clear();
        add_errors(&mut self.errors, snapshot);
    }
}

fn outcomes(snapshot: &PoolSnapshot) -> [u64; Outcome::COUNT] {
    let mut outcomes = [0_u64; Outcome::COUNT];
    for operation in &snapshot.operations {
        for (sum, count) in outcomes.iter_mut().zip(operation.outcomes) {
            *sum = sum.saturating_add(count);
        }
    }
    outcomes
}

fn retries(snapshot: &PoolSnapshot) -> u64 {
    snapshot.retries.iter().fold(0, |sum, retries| sum.saturating_add(retries.count))
}

/// Sums the errors by code.
fn add_errors(sums: &mut Vec<(ErrorCode, u64)>, snapshot: &PoolSnapshot) {
    for errors in &snapshot.errors {
        match sums.iter_mut().find(|(code, _)| *code == errors.code) {
            Some((_, sum)) => *sum = sum.saturating_add(errors.count),
            None => sums.push((errors.code, errors.count)),
        }
    }
}

fn short(count: usize) -> u16 {
    u16::try_from(count).unwrap_or(u16::MAX)
}

fn slots(count: u64) -> u16 {
    u16::try_from(count).unwrap_or(u16::MAX)
}

fn increase(before: u64, now: u64) -> u32 {
    u32::try_from(now.saturating_sub(before)).unwrap_or(u32::MAX)
}

#[allow(clippy::cast_possible_truncation, reason = "seven digits are enough for a plot")]
fn single(value: f64) -> f32 {
    value as f32
}

impl Point {
    /// Returns the first point of a pool: its state.
    pub(super) fn first(tick: Tick, snapshot: &PoolSnapshot) -> Self {
        let view = match &snapshot.server {
            Some(ServerPoll::Seen(view)) => Some(Slots { total: slots(view.slots), left: slots(view.slots_left) }),
            _ => None,
        };
        Self {
            tick: tick.number,
            unix_millis: tick.unix_millis,
            seconds: 0.0,
            max: short(snapshot.max()),
            used: short(snapshot.connections.used),
            idle: short(snapshot.connections.idle),
            creating: short(snapshot.connections.creating),
            closing: short(snapshot.connections.closing),
            waiting: short(snapshot.queued),
            in_flight: short(snapshot.in_flight),
            suspected_leaks: short(snapshot.suspected_leaks),
            oldest_wait: single(snapshot.oldest_wait.as_secs_f64()),
            cause: snapshot.diagnosis.as_ref().map(|verdict| verdict.cause),
            slots: view,
            wait_p50: None,
            wait_p99: None,
            outcomes: [0; Outcome::COUNT],
            retries: 0,
            held: [0.0; Activity::COUNT],
            operations: Box::default(),
            errors: Box::default(),
        }
    }

    /// Returns the point of a reading after `before`. `index` returns the index of a name; without one, an operation is
    /// in the pool's total only.
    pub(super) fn between(
        before: &Totals,
        tick: Tick,
        snapshot: &PoolSnapshot,
        mut index: impl FnMut(&Arc<str>) -> Option<usize>,
    ) -> Self {
        let mut point = Self::first(tick, snapshot);
        let elapsed = tick.at.saturating_duration_since(before.at).as_secs_f64().max(1e-3);
        point.seconds = single(elapsed);
        let waits: [u64; BUCKETS] =
            std::array::from_fn(|bucket| snapshot.wait_time.buckets[bucket].saturating_sub(before.waits[bucket]));
        (point.wait_p50, point.wait_p99) = (quantile(&waits, 0.5), quantile(&waits, 0.99));
        let now = outcomes(snapshot);
        point.outcomes = std::array::from_fn(|outcome| increase(before.outcomes[outcome], now[outcome]));
        point.retries = increase(before.retries, retries(snapshot));
        point.add_operations(before, elapsed, snapshot, &mut index);
        point.add_errors(before, snapshot);
        point
    }

    fn add_operations(
        &mut self,
        before: &Totals,
        elapsed: f64,
        snapshot: &PoolSnapshot,
        index: &mut impl FnMut(&Arc<str>) -> Option<usize>,
    ) {
        let mut held = Vec::new();
        for (position, operation) in snapshot.operations.iter().enumerate() {
            // Operations keep their order, unless the pool was replaced.
            let earlier = match before.held.get(position) {
                Some((name, earlier)) if Arc::ptr_eq(name, &operation.name) => *earlier,
                _ => {
                    let named = before.held.iter().find(|(name, _)| *name == operation.name);
                    named.map_or([0; Activity::COUNT], |(_, earlier)| *earlier)
                }
            };
            let of: [f32; Activity::COUNT] = std::array::from_fn(|activity| {
                single(seconds(operation.activity_nanos[activity].saturating_sub(earlier[activity])) / elapsed)
            });
            for (sum, of) in self.held.iter_mut().zip(of) {
                *sum += of;
            }
            if of.iter().any(|held| *held > 0.0) {
                held.push((&operation.name, of));
            }
        }
        let total = |of: &[f32; Activity::COUNT]| of.iter().sum::<f32>();
        held.sort_by(|(_, a), (_, b)| total(b).total_cmp(&total(a)));
        held.truncate(MAX_OPERATIONS);
        let named = held
            .into_iter()
            .filter_map(|(name, held)| Some(OperationPoint { name: u16::try_from(index(name)?).ok()?, held }));
        self.operations = named.collect();
    }

    fn add_errors(&mut self, before: &Totals, snapshot: &PoolSnapshot) {
        let mut sums = Vec::new();
        add_errors(&mut sums, snapshot);
        let mut errors: Vec<_> = sums
            .into_iter()
            .map(|(code, sum)| {
                let earlier = before.errors.iter().find(|(earlier, _)| *earlier == code);
                (code, increase(earlier.map_or(0, |(_, earlier)| *earlier), sum))
            })
            .filter(|(_, count)| *count > 0)
            .collect();
        errors.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        errors.truncate(MAX_ERRORS);
        self.errors = errors.into_boxed_slice();
    }
}

/// Returns a quantile of durations in seconds, interpolated within its bucket as by `histogram_quantile`; the highest bound
/// for what is beyond it.
#[allow(clippy::cast_precision_loss, reason = "no count exceeds 2^53")]
pub(crate) fn quantile(buckets: &[u64; BUCKETS], quantile: f64) -> Option<f32> {
    let count: u64 = buckets.iter().sum();
    if count == 0 {
        return None;
    }
    let rank = quantile * count as f64;
    let mut below = 0.0;
    for (index, in_bucket) in buckets.iter().enumerate() {
        let in_bucket = *in_bucket as f64;
        if below + in_bucket >= rank && in_bucket > 0.0 {
            let lower = index.checked_sub(1).map_or(0.0, |index| BOUNDS_SECONDS[index]);
            let upper = BOUNDS_SECONDS.get(index).copied().unwrap_or(lower);
            return Some(single(lower + (upper - lower) * (rank - below) / in_bucket));
        }
        below += in_bucket;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_interpolated_within_a_bucket() {
        let mut buckets = [0; BUCKETS];
        assert_eq!(quantile(&buckets, 0.5), None);
        buckets[1] = 10;
        // Between 0.5 ms and 1 ms.
        assert_eq!(quantile(&buckets, 0.5), Some(0.000_75));
        buckets[BUCKETS - 1] = 1;
        assert_eq!(quantile(&buckets, 0.99), Some(30.0));
        assert_eq!(quantile(&buckets, 0.5), Some(0.000_775));
    }

    /// The sizes from which docs/internals.md computes the bound of the memory.
    #[test]
    fn point_is_small() {
        let boxed = MAX_OPERATIONS * size_of::<OperationPoint>() + MAX_ERRORS * size_of::<(ErrorCode, u32)>();
        // The counters of the `Arc`, and what an allocator adds to each of three allocations.
        let overhead = 16 + 3 * 16;
        let bytes = size_of::<Point>() + boxed + overhead;
        assert!(bytes <= 384, "{bytes}");
    }
}
