//! Limits the lines that a lasting fault repeats.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::telemetry::clock::{Clock, Nanos};

const SECOND: u64 = 1_000_000_000;

/// The bounds of the time between two lines of a limiter. It doubles with each line.
const MIN_INTERVAL_NANOS: u64 = SECOND;
const MAX_INTERVAL_NANOS: u64 = 300 * SECOND;

/// The time without an event after which the next one counts as that of a new fault.
const QUIET_NANOS: u64 = 300 * SECOND;

/// Passes one line for each interval, and counts the others.
///
/// The first line of a fault passes at once, and the intervals grow while it lasts: its beginning is visible in detail,
/// and an hour of it takes some twenty lines.
#[derive(Debug, Default)]
pub(crate) struct Limiter {
    /// When the next line may pass, in nanoseconds of the clock.
    next: AtomicU64,
    /// The interval that ends then; zero before the first line.
    interval: AtomicU64,
    /// When the last event was.
    last: AtomicU64,
    suppressed: AtomicU64,
}

impl Limiter {
    pub(crate) const fn new() -> Self {
        Self {
            next: AtomicU64::new(0),
            interval: AtomicU64::new(0),
            last: AtomicU64::new(0),
            suppressed: AtomicU64::new(0),
        }
    }

    /// Returns the number of lines suppressed since the last one that passed, or `None` if this one is suppressed.
    pub(crate) fn pass(&self, now: Nanos) -> Option<u64> {
        let now = now.as_nanos();
        let is_new_fault = now.saturating_sub(self.last.swap(now, Relaxed)) >= QUIET_NANOS;
        let (next, interval) = (self.next.load(Relaxed), self.interval.load(Relaxed));
        let interval = match interval {
            0 => MIN_INTERVAL_NANOS,
            _ if is_new_fault => MIN_INTERVAL_NANOS,
            interval => interval.saturating_mul(2).min(MAX_INTERVAL_NANOS),
        };
        let passes = now >= next && self.next.compare_exchange(next, now + interval, Relaxed, Relaxed).is_ok();
        if passes {
            self.interval.store(interval, Relaxed);
            Some(self.suppressed.swap(0, Relaxed))
        } else {
            self.suppressed.fetch_add(1, Relaxed);
            None
        }
    }

    /// As [`pass`](Self::pass), by the process's clock, for lines that belong to no pool.
    pub(crate) fn pass_now(&self) -> Option<u64> {
        self.pass(Clock::new().now())
    }
}

/// Limits the lines about a condition that begins and ends, such as an outage: its end is logged only if its beginning
/// was, so that the last line shows the condition as it is. If it has kinds, a change of the kind is logged as well.
#[derive(Debug)]
pub(crate) struct ConditionLimiter<K = ()> {
    beginnings: Limiter,
    /// The kind that was logged last, if the condition's end was not.
    logged: Mutex<Option<K>>,
}

impl<K> Default for ConditionLimiter<K> {
    fn default() -> Self {
        Self { beginnings: Limiter::new(), logged: Mutex::new(None) }
    }
}

impl ConditionLimiter {
    /// Returns the number of suppressed lines if the condition, which holds now, is to be logged. To be called whenever
    /// it is found to hold, so that one whose beginning was suppressed is logged later if it lasts.
    pub(crate) fn holds(&self, now: Nanos) -> Option<u64> {
        self.holds_as((), now)
    }
}

impl<K: PartialEq> ConditionLimiter<K> {
    /// As [`holds`](ConditionLimiter::holds), for a condition that is of this kind now.
    pub(crate) fn holds_as(&self, kind: K, now: Nanos) -> Option<u64> {
        let mut logged = self.logged();
        if logged.as_ref() == Some(&kind) {
            return None;
        }
        let suppressed = self.beginnings.pass(now)?;
        *logged = Some(kind);
        Some(suppressed)
    }

    /// Notes that the condition is logged with this kind although [`holds_as`](Self::holds_as) has just suppressed it.
    /// Returns the number of suppressed lines before.
    fn logs_all_the_same(&self, kind: K) -> u64 {
        *self.logged() = Some(kind);
        self.beginnings.suppressed.swap(0, Relaxed).saturating_sub(1)
    }

    /// Returns whether the end of the condition is to be logged.
    pub(crate) fn ended(&self) -> bool {
        self.logged().take().is_some()
    }

    fn logged(&self) -> MutexGuard<'_, Option<K>> {
        self.logged.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The number of different failures of a file that are logged at once.
const MAX_NEW_FAILURES: usize = 16;

/// Limits the lines about files that are read again when they change. A failure that was not seen before is logged at once,
/// since someone may be trying changes.
#[derive(Debug, Default)]
pub(crate) struct ReloadLimiter {
    replacements: Limiter,
    failures: ConditionLimiter<String>,
    seen: Mutex<Vec<String>>,
}

impl ReloadLimiter {
    /// Returns the number of suppressed lines if the result of a reading, which is that of now, is to be logged.
    pub(crate) fn pass(&self, result: Result<(), &str>) -> Option<u64> {
        self.pass_at(result, Clock::new().now())
    }

    fn pass_at(&self, result: Result<(), &str>, now: Nanos) -> Option<u64> {
        match result {
            Err(error) => {
                let is_new = self.is_new(error);
                let suppressed = self.failures.holds_as(error.to_owned(), now);
                suppressed.or_else(|| is_new.then(|| self.failures.logs_all_the_same(error.to_owned())))
            }
            Ok(()) => {
                let has_ended = self.failures.ended();
                self.replacements.pass(now).or(has_ended.then_some(0))
            }
        }
    }

    fn is_new(&self, error: &str) -> bool {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = seen.len() < MAX_NEW_FAILURES && !seen.iter().any(|known| known == error);
        if is_new {
            seen.push(error.to_owned());
        }
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Nanos {
        Nanos::from_nanos(seconds * SECOND)
    }

    #[test]
    fn intervals_of_a_lasting_fault_double() {
        let limiter = Limiter::default();
        let mut passed = Vec::new();
        let mut suppressed = 0;
        for second in 7..=3607 {
            if let Some(count) = limiter.pass(at(second)) {
                passed.push(second - 7);
                suppressed += count;
            }
        }
        assert_eq!(passed[..10], [0, 1, 3, 7, 15, 31, 63, 127, 255, 511]);
        assert_eq!((passed[10], passed.len()), (811, 20));
        assert_eq!(suppressed + 20 + limiter.suppressed.into_inner(), 3601, "each event is a line or counted in one");
    }

    #[test]
    fn new_fault_after_a_quiet_time_starts_anew() {
        let limiter = Limiter::default();
        let lines = |from| (from..from + 60).filter(|second| limiter.pass(at(*second)).is_some()).count();
        assert_eq!((lines(0), lines(60)), (6, 1));
        // 300 s after the last event.
        assert_eq!((lines(419), limiter.pass(at(4190))), (6, Some(28)));
    }

    #[test]
    fn end_of_a_condition_is_logged_if_its_beginning_was() {
        let condition: ConditionLimiter = ConditionLimiter::default();
        assert!(!condition.ended());
        let flap = |second| (condition.holds(at(second)), condition.ended());
        assert_eq!([flap(10), flap(10), flap(11)], [(Some(0), true), (None, false), (Some(1), true)]);
        // Its beginning is suppressed, and it lasts.
        assert_eq!([condition.holds(at(12)), condition.holds(at(13)), condition.holds(at(14))], [None, Some(1), None]);
        assert!(condition.ended() && !condition.ended());
    }

    #[test]
    fn reloads_of_a_flapping_file_are_counted_together() {
        let limiter = ReloadLimiter::default();
        let lines = (0..3600).filter(|second| limiter.pass_at(Ok(()), at(*second)).is_some()).count();
        assert_eq!(lines, 20, "replaced each second");

        let limiter = ReloadLimiter::default();
        let result = |second: u64| if second.is_multiple_of(2) { Err("empty") } else { Ok(()) };
        let lines = (0..3600).filter(|second| limiter.pass_at(result(*second), at(*second)).is_some()).count();
        assert!((20..80).contains(&lines), "{lines}");

        let limiter = ReloadLimiter::default();
        let results = [
            (10, Err("a")),
            (11, Err("a")),
            (20, Err("b")),
            (20, Ok(())),
            (21, Err("b")),
            (90, Err("b")),
            (91, Ok(())),
        ];
        let passed = results.map(|(second, result)| limiter.pass_at(result, at(second)));
        assert_eq!(passed, [Some(0), None, Some(0), Some(0), None, Some(1), Some(0)]);

        let limiter = ReloadLimiter::default();
        let passed = ["a", "b", "c", "a", "d"].map(|error| limiter.pass_at(Err(error), at(10)));
        assert_eq!(passed, [Some(0), Some(0), Some(0), None, Some(1)], "failures that were not seen before");
        let texts: Vec<_> = (0..100).map(|number| format!("line {number}")).collect();
        let lines = texts.iter().filter(|text| limiter.pass_at(Err(text), at(11)).is_some()).count();
        assert!(lines <= MAX_NEW_FAILURES, "{lines}");
    }

    #[test]
    fn changed_kind_of_a_condition_is_logged() {
        let condition = ConditionLimiter::default();
        let seconds = [(10, "down"), (11, "down"), (20, "password"), (21, "password"), (21, "down"), (30, "down")];
        let passed = seconds.map(|(second, kind)| condition.holds_as(kind, at(second)));
        assert_eq!(passed, [Some(0), None, Some(0), None, None, Some(1)]);
        assert!(condition.ended() && !condition.ended());
    }
}
