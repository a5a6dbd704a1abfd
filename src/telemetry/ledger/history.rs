//! The last minutes' arrivals and use, and the size they ask for.

use std::collections::VecDeque;
use std::time::Duration;

use crate::telemetry::clock::{Nanos, exact, seconds};

/// How far back the recommendation looks.
const WINDOW: Duration = Duration::from_secs(300);
/// Two samples are at least this far apart, however often somebody asks.
const STEP: Duration = Duration::from_secs(5);
/// Beyond this size the formula is not worth its time, and no server would take it.
const LARGEST: usize = 10_000;

/// Running totals, as of one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Totals {
    pub(super) at: Nanos,
    pub(super) started: u64,
    pub(super) returned: u64,
    pub(super) use_nanos: u64,
}

/// Samples of three running totals, oldest first, taken when somebody looks.
#[derive(Debug, Default)]
pub(super) struct History {
    samples: VecDeque<Totals>,
}

impl History {
    /// Takes the totals of checkouts begun and of uses that ended, and answers with the size they ask for over the
    /// window, if the window is long enough to tell and saw any use.
    ///
    /// What arrives counts, not what was served: a pool that is too small serves less than is asked of it.
    pub(super) fn recommend(&mut self, now: Totals, target: Duration) -> Option<usize> {
        while self.samples.get(1).is_some_and(|second| now.at.since(second.at) >= window_nanos()) {
            self.samples.pop_front();
        }
        if self.samples.back().is_none_or(|last| now.at.duration_since(last.at) >= STEP) {
            self.samples.push_back(now);
        }
        let first = self.samples.front()?;
        let elapsed = seconds(now.at.since(first.at));
        let uses = now.returned.saturating_sub(first.returned);
        if elapsed < STEP.as_secs_f64() || uses == 0 {
            return None;
        }
        let mean_use = seconds(now.use_nanos.saturating_sub(first.use_nanos)) / exact(uses);
        let rate = exact(now.started.saturating_sub(first.started)) / elapsed;
        Some(size_for(rate, mean_use, target.as_secs_f64()))
    }
}

const fn window_nanos() -> u64 {
    WINDOW.as_secs() * 1_000_000_000
}

/// The smallest number of connections for which the mean wait is at most `target` seconds, when `rate` checkouts a
/// second arrive at random and hold one for `mean_use` seconds: Erlang's C formula, by its usual recursion.
fn size_for(rate: f64, mean_use: f64, target: f64) -> usize {
    let load = rate * mean_use;
    // Erlang B for n servers, built up from none; it does not overflow as factorials would.
    let mut blocked = 1.0;
    let mut servers = 0.0;
    for size in 1..=LARGEST {
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
    LARGEST
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Nanos {
        Nanos::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn erlang_c_agrees_with_published_figures() {
        // Ten erlangs on 14 servers: 17.4 % wait, for a fourth of the mean use (tables of Erlang C).
        assert_eq!(size_for(10.0, 1.0, 0.0436), 14);
        assert_eq!(size_for(10.0, 1.0, 0.0434), 15);
        // One server is M/M/1: at half load the mean wait equals the mean use.
        assert_eq!(size_for(5.0, 0.1, 0.1001), 1);
        assert_eq!(size_for(5.0, 0.1, 0.0999), 2);
    }

    fn totals(second: u64, started: u64, returned: u64, use_millis: u64) -> Totals {
        Totals { at: at(second), started, returned, use_nanos: use_millis * 1_000_000 }
    }

    #[test]
    fn an_idle_pool_recommends_nothing() {
        let mut history = History::default();
        assert_eq!(history.recommend(totals(1, 5, 5, 5), WINDOW), None);
        assert_eq!(history.recommend(totals(100, 5, 5, 5), WINDOW), None);
    }

    #[test]
    fn the_recommendation_follows_the_last_five_minutes() {
        let mut history = History::default();
        let target = Duration::from_millis(10);
        for second in 0..600 {
            // A hundred uses of 100 ms a second: ten connections' worth, and some to spare.
            history.recommend(totals(second, second * 100, second * 100, second * 10_000), target);
        }
        let during = history.recommend(totals(600, 60_000, 60_000, 6_000_000), target).unwrap();
        assert!((13..=16).contains(&during), "{during}");
        for quiet in 1..400 {
            history.recommend(totals(600 + quiet, 60_000 + quiet, 60_000 + quiet, 6_000_000 + quiet), target);
        }
        assert_eq!(history.recommend(totals(1000, 60_400, 60_400, 6_000_400), target), Some(1));
    }

    #[test]
    fn what_a_small_pool_could_not_serve_counts_too() {
        let mut history = History::default();
        history.recommend(totals(0, 0, 0, 0), Duration::from_millis(10));
        // Ten connections' worth arrived; two connections served a fifth of it, and the others timed out.
        let asked = history.recommend(totals(100, 10_000, 2_000, 200_000), Duration::from_millis(10)).unwrap();
        assert!((13..=16).contains(&asked), "{asked}");
    }

    #[test]
    fn samples_are_bounded_however_often_somebody_looks() {
        let mut history = History::default();
        for milli in 0..600_000 {
            let now =
                Totals { at: Nanos::from_nanos(milli * 1_000_000), started: milli, returned: milli, use_nanos: milli };
            history.recommend(now, WINDOW);
        }
        assert!(history.samples.len() <= 62, "{}", history.samples.len());
    }
}
