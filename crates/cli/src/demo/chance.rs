//! What is left to chance: when things come, and how long they take.

use std::time::Duration;

/// A time at random, with this mean in seconds, as far apart as things are that do not know of each other.
/// Five times the mean at most.
pub(super) fn exponential(mean: f64) -> Duration {
    let factor = -(1.0 - fastrand::f64()).ln();
    Duration::from_secs_f64(mean * factor.min(5.0))
}

/// A time at random between two, in seconds.
pub(super) fn between([least, most]: [f64; 2]) -> Duration {
    Duration::from_secs_f64(least + (most - least) * fastrand::f64())
}

/// Whether something happens that does once in so many times.
pub(super) fn one_in(times: u32) -> bool {
    fastrand::u32(0..times) == 0
}
