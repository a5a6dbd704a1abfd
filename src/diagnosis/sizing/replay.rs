//! A queue with n servers, and the size with which few checkouts wait.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use super::recording::Load;
use super::trace::Trace;
use crate::telemetry::clock::{nanos, seconds, to_f64};
use crate::telemetry::owned::UseTimes;
use crate::telemetry::sizing::TARGET_SHARE;
use crate::telemetry::{Limits, Sizing, SizingRow};

/// The largest size; no server would accept more connections.
const MAX_SIZE: usize = 10_000;

/// The number of rows below and above the size that is needed.
const ROWS_BELOW: usize = 6;
const ROWS_ABOVE: usize = 3;

/// Returns the sizing by a recorded load, or `None` if no use was recorded.
pub(super) fn size(load: &Load, limits: &Limits) -> Option<Sizing> {
    let trace = Trace::of(load);
    if trace.checkouts.is_empty() {
        return None;
    }
    let mut uses = UseTimes::default();
    for of_chunk in load.chunk_uses() {
        uses.add(&of_chunk);
    }
    let mean_use = seconds(uses.sum_nanos()) / to_f64(uses.count().max(1));
    let mean_in_use = to_f64(load.checkouts()) * mean_use / load.recorded().as_secs_f64();
    let queue = Queue { trace: &trace, patience: nanos(limits.checkout_timeout), mean_in_use };
    let needed = queue.needed(nanos(limits.wait_target));
    let left_out = to_f64(load.left_out());
    Some(Sizing {
        needed,
        target: limits.wait_target,
        recorded: load.recorded(),
        excluded: load.excluded(),
        checkouts: load.checkouts(),
        excluded_use_share: left_out / (left_out + to_f64(uses.sum_nanos())).max(1.0),
        resolution: load.resolution(),
        mean_in_use,
        table: rows(needed, limits.max()).into_iter().map(|size| queue.row(size)).collect(),
    })
}

/// Returns the sizes of the table.
fn rows(needed: usize, max: usize) -> Vec<usize> {
    let step = (needed / 20).max(1);
    let first = needed.saturating_sub(ROWS_BELOW * step);
    let mut sizes: Vec<_> = (0..=ROWS_BELOW + ROWS_ABOVE).map(|row| first + row * step).collect();
    sizes.extend([needed, max.min(MAX_SIZE)]);
    sizes.retain(|size| *size > 0 && *size <= needed + ROWS_ABOVE * step || *size == max);
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}

/// A queue that serves the checkouts of a trace in the order of their arrival.
pub(super) struct Queue<'a> {
    pub(super) trace: &'a Trace,
    /// The time after which a checkout leaves the queue, in nanoseconds.
    pub(super) patience: u64,
    /// The mean number of servers in use if there are enough.
    pub(super) mean_in_use: f64,
}

impl Queue<'_> {
    /// Passes the checkouts through `servers`, and calls `each` with the wait and the weight of each that counts, until it
    /// returns `false`. A wait of the patience is a timeout.
    fn run(&self, servers: usize, mut each: impl FnMut(u64, f64) -> bool) {
        let mut free = BinaryHeap::new();
        for period in &self.trace.periods {
            // When each server is free.
            let mut times = free.into_vec();
            times.clear();
            times.resize(servers, Reverse(0_u64));
            free = BinaryHeap::from(times);
            for index in period.checkouts.clone() {
                let (arrival, time) = self.trace.checkouts[index];
                let Some(mut first) = free.peek_mut() else { return };
                let wait = first.0.saturating_sub(arrival).min(self.patience);
                if wait < self.patience {
                    first.0 = arrival + wait + time;
                }
                drop(first);
                if index >= period.counted_from && !each(wait, period.weight) {
                    return;
                }
            }
        }
    }

    fn weight(&self) -> f64 {
        let periods = self.trace.periods.iter();
        periods.map(|period| to_f64((period.checkouts.end - period.counted_from) as u64) * period.weight).sum()
    }

    /// Returns whether enough checkouts wait for less than `target` nanoseconds.
    fn is_enough(&self, servers: usize, target: u64, weight: f64) -> bool {
        let allowed = weight * (1.0 - TARGET_SHARE);
        let mut late = 0.0;
        self.run(servers, |wait, weight| {
            late += if wait >= target { weight } else { 0.0 };
            late <= allowed
        });
        late <= allowed
    }

    /// Returns the smallest number of servers with which enough checkouts wait for less than `target` nanoseconds.
    pub(super) fn needed(&self, target: u64) -> usize {
        let weight = self.weight();
        let (mut too_few, mut enough) = (0, 1);
        while enough < MAX_SIZE && to_f64(enough as u64) < self.mean_in_use {
            enough += 1;
        }
        while enough < MAX_SIZE && !self.is_enough(enough, target, weight) {
            too_few = enough;
            enough = (enough + (enough / 4).max(1)).min(MAX_SIZE);
        }
        while enough - too_few > 1 {
            let middle = usize::midpoint(too_few, enough);
            if self.is_enough(middle, target, weight) { enough = middle } else { too_few = middle }
        }
        enough
    }

    fn row(&self, size: usize) -> SizingRow {
        let servers = to_f64(size as u64);
        if servers < self.mean_in_use && self.trace.is_selection() {
            // The queue grows until as many checkouts time out as are too many. A selected period is too short for that.
            let wait = Duration::from_nanos(self.patience);
            let timeout_share = 1.0 - servers / self.mean_in_use;
            return SizingRow { size, wait_p50: wait, wait_p99: wait, waiting_share: 1.0, timeout_share };
        }
        let mut waits = Waits::default();
        let (mut waiting, mut timeouts) = (0.0, 0.0);
        self.run(size, |wait, weight| {
            waits.add(wait, weight);
            waiting += if wait > 0 { weight } else { 0.0 };
            timeouts += if wait >= self.patience { weight } else { 0.0 };
            true
        });
        let share = |part: f64| if waits.total > 0.0 { (part / waits.total).clamp(0.0, 1.0) } else { 0.0 };
        let quantile = |share| Duration::from_nanos(waits.quantile(share).min(self.patience));
        SizingRow {
            size,
            wait_p50: quantile(0.5),
            wait_p99: quantile(0.99),
            waiting_share: share(waiting),
            timeout_share: share(timeouts),
        }
    }
}

/// A log-linear histogram of waits: each power of two has 16 buckets.
struct Waits {
    /// The weight of each bucket; the first one is that of no wait.
    buckets: Vec<f64>,
    total: f64,
}

const STEP_BITS: u32 = 4;

impl Default for Waits {
    fn default() -> Self {
        Self { buckets: vec![0.0; (64 << STEP_BITS) + 1], total: 0.0 }
    }
}

impl Waits {
    fn add(&mut self, wait: u64, weight: f64) {
        self.buckets[Self::bucket(wait)] += weight;
        self.total += weight;
    }

    fn bucket(wait: u64) -> usize {
        let Some(power) = wait.checked_ilog2() else { return 0 };
        let step = if power >= STEP_BITS { wait >> (power - STEP_BITS) } else { wait << (STEP_BITS - power) };
        (power as usize) << STEP_BITS | (usize::try_from(step).unwrap_or(0) & ((1 << STEP_BITS) - 1)).max(1)
    }

    /// Returns the upper bound of the bucket that a share of the waits does not exceed.
    fn quantile(&self, share: f64) -> u64 {
        let rank = self.total * share;
        let mut below = 0.0;
        for (index, weight) in self.buckets.iter().enumerate() {
            below += weight;
            if below >= rank {
                if index == 0 {
                    return 0;
                }
                let (power, step) = (index >> STEP_BITS, (index & ((1 << STEP_BITS) - 1)) as u128);
                let bound = ((1 << STEP_BITS) + step + 1) << power >> STEP_BITS;
                return u64::try_from(bound).unwrap_or(u64::MAX);
            }
        }
        0
    }
}
