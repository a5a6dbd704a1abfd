//! The graceful shutdown of a component.

use tokio::sync::watch;

/// How far the shutdown of a component has progressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum DrainState {
    /// It accepts requests.
    Running,
    /// It accepts no more requests, and completes those in flight.
    Draining,
    /// It aborts the requests in flight.
    Aborted,
}

impl DrainState {
    /// Waits until this state is reached, or the sender is dropped.
    pub(super) async fn reached(self, state: &mut watch::Receiver<Self>) {
        let _ = state.wait_for(|state| *state >= self).await;
    }
}
