//! The library's lock-free protocols, compiled from its own files, with loom's atomics and locks instead of the standard
//! library's. Each function checks one of them in every order of steps, and with every value that the memory model
//! permits a thread to read, up to the bound of preemptions that loom is given.
//!
//! `tests/protocols.rs` runs them. `LOOM_MAX_PREEMPTIONS=5` is more thorough, and `LOOM_LOG=1` shows the failing order.

// The unit tests of the modelled files are the library's.
#![cfg(not(test))]

use loom::model::Builder;

mod connection;
mod driving;

// The modelled files, and what they import of the library.
#[allow(dead_code, unreachable_pub, reason = "a model uses only a part of each file")]
#[path = "../../../src/wire/driver.rs"]
mod driver;
mod labels;
mod sync;
mod telemetry;

pub use self::connection::{reader_counts_no_use_twice, writers_take_turns};
pub use self::driving::{deferred_check_is_made, settled_task_has_sent_everything, wait_sees_the_last_run};

/// The default number of preemptions in each order.
const PREEMPTIONS: usize = 3;

/// Checks a model in every order.
fn check(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(PREEMPTIONS));
    builder.check(model);
}
