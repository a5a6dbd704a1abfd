//! Holds the recommended size against a simulation of the load that was recorded: the simulation knows when each checkout
//! arrives and how long its use takes, the recording only counts per 100 ms and a sketch of use times.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::fmt::Write as _;
use std::time::Duration;

use super::recording::{Recording, SLOT_NANOS};
use super::replay::size;
use crate::telemetry::Limits;
use crate::telemetry::clock::{Nanos, nanos, to_f64};
use crate::telemetry::owned::UseTimes;
use crate::telemetry::sizing::LoadReading;

const SECOND: f64 = 1e9;
const MEAN_USE: f64 = 0.05 * SECOND;
const TARGET: Duration = Duration::from_millis(10);
const RECORDED: f64 = 1800.0 * SECOND;

/// How checkouts arrive and how long they use a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Workload {
    Exponential,
    Constant,
    HeavyTailed,
    Bursts,
}

impl Workload {
    pub(super) const ALL: [Self; 4] = [Self::Exponential, Self::Constant, Self::HeavyTailed, Self::Bursts];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Exponential => "exponential use",
            Self::Constant => "constant use",
            Self::HeavyTailed => "heavy-tailed use",
            Self::Bursts => "on-off bursts",
        }
    }

    fn use_time(self, random: &mut fastrand::Rng) -> f64 {
        match self {
            Self::Exponential | Self::Bursts => exponential(random, MEAN_USE),
            Self::Constant => MEAN_USE,
            // Pareto's distribution with the exponent 1.5, whose variance has no bound, up to a minute.
            Self::HeavyTailed => (MEAN_USE / 3.0 * (1.0 - random.f64()).powf(-1.0 / 1.5)).min(60.0 * SECOND),
        }
    }
}

fn exponential(random: &mut fastrand::Rng, mean: f64) -> f64 {
    -mean * (1.0 - random.f64()).ln()
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "times are positive and small")]
fn whole(value: f64) -> u64 {
    value as u64
}

/// Returns when each checkout of half an hour arrives, and how long it uses a connection, for a mean number of connections in
/// use.
fn checkouts(workload: Workload, in_use: f64) -> Vec<(u64, u64)> {
    let mut random = fastrand::Rng::with_seed(whole(in_use * 1000.0) + workload as u64);
    let rate = in_use / MEAN_USE;
    let mut checkouts = Vec::new();
    let (mut at, mut end) = (0.0, 0.0);
    while at < RECORDED {
        if workload == Workload::Bursts && at >= end {
            // A second with four times the rate, then three seconds without, each in the mean.
            at = end + exponential(&mut random, 3.0 * SECOND);
            end = at + exponential(&mut random, SECOND);
        }
        let rate = if workload == Workload::Bursts { 4.0 * rate } else { rate };
        at += exponential(&mut random, 1.0 / rate);
        if workload == Workload::Bursts && at >= end {
            continue;
        }
        checkouts.push((whole(at), whole(workload.use_time(&mut random))));
    }
    checkouts
}

/// Returns what a sampler records of the checkouts in a pool that is large enough for all.
fn record(checkouts: &[(u64, u64)]) -> Recording {
    let mut ends: Vec<_> = checkouts.iter().map(|(at, time)| (at + time, *time)).collect();
    ends.sort_unstable();
    let (mut arrived, mut ended) = (0, 0);
    let mut uses = UseTimes::default();
    let mut recording = Recording::default();
    let mut at = 0;
    while to_f64(at) <= RECORDED {
        while checkouts.get(arrived).is_some_and(|(arrival, _)| *arrival < at) {
            arrived += 1;
        }
        while let Some((_, time)) = ends.get(ended).filter(|(end, _)| *end < at) {
            uses.observe(*time);
            ended += 1;
        }
        recording.push(&LoadReading { at: Nanos::from_nanos(at + 1), arrivals: arrived as u64, uses });
        at += SLOT_NANOS;
    }
    recording
}

/// Simulates the checkouts event by event with `servers` connections, and returns the share that waits for less than the
/// target.
fn simulate(checkouts: &[(u64, u64)], servers: usize) -> f64 {
    let mut departures = BinaryHeap::new();
    let mut queue: VecDeque<(u64, u64)> = VecDeque::new();
    let (mut next, mut in_time) = (0, 0_u64);
    loop {
        let arrival = checkouts.get(next);
        let departure = departures.peek().map(|Reverse(at)| *at);
        let now = match (arrival, departure) {
            (Some((at, time)), departure) if departure.is_none_or(|departure| *at < departure) => {
                next += 1;
                queue.push_back((*at, *time));
                *at
            }
            (_, Some(departure)) => {
                departures.pop();
                departure
            }
            (_, None) => break,
        };
        while departures.len() < servers
            && let Some((arrival, time)) = queue.pop_front()
        {
            in_time += u64::from(now - arrival < nanos(TARGET));
            departures.push(Reverse(now + time));
        }
    }
    to_f64(in_time) / to_f64(checkouts.len() as u64)
}

/// Returns the smallest number of connections with which 99 % of the simulated checkouts wait for less than the target.
fn optimum(checkouts: &[(u64, u64)], near: usize) -> usize {
    let is_enough = |servers| simulate(checkouts, servers) >= 0.99;
    let mut servers = near.max(1);
    if is_enough(servers) {
        while servers > 1 && is_enough(servers - 1) {
            servers -= 1;
        }
    } else {
        while !is_enough(servers) {
            servers += 1;
        }
    }
    servers
}

pub(super) const LOADS: [usize; 7] = [30, 50, 70, 80, 90, 95, 98];
pub(super) const SIZES: [usize; 3] = [4, 16, 64];

/// The optimum and the recommendation for a cell of the grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cell {
    pub(super) optimum: usize,
    pub(super) recommended: usize,
}

impl Cell {
    /// Computes the cell for a load that uses this percentage of so many connections in the mean.
    pub(super) fn compute(workload: Workload, connections: usize, percent: usize) -> Self {
        let in_use = to_f64((connections * percent) as u64) / 100.0;
        let checkouts = checkouts(workload, in_use);
        let mut limits = Limits::for_tests();
        (limits.wait_target, limits.checkout_timeout) = (TARGET, Duration::from_secs(30));
        let recommended = size(&record(&checkouts).load(), &limits).unwrap().needed;
        Self { optimum: optimum(&checkouts, recommended), recommended }
    }

    /// Returns whether the recommendation is within one connection or 5 % of the optimum.
    pub(super) fn is_near(self) -> bool {
        let difference = self.optimum.abs_diff(self.recommended);
        difference <= 1 || difference * 20 <= self.optimum
    }

    /// Returns the text in the table.
    pub(super) fn text(self) -> String {
        let mut text = format!("{} / {}", self.recommended, self.optimum);
        if !self.is_near() {
            let _ = write!(text, " **off**");
        }
        text
    }
}
