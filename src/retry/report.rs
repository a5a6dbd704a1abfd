//! The number and durations of an operation's attempts.

use std::time::Duration;

/// The number of attempts of an operation, and the time spent in each phase, summed over all attempts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// The number of attempts, including one that failed to check out.
    pub attempts: u32,
    /// The time spent waiting for connections, including failed checkouts.
    pub waiting: Duration,
    /// The time connections were held, including failed attempts.
    pub executing: Duration,
    /// The time spent pausing between attempts.
    pub backing_off: Duration,
}

/// The value of a successful operation, and its report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Completed<T> {
    /// The value that the work returned.
    pub value: T,
    /// The number and durations of the attempts.
    pub report: Report,
}
