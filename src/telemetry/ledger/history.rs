//! The last minutes' arrivals and use, and the size they ask for.

use std::collections::VecDeque;
use std::time::Duration;

use crate::telemetry::clock::{Nanos, seconds};

/// How far back the recommendation looks.
const WINDOW: Duration = Duration::from_secs(300);
/// Two samples are at least this far apart, however often somebody asks.
const STEP: Duration = Duration::from_secs(5);
/// Beyond this size the formula is not worth its time, and no server would take it.
const LARGEST: usize = 10_000;

#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Nanos,
    returned: u64,
    use_nanos: u64,
}

/// Samples of two running totals, oldest first, taken when somebody looks.
#[derive(Debug, Default)]
pub(super) struct History {
    samples: VecDeque<Sample>,
}

impl History {
    /// Takes the totals of uses that ended, and answers with the size they ask for over the window, if the window
    /// is long enough to tell and saw any use.
    pub(super) fn recommend(&mut self, at: Nanos, returned: u64, use_nanos: u64, target: Duration) -> Option<usize> {
        while self.samples.get(1).is_some_and(|second| at.since(second.at) >= window_nanos()) {
            self.samples.pop_front();
        }
        let due = self.samples.back().is_none_or(|last| at.duration_since(last.at) >= STEP);
        if due {
            self.samples.push_back(Sample { at, returned, use_nanos });
        }
        let first = self.samples.front()?;
        let elapsed = seconds(at.since(first.at));
        let uses = returned.saturating_sub(first.returned);
        if elapsed < STEP.as_secs_f64() || uses == 0 {
            return None;
        }
        #[allow(clippy::cast_precision_loss, reason = "a count of uses in five minutes")]
        let uses = uses as f64;
        let mean_use = seconds(use_nanos.saturating_sub(first.use_nanos)) / uses;
        Some(size_for(uses / elapsed, mean_use, target.as_secs_f64()))
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

    #[test]
    fn an_idle_pool_recommends_nothing() {
        let mut history = History::default();
        assert_eq!(history.recommend(at(1), 5, 5, WINDOW), None);
        assert_eq!(history.recommend(at(100), 5, 5, WINDOW), None);
    }

    #[test]
    fn the_recommendation_follows_the_last_five_minutes() {
        let mut history = History::default();
        let target = Duration::from_millis(10);
        let mut busy = 0;
        for second in 0..600 {
            // A hundred uses of 100 ms a second: ten connections' worth, and some to spare.
            busy = second * 100;
            history.recommend(at(second), busy, busy * 100_000_000, target);
        }
        let during = history.recommend(at(600), busy, busy * 100_000_000, target).unwrap();
        assert!((13..=16).contains(&during), "{during}");
        for second in 601..1000 {
            let quiet = busy + second - 600;
            let _ = history.recommend(at(second), quiet, busy * 100_000_000 + (second - 600) * 1_000_000, target);
        }
        let after = history.recommend(at(1000), busy + 400, busy * 100_000_000 + 400_000_000, target).unwrap();
        assert_eq!(after, 1);
    }

    #[test]
    fn samples_are_bounded_however_often_somebody_looks() {
        let mut history = History::default();
        for milli in 0..600_000 {
            history.recommend(Nanos::from_nanos(milli * 1_000_000), milli, milli, WINDOW);
        }
        assert!(history.samples.len() <= 62, "{}", history.samples.len());
    }
}
