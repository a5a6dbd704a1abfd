//! The policy: number of attempts, backoff and deadline.

use std::time::Duration;

/// How often an operation is attempted, the pauses between attempts, and the deadline of all of them.
///
/// | | default |
/// |---|---|
/// | [`attempts`](Self::attempts) | 5 |
/// | [`backoff`](Self::backoff) | from 20 ms up to 2 s |
/// | [`deadline`](Self::deadline) | 30 s |
///
/// ```
/// use std::time::Duration;
/// use poolscope::RetryPolicy;
///
/// let policy = RetryPolicy::new().attempts(3).deadline(Some(Duration::from_secs(5)));
/// # let _ = policy;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a policy does nothing until it is given to `retry`"]
pub struct RetryPolicy {
    attempts: u32,
    base: Duration,
    cap: Duration,
    deadline: Option<Duration>,
}

/// How much longer the pauses are if the server lacks resources.
const RESOURCES_BACKOFF_FACTOR: u32 = 10;

impl RetryPolicy {
    /// Returns the defaults.
    pub const fn new() -> Self {
        Self {
            attempts: 5,
            base: Duration::from_millis(20),
            cap: Duration::from_secs(2),
            deadline: Some(Duration::from_secs(30)),
        }
    }

    /// Returns a policy of one attempt without a deadline: failures are classified and reported, and not retried.
    pub const fn never() -> Self {
        Self { attempts: 1, deadline: None, ..Self::new() }
    }

    /// Sets the maximum number of attempts, including the first. Zero counts as one. While connecting is suspended, a
    /// first attempt that fails at once for that (`fail_fast`) does not count if it is retried.
    pub const fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = if attempts == 0 { 1 } else { attempts };
        self
    }

    /// Sets the pauses, which are random between zero and a bound. The first bound is `base`; each further one is twice
    /// as long, up to `cap`. If the server lacks resources (class `resources`), all bounds are ten times as long. A `base`
    /// of zero means no pause.
    pub const fn backoff(mut self, base: Duration, cap: Duration) -> Self {
        self.base = base;
        self.cap = cap;
        self
    }

    /// Sets the deadline of the whole operation: checkouts, work and pauses. An attempt that is running when it passes is
    /// abandoned, and no pause starts that would end after it. Determining the effects of an attempt may take 25 ms more.
    /// `None`: no deadline.
    pub const fn deadline(mut self, deadline: Option<Duration>) -> Self {
        self.deadline = deadline;
        self
    }

    pub(super) const fn max_attempts(&self) -> u32 {
        self.attempts
    }

    pub(super) const fn time_limit(&self) -> Option<Duration> {
        self.deadline
    }

    /// Returns the longest possible pause after this attempt, counted from 1.
    fn max_pause(&self, attempt: u32, lacks_resources: bool) -> Duration {
        let doubled = self.base.saturating_mul(1_u32.checked_shl(attempt.saturating_sub(1)).unwrap_or(u32::MAX));
        doubled.min(self.cap).saturating_mul(if lacks_resources { RESOURCES_BACKOFF_FACTOR } else { 1 })
    }

    /// Returns a random pause after this attempt.
    pub(super) fn pause(&self, attempt: u32, lacks_resources: bool) -> Duration {
        self.max_pause(attempt, lacks_resources).mul_f64(fastrand::f64())
    }
}

impl Default for RetryPolicy {
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
    fn max_pause_doubles_up_to_the_cap() {
        let policy = RetryPolicy::new().backoff(ms(20), ms(150));
        assert_eq!(
            [1, 2, 3, 4, 5, 40, u32::MAX].map(|attempt| policy.max_pause(attempt, false)),
            [20, 40, 80, 150, 150, 150, 150].map(ms)
        );
        assert_eq!(policy.max_pause(2, true), ms(400));
        assert_eq!(policy.max_pause(9, true), ms(1500));
        assert_eq!(RetryPolicy::new().backoff(ms(500), ms(5)).max_pause(1, false), ms(5));
    }

    #[test]
    fn pauses_are_spread_below_their_bound() {
        let policy = RetryPolicy::new().backoff(ms(100), ms(100));
        let pauses: Vec<_> = (0..2000).map(|_| policy.pause(1, false)).collect();
        assert!(pauses.iter().all(|pause| *pause < ms(100)));
        for (from, to) in [(0, 10), (45, 55), (90, 100)] {
            assert!(pauses.iter().any(|pause| (ms(from)..ms(to)).contains(pause)), "{from} to {to}");
        }
        assert_eq!(RetryPolicy::new().backoff(Duration::ZERO, ms(5)).pause(3, true), Duration::ZERO);
    }

    #[test]
    fn zero_attempts_count_as_one() {
        assert_eq!(RetryPolicy::new().attempts(0), RetryPolicy::new().attempts(1));
        assert_eq!((RetryPolicy::never().max_attempts(), RetryPolicy::never().time_limit()), (1, None));
    }
}
