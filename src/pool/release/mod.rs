//! The release of a connection by its holder, in this order:
//!
//! 1. [`guard`]: `Guard::drop` records the use and decides: close, reset or return.
//! 2. [`surplus`]: the connection is returned to deadpool. If that leaves more idle connections than `pool_size`, those
//!    that were idle longest are closed.
//! 3. [`reset_task`]: a connection that is in a transaction, or whose server is still executing, is reset by a task
//!    before it is returned; or it is closed. A checkout that finds no idle connection meanwhile waits for it, but not
//!    for long ([`resets`]).
//! 4. [`reset`]: drains the connection, cancels its query, rolls back its transaction and resets the session. A
//!    checkout does the same if the return could not detect it.
//! 5. A connection that is closed while the server executes keeps its place until the server has let go of it; see
//!    `connection::closing`. This and the reset are [`background`] work.

mod background;
mod guard;
mod hold;
pub(super) mod reset;
mod reset_task;
mod resets;
mod surplus;

use std::time::Duration;

pub(super) use self::background::Background;
pub use self::guard::Guard;
pub(crate) use self::hold::{CancelHold, HolderCancels};
pub(super) use self::reset::drained;
pub(super) use self::resets::{ResetWait, Resets, wait_for_reset};
pub(super) use self::surplus::{
    after_failed_checkout, close_beyond_limits, close_expired, close_idle, return_unused, sweep,
};

/// How long an abandoned query may run before it is cancelled at the server. Most end sooner than a cancel request
/// takes, which needs its own connection.
pub(in crate::pool) const CANCEL_DELAY: Duration = Duration::from_millis(5);
