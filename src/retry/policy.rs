//! How often, after which pauses and for how long.

use std::time::Duration;

/// How often an operation is tried, after which pauses, and for how long as a whole.
///
/// | | default |
/// |---|---|
/// | [`attempts`](Self::attempts) | 5 |
/// | [`backoff`](Self::backoff) | from 20 ms up to 2 s |
/// | [`deadline`](Self::deadline) | 30 s |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a policy does nothing until it is given to `retry`"]
pub struct Policy {
    attempts: u32,
    base: Duration,
    cap: Duration,
    deadline: Option<Duration>,
}

/// How much longer the pauses are where the server is short of something.
const LONG: u32 = 10;

impl Policy {
    /// The defaults.
    pub const fn new() -> Self {
        Self {
            attempts: 5,
            base: Duration::from_millis(20),
            cap: Duration::from_secs(2),
            deadline: Some(Duration::from_secs(30)),
        }
    }

    /// One attempt, without a deadline: the failure is classified and reported, and not repeated.
    pub const fn never() -> Self {
        Self { attempts: 1, deadline: None, ..Self::new() }
    }

    /// How often the work is done at most, the first time included. Zero counts as one.
    pub const fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = if attempts == 0 { 1 } else { attempts };
        self
    }

    /// How long the pauses are: between zero and a bound, at random. The first bound is `base`, each further one twice
    /// as long, none longer than `cap`. Where the server is short of something (the class `resources`), all of it is ten
    /// times as long. A `base` of zero means no pause.
    pub const fn backoff(mut self, base: Duration, cap: Duration) -> Self {
        self.base = base;
        self.cap = cap;
        self
    }

    /// How long all of it may take: checkouts, work and pauses. What is under way when it passes is given up, and no
    /// pause is begun that would last beyond it. To see what became of an attempt may take 25 ms more. `None`: as long as
    /// it takes.
    pub const fn deadline(mut self, deadline: Option<Duration>) -> Self {
        self.deadline = deadline;
        self
    }

    pub(super) const fn most_attempts(&self) -> u32 {
        self.attempts
    }

    pub(super) const fn whole(&self) -> Option<Duration> {
        self.deadline
    }

    /// The longest that the pause after this attempt may be, counted from 1.
    fn bound(&self, attempt: u32, long: bool) -> Duration {
        let doubled = self.base.saturating_mul(1_u32.checked_shl(attempt.saturating_sub(1)).unwrap_or(u32::MAX));
        doubled.min(self.cap).saturating_mul(if long { LONG } else { 1 })
    }

    /// The pause after this attempt.
    pub(super) fn pause(&self, attempt: u32, long: bool) -> Duration {
        self.bound(attempt, long).mul_f64(fastrand::f64())
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn the_bound_of_a_pause_doubles_up_to_the_cap() {
        let policy = Policy::new().backoff(ms(20), ms(150));
        assert_eq!(
            [1, 2, 3, 4, 5, 40, u32::MAX].map(|attempt| policy.bound(attempt, false)),
            [20, 40, 80, 150, 150, 150, 150].map(ms)
        );
        assert_eq!(policy.bound(2, true), ms(400));
        assert_eq!(policy.bound(9, true), ms(1500));
        assert_eq!(Policy::new().backoff(ms(500), ms(5)).bound(1, false), ms(5));
    }

    #[test]
    fn a_pause_is_anything_between_nothing_and_its_bound() {
        let policy = Policy::new().backoff(ms(100), ms(100));
        let pauses: Vec<_> = (0..2000).map(|_| policy.pause(1, false)).collect();
        assert!(pauses.iter().all(|pause| *pause < ms(100)));
        for (from, to) in [(0, 10), (45, 55), (90, 100)] {
            assert!(pauses.iter().any(|pause| (ms(from)..ms(to)).contains(pause)), "{from} to {to}");
        }
        assert_eq!(Policy::new().backoff(Duration::ZERO, ms(5)).pause(3, true), Duration::ZERO);
    }

    #[test]
    fn nothing_is_tried_less_than_once() {
        assert_eq!(Policy::new().attempts(0), Policy::new().attempts(1));
        assert_eq!((Policy::never().most_attempts(), Policy::never().whole()), (1, None));
    }
}
