//! Random durations and events.

use std::time::Duration;

/// Returns an exponentially distributed duration with this mean in seconds, at most five times the mean.
pub(super) fn exponential(mean: f64) -> Duration {
    let factor = -(1.0 - fastrand::f64()).ln();
    Duration::from_secs_f64(mean * factor.min(5.0))
}

/// Returns a uniformly distributed duration between two bounds in seconds.
pub(super) fn between([least, most]: [f64; 2]) -> Duration {
    Duration::from_secs_f64(least + (most - least) * fastrand::f64())
}

/// Returns true with a probability of 1 / `n`.
pub(super) fn one_in(n: u32) -> bool {
    fastrand::u32(0..n) == 0
}
