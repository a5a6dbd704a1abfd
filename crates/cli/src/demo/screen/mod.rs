//! What the demo prints: on a terminal a status line, elsewhere one now and then, and at the end a summary.

mod status;
mod summary;

use tokio::sync::watch;

pub(super) use self::status::{Status, clock};
pub(super) use self::summary::{proxied_summary, summary};
use crate::output::OutputState;
use crate::service::{ShutdownReason, request_shutdown};

/// Requests shutdown as soon as standard output is closed or fails.
pub(super) fn watch_output(mut state: watch::Receiver<OutputState>, shutdown: watch::Sender<Option<ShutdownReason>>) {
    tokio::spawn(async move {
        if let Ok(state) = state.wait_for(|state| !matches!(state, OutputState::Open)).await {
            let is_closed = matches!(*state, OutputState::Closed);
            let reason = if is_closed { ShutdownReason::OutputClosed } else { ShutdownReason::Failure };
            request_shutdown(&shutdown, reason);
        }
    });
}
