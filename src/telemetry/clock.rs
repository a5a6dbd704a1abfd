//! The clock of all measurements.
//!
//! [`quanta`] reads the processor's time-stamp counter where it is reliable (about 10 ns per reading), and the
//! operating system's monotonic clock elsewhere. Deadlines do not use this clock; they are tokio timers.

use std::sync::LazyLock;
use std::time::Duration;

/// A point in time, in nanoseconds since the first clock of the process was created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Nanos(u64);

impl Nanos {
    pub(crate) const ZERO: Self = Self(0);
    /// Later than any other point in time.
    pub(crate) const NEVER: Self = Self(u64::MAX);

    pub(crate) const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    pub(crate) const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Returns the nanoseconds from `earlier` to `self`, or zero if `earlier` is later: readings on two processors may
    /// differ slightly.
    pub(crate) const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    pub(crate) const fn duration_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.since(earlier))
    }

    pub(crate) fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(nanos(duration)))
    }
}

/// Returns a duration in nanoseconds, at most `u64::MAX` (584 years).
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Returns a count as the double of a Prometheus sample. Exact up to 2^53.
#[allow(clippy::cast_precision_loss, reason = "no count here exceeds 2^53")]
pub(crate) fn to_f64(value: u64) -> f64 {
    value as f64
}

/// Returns nanoseconds in seconds, the unit of Prometheus.
pub(crate) fn seconds(nanos: u64) -> f64 {
    to_f64(nanos) / 1e9
}

/// A clock that measures the events of a pool.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    source: quanta::Clock,
    origin: u64,
}

impl Clock {
    /// Returns the process's clock. The first call calibrates it, which takes up to 200 ms.
    #[must_use]
    pub(crate) fn new() -> Self {
        static PROCESS: LazyLock<Clock> = LazyLock::new(|| {
            let source = quanta::Clock::new();
            let origin = source.raw();
            Clock { source, origin }
        });
        PROCESS.clone()
    }

    /// Returns a clock for tests that advances only when its [`quanta::Mock`] does.
    #[must_use]
    pub(crate) fn mock() -> (Self, std::sync::Arc<quanta::Mock>) {
        let (source, mock) = quanta::Clock::mock();
        mock.increment(1);
        (Self { source, origin: 0 }, mock)
    }

    #[inline]
    pub(crate) fn now(&self) -> Nanos {
        Nanos(self.source.delta_as_nanos(self.origin, self.source.raw()))
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}
