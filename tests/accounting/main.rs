//! Accounting of the pool: whatever happens to a checkout, it is counted exactly once, nothing leaks, and the pool
//! stays
//! usable.
//!
//! - `backend`, `harness` and `invariants`: a scripted backend that counts for itself, a pool over it that is polled by
//!   hand, and the invariants of every snapshot;
//! - `cancellation`: every backend behavior at every step of a checkout, and every way to end one early;
//! - `property`: random sequences of steps against a model that is exact to the nanosecond;
//! - `stress`: many threads, with snapshots checked all the time;
//! - the others: one aspect each.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod backend;
mod cancellation;
mod closing;
mod closing_connections;
mod connect_permits;
mod detached;
mod exposition;
mod gate;
mod harness;
mod hook;
mod idle_timeout;
mod invariants;
mod log_lines;
mod operations;
mod overflow;
mod panics;
mod pinging;
mod property;
#[cfg(feature = "middleware")]
mod replacement;
mod requests;
mod resets;
mod resize;
mod retries;
mod stress;
mod waiting;
mod warm_up;
