//! What happens to a connection when its holder releases it, in this order:
//!
//! 1. [`guard`]: `Guard::drop` records the use and decides: close, reset or return.
//! 2. [`surplus`]: the connection goes back to deadpool. If that leaves more idle connections than `pool_size`, those
//!    that were idle longest are closed.
//! 3. [`reset_task`]: a connection that is in a transaction, or whose server is still executing, is reset by a task
//!    before it goes back; or it is closed.
//! 4. [`reset`]: drains the connection, cancels or rolls back what is under way, and resets the session. A checkout does
//!    the same with what a return could not see.
//! 5. [`cancel`]: if a connection is closed while the server executes, the server is asked to cancel.

mod cancel;
mod guard;
pub(super) mod reset;
mod reset_task;
mod surplus;

pub use self::guard::Guard;
pub(super) use self::surplus::{after_failed_checkout, close_idle, sweep};
