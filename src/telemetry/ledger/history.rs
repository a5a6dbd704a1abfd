//! The recommended pool size, from the arrivals and use times of the last minutes.

use std::collections::VecDeque;
use std::time::Duration;

use crate::telemetry::clock::{Nanos, seconds, to_f64};

/// The period that the recommendation is based on.
const RECOMMENDATION_WINDOW: Duration = Duration::from_secs(300);
/// The minimum time between two samples, however often snapshots are taken.
const MIN_SAMPLE_INTERVAL: Duration = Duration::from_secs(5);
/// The largest recommendation, which bounds the cost of the formula; no server would accept more connections.
const MAX_RECOMMENDED_SIZE: usize = 10_000;

/// The pool's counters at one point in time.
#[derive(Clone, Copy, Debug)]
pub(super) struct LoadSample {
    pub(super) at: Nanos,
    pub(super) started: u64,
    pub(super) returned: u64,
    pub(super) use_nanos: u64,
}

/// Samples of the pool's counters, oldest first, taken with snapshots.
#[derive(Debug, Default)]
pub(super) struct LoadHistory {
    samples: VecDeque<LoadSample>,
}

impl LoadHistory {
    /// Removes all samples.
    pub(super) fn clear(&mut self) {
        self.samples.clear();
    }

    /// Adds a sample and returns the size recommended for the window, or `None` if the window is too short or had no
    /// uses.
    ///
    /// Counts arrivals, not served checkouts: a pool that is too small serves less than the demand.
    pub(super) fn recommend(&mut self, now: LoadSample, target: Duration) -> Option<usize> {
        while self.samples.get(1).is_some_and(|second| now.at.since(second.at) >= window_nanos()) {
            self.samples.pop_front();
        }
        if self.samples.back().is_none_or(|last| now.at.duration_since(last.at) >= MIN_SAMPLE_INTERVAL) {
            self.samples.push_back(now);
        }
        let first = self.samples.front()?;
        let elapsed = seconds(now.at.since(first.at));
        let uses = now.returned.saturating_sub(first.returned);
        if elapsed < MIN_SAMPLE_INTERVAL.as_secs_f64() || uses == 0 {
            return None;
        }
        let mean_use = seconds(now.use_nanos.saturating_sub(first.use_nanos)) / to_f64(uses);
        let rate = to_f64(now.started.saturating_sub(first.started)) / elapsed;
        Some(size_for(rate, mean_use, target.as_secs_f64()))
    }
}

const fn window_nanos() -> u64 {
    RECOMMENDATION_WINDOW.as_secs() * 1_000_000_000
}

/// Returns the smallest number of connections for which the mean wait is at most `target` seconds, if `rate` checkouts
/// per second arrive at random and hold a connection for `mean_use` seconds: Erlang's C formula, computed recursively.
fn size_for(rate: f64, mean_use: f64, target: f64) -> usize {
    let load = rate * mean_use;
    // Erlang B for n servers by recursion, which does not overflow as factorials would.
    let mut blocked = 1.0;
    let mut servers = 0.0;
    for size in 1..=MAX_RECOMMENDED_SIZE {
        servers += 1.0;
        blocked = load * blocked / (servers + load * blocked);
        if servers <= load {
            continue;
        }
        let waits = blocked / (1.0 - (load / servers) * (1.0 - blocked));
        let mean_wait = waits * mean_use / (servers - load);
        if mean_wait <= target {
            return size;
        }
    }
    MAX_RECOMMENDED_SIZE
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Nanos {
        Nanos::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn erlang_c_agrees_with_published_figures() {
        // Ten erlangs on 14 servers: 17.4 % wait, for a quarter of the mean use (Erlang C tables).
        assert_eq!(size_for(10.0, 1.0, 0.0436), 14);
        assert_eq!(size_for(10.0, 1.0, 0.0434), 15);
        // One server is M/M/1: at half load the mean wait equals the mean use.
        assert_eq!(size_for(5.0, 0.1, 0.1001), 1);
        assert_eq!(size_for(5.0, 0.1, 0.0999), 2);
    }

    fn sample(second: u64, started: u64, returned: u64, use_millis: u64) -> LoadSample {
        LoadSample { at: at(second), started, returned, use_nanos: use_millis * 1_000_000 }
    }

    #[test]
    fn idle_pool_has_no_recommendation() {
        let mut history = LoadHistory::default();
        assert_eq!(history.recommend(sample(1, 5, 5, 5), RECOMMENDATION_WINDOW), None);
        assert_eq!(history.recommend(sample(100, 5, 5, 5), RECOMMENDATION_WINDOW), None);
    }

    #[test]
    fn recommendation_follows_the_last_five_minutes() {
        let mut history = LoadHistory::default();
        let target = Duration::from_millis(10);
        for second in 0..600 {
            // A hundred uses of 100 ms per second occupy ten connections.
            history.recommend(sample(second, second * 100, second * 100, second * 10_000), target);
        }
        let during = history.recommend(sample(600, 60_000, 60_000, 6_000_000), target).unwrap();
        assert!((13..=16).contains(&during), "{during}");
        for second in 1..400 {
            history.recommend(sample(600 + second, 60_000 + second, 60_000 + second, 6_000_000 + second), target);
        }
        assert_eq!(history.recommend(sample(1000, 60_400, 60_400, 6_000_400), target), Some(1));
    }

    #[test]
    fn unserved_checkouts_count_as_demand() {
        let mut history = LoadHistory::default();
        history.recommend(sample(0, 0, 0, 0), Duration::from_millis(10));
        // The demand was ten connections; two connections served a fifth of it, and the other checkouts timed out.
        let recommended = history.recommend(sample(100, 10_000, 2_000, 200_000), Duration::from_millis(10)).unwrap();
        assert!((13..=16).contains(&recommended), "{recommended}");
    }

    #[test]
    fn number_of_samples_is_bounded() {
        let mut history = LoadHistory::default();
        for milli in 0..600_000 {
            let now = LoadSample {
                at: Nanos::from_nanos(milli * 1_000_000),
                started: milli,
                returned: milli,
                use_nanos: milli,
            };
            history.recommend(now, RECOMMENDATION_WINDOW);
        }
        assert!(history.samples.len() <= 62, "{}", history.samples.len());
    }
}
