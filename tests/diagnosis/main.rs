//! The diagnosis against faults of known causes, on real servers.
//!
//! `cases` is the table of faults and healthy workloads. `make diagnose` runs all of them and records each (`recordings/`);
//! the recordings are diagnosed again here without a server, so that a changed rule shows which verdicts change.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cases;
mod child;
mod clock;
mod evaluation;
mod load;
mod matrix;
mod recordings;
mod runs;
