//! The accounts against the truth: whatever happens to a checkout, it is counted once, nothing leaks, and the pool
//! still works.
//!
//! - `backend`, `harness` and `invariants`: a backend whose answers are scripted and which knows what really lives, a pool
//!   over it that is polled by hand, and the invariants that every snapshot must keep;
//! - `cancellation`: every answer at every step of a checkout, and every way to end one early;
//! - `property`: random sequences of steps against a model, which is exact to the nanosecond;
//! - `stress`: many threads at once, and somebody who looks at every moment;
//! - the others: one promise each, in words.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod backend;
mod cancellation;
mod closing;
mod connect_permits;
mod exposition;
mod gate;
mod harness;
mod invariants;
mod operations;
mod overflow;
mod pinging;
mod property;
#[cfg(feature = "middleware")]
mod requests;
mod retries;
mod stress;
mod waiting;
