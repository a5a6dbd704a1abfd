//! One cheap clock for everything that is measured.
//!
//! The processor's time-stamp counter where it is trustworthy (about 10 ns a reading), the operating system's
//! monotonic clock elsewhere: [`quanta`] decides. Deadlines do not use it: they are tokio's timers.

use std::sync::LazyLock;
use std::time::Duration;

/// A moment, in nanoseconds since the first clock of the process was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Nanos(u64);

impl Nanos {
    pub(crate) const ZERO: Self = Self(0);
    /// Later than any moment that will be.
    pub(crate) const NEVER: Self = Self(u64::MAX);

    pub(crate) const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    pub(crate) const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Nanoseconds from `earlier` to `self`; zero if they are the other way round, as two readings on two
    /// processors may be by a hair.
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

/// A duration in nanoseconds; 584 years and more count as 584 years.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A count as a double, which is what Prometheus' samples are: exact up to 2^53.
#[allow(clippy::cast_precision_loss, reason = "nothing here is counted that far")]
pub(crate) fn exact(value: u64) -> f64 {
    value as f64
}

/// Seconds, as Prometheus wants them.
pub(crate) fn seconds(nanos: u64) -> f64 {
    exact(nanos) / 1e9
}

/// Reads the time.
#[derive(Clone, Debug)]
pub struct Clock {
    source: quanta::Clock,
    origin: u64,
}

impl Clock {
    /// The process's clock. The first call calibrates it, which takes up to 200 ms.
    #[must_use]
    pub fn new() -> Self {
        static PROCESS: LazyLock<Clock> = LazyLock::new(|| {
            let source = quanta::Clock::new();
            let origin = source.raw();
            Clock { source, origin }
        });
        PROCESS.clone()
    }

    /// A clock that stands still until its [`quanta::Mock`] is advanced, for tests.
    #[must_use]
    pub fn mock() -> (Self, std::sync::Arc<quanta::Mock>) {
        let (source, hands) = quanta::Clock::mock();
        hands.increment(1);
        (Self { source, origin: 0 }, hands)
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
