//! The library's concurrent protocols, compiled from its own files, with loom's atomics and locks instead of the standard
//! library's. Each function checks one of them in every order of steps, and with every value that the memory model
//! permits a thread to read, up to the bound of preemptions that loom is given.
//!
//! `tests/protocols.rs` runs them. `LOOM_MAX_PREEMPTIONS=5` is more thorough, and `LOOM_LOG=1` shows the failing order.

// The unit tests of the modelled files are the library's.
#![cfg(not(test))]

use loom::model::Builder;

mod connection;
mod driving;
mod waiting;

// The modelled files, and what they import of the library.
#[allow(dead_code, unreachable_pub, reason = "a model uses only a part of each file")]
#[path = "../../../src/wire/driver.rs"]
mod driver;
mod error;
mod labels;
mod pool;
mod sync;
mod telemetry;
mod text;

pub use self::connection::{reader_counts_no_use_twice, writers_take_turns};
pub use self::driving::{deferred_check_is_made, settled_task_has_sent_everything, wait_sees_the_last_run};
pub use self::pool::admission::{
    cancelled_wait_passes_its_wake_up_on, limit_of_the_ramp_holds, one_checkout_probes_at_a_time,
};
pub use self::pool::returning::{
    cancelled_checkout_leaves_no_surplus, last_return_closes_the_surplus, resized_pool_keeps_its_places,
    served_checkout_hides_no_surplus, shrunk_pool_withholds_its_places,
};
pub use self::waiting::{hint_follows_the_queue, keys_are_used_once, reader_sees_each_checkout_once};

/// The default number of preemptions in each order.
const PREEMPTIONS: usize = 3;

/// Checks a model in every order.
fn check(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(PREEMPTIONS));
    builder.check(model);
}
