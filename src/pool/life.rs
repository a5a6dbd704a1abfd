//! A connection's life in the accounts: begun before it is established, ended exactly once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::shared::Shared;
use crate::event::{CloseReason, Event};
use crate::telemetry::clock::{Nanos, nanos};
use crate::telemetry::operations::OperationId;
use crate::telemetry::seat::Seat;

/// Travels with a connection and closes its account when dropped.
#[derive(Debug)]
pub(super) struct Life {
    pub(super) shared: Arc<Shared>,
    pub(super) seat: Arc<Seat>,
    /// When it was established; until then, when connecting began.
    pub(super) created_at: Nanos,
    pub(super) expires_at: Nanos,
    /// When it was last seen alive: established, pinged or returned. A return proves less than the others: the holder
    /// may not have used it.
    pub(super) alive_at: Nanos,
    /// Whether that is in doubt: the last use failed, perhaps because the connection is at its end.
    pub(super) doubtful: bool,
    /// When it was last found fit to be handed out.
    pub(super) ready_at: Nanos,
    /// What dropping it would mean.
    pub(super) reason: CloseReason,
    closed: AtomicBool,
}

impl Life {
    /// Opens an account for a connection that is being established.
    pub(super) fn begin(shared: Arc<Shared>, operation: OperationId, at: Nanos) -> Self {
        let seat = Arc::new(Seat::new(operation, at));
        shared.watchers.emit(Event::ConnectionCreating { seat: &seat });
        Self {
            shared,
            seat,
            created_at: at,
            expires_at: Nanos::NEVER,
            alive_at: at,
            doubtful: false,
            ready_at: at,
            reason: CloseReason::ConnectAbandoned,
            closed: AtomicBool::new(false),
        }
    }

    /// The connection works.
    pub(super) fn established(&mut self, at: Nanos) {
        let took = at.duration_since(self.created_at);
        self.created_at = at;
        self.alive_at = at;
        self.ready_at = at;
        self.reason = CloseReason::Shutdown;
        if let Some(recycle_after) = self.shared.policy.recycle_after {
            // Up to a tenth earlier, so that connections made together do not all die together.
            let whole = nanos(recycle_after);
            self.expires_at = at.after(recycle_after - Duration::from_nanos(fastrand::u64(0..=whole / 10)));
        }
        self.shared.watchers.emit(Event::ConnectionCreated { seat: &self.seat, took });
    }

    /// Closes the account, once: before the connection's place is given to another, so that never more are counted
    /// than there may be.
    pub(super) fn close(&self, reason: CloseReason) {
        if self.settle(reason) {
            self.announce(reason);
        }
    }

    /// Closes the account and tells nobody yet, for where a lock is held that a log line must not wait under.
    pub(super) fn settle(&self, reason: CloseReason) -> bool {
        let first = !self.closed.swap(true, Ordering::Relaxed);
        if first {
            self.shared.watchers.ledger().record(Event::ConnectionClosed { seat: &self.seat, reason });
        }
        first
    }

    /// Tells of what [`settle`](Self::settle) did.
    pub(super) fn announce(&self, reason: CloseReason) {
        self.shared.watchers.log(Event::ConnectionClosed { seat: &self.seat, reason });
        self.shared.notify_if_closing();
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.close(self.reason);
    }
}
