//! A connection's life in the accounts: begun before it is established, ended exactly once.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::shared::Shared;
use super::wire::DriverActivity;
use crate::labels::CloseReason;
use crate::telemetry::clock::{Nanos, nanos};
use crate::telemetry::operations::OperationId;
use crate::telemetry::seat::ConnectionStats;

/// Travels with a connection and closes its account when dropped.
#[derive(Debug)]
pub(super) struct ConnectionMeta {
    pub(super) shared: Arc<Shared>,
    pub(super) stats: Arc<ConnectionStats>,
    /// When it was established; until then, when connecting began.
    pub(super) created_at: Nanos,
    pub(super) expires_at: Nanos,
    /// When it was last seen alive: established, pinged, or heard of on the wire. Where the wire is not read, a return
    /// counts too, and proves less than the others: the holder may not have used it.
    pub(super) alive_at: Nanos,
    /// Whether that is in doubt: the last use failed, perhaps because the connection is at its end.
    pub(super) doubtful: bool,
    /// Since when what it has cached of statements is good.
    pub(super) prepared_since: Nanos,
    /// Whether the server refused a write as one that takes none, so that it is to be asked whether it is a standby.
    pub(super) refused_write: bool,
    /// When it was last found fit to be handed out.
    pub(super) ready_at: Nanos,
    /// What dropping it would mean.
    pub(super) reason: CloseReason,
    /// For whom it was last used.
    pub(super) last_operation: OperationId,
    /// Whether its session is to be reset before anyone else gets it.
    pub(super) unreset: bool,
    /// Whether its task has come to all that it was asked.
    pub(super) driver: Arc<DriverActivity>,
    /// Where it was made, for what has to be done when nobody waits for it.
    pub(super) runtime: Option<tokio::runtime::Handle>,
    /// Why its account was closed, once it was.
    closed: OnceLock<CloseReason>,
}

impl ConnectionMeta {
    /// Opens an account for a connection that is being established.
    pub(super) fn begin(shared: Arc<Shared>, operation: OperationId, at: Nanos) -> Self {
        let stats = Arc::new(ConnectionStats::new(operation, at));
        shared.recorder.connection_creating(&stats);
        Self {
            shared,
            stats,
            created_at: at,
            expires_at: Nanos::NEVER,
            alive_at: at,
            doubtful: false,
            prepared_since: at,
            refused_write: false,
            ready_at: at,
            reason: CloseReason::ConnectAbandoned,
            last_operation: operation,
            unreset: false,
            driver: Arc::default(),
            runtime: tokio::runtime::Handle::try_current().ok(),
            closed: OnceLock::new(),
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
        self.shared.recorder.connection_created(&self.stats, took);
    }

    /// Whether all that was asked of the connection has reached the wire, and it is as the next one may have it.
    #[inline]
    pub(super) fn is_settled(&self) -> bool {
        self.driver.is_settled() && self.stats.wire().status().is_clean() && !self.unreset && !self.refused_write
    }

    /// Closes the account, once: before the connection's place is given to another, so that never more are counted
    /// than there may be. It is told when the connection itself is gone, which is when this is dropped; and not here,
    /// where a lock may be held that a log line must not wait under.
    pub(super) fn close(&self, reason: CloseReason) {
        if self.closed.set(reason).is_ok() {
            self.shared.recorder.ledger().connection_closed(&self.stats, reason);
        }
    }
}

impl Drop for ConnectionMeta {
    fn drop(&mut self) {
        self.close(self.reason);
        let reason = *self.closed.get().unwrap_or(&self.reason);
        self.shared.recorder.log().connection_closed(reason);
        // One that was refused had none.
        if reason != CloseReason::ConnectFailed {
            self.shared.gate.slot_freed();
        }
        self.shared.notify_if_closing();
    }
}
