//! What an operation took.

use std::time::Duration;

/// How often an operation was tried, and where its time went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// How often its work was done or a connection for it asked for, the last time included.
    pub attempts: u32,
    /// For how long it waited for connections: its checkouts, failed ones included.
    pub waiting: Duration,
    /// For how long it held connections: its work, failed attempts included.
    pub executing: Duration,
    /// For how long it paused between its attempts.
    pub backing_off: Duration,
}

/// What an operation came to, and what that took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Completed<T> {
    /// What the work answered.
    pub value: T,
    /// What it took.
    pub report: Report,
}
