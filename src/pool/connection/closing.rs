//! Connections that the server may go on executing for after they are closed.
//!
//! The server notices the end of a connection only when it sends or reads next. Until then its backend exists, so the
//! connection keeps its place in the pool: otherwise each abandoned query would allow one more backend.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::time::{Instant, timeout, timeout_at};

use super::super::backend::SessionEnd;
use super::super::shared::Shared;
use super::ConnectionMeta;
use crate::labels::CloseReason;
use crate::telemetry::connection::ConnectionStats;
use crate::telemetry::operations::OperationId;

/// A connection that is closing. Dropping it frees its place.
struct Closing {
    shared: Arc<Shared>,
    stats: Arc<ConnectionStats>,
    operation: OperationId,
    reason: CloseReason,
    /// `Some` until it is awaited.
    end: Option<SessionEnd>,
    /// Whether the server has let go of the connection.
    ended: bool,
}

/// Frees the connection's place when `end` is ready, or after `close_timeout`.
pub(super) fn await_end(meta: &ConnectionMeta, end: impl Future<Output = ()> + Send + 'static, reason: CloseReason) {
    let Some(runtime) = &meta.runtime else { return };
    let (shared, stats, limit) = (&meta.shared, Arc::clone(&meta.stats), meta.shared.settings.close_timeout);
    let operation = meta.last_operation;
    let end: SessionEnd = Box::pin(end);
    let closing = Closing { shared: Arc::clone(shared), stats, operation, reason, end: Some(end), ended: false };
    // If the runtime is shut down, the work is dropped at once.
    shared.background.spawn(shared, runtime, limit, closing.until(Instant::now() + limit));
}

/// Ends the session of a connection whose runtime does not run, as far as that is possible from the current one: its
/// query can be cancelled, but its socket not closed.
pub(super) fn end_elsewhere(shared: &Shared, end: impl Future<Output = ()> + Send + 'static) {
    if let Ok(runtime) = Handle::try_current() {
        drop(runtime.spawn(timeout(shared.settings.close_timeout, end)));
    }
}

impl Closing {
    async fn until(mut self, deadline: Instant) {
        if let Some(end) = self.end.take() {
            self.ended = timeout_at(deadline, end).await.is_ok();
        }
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        let Self { shared, stats, operation, reason, end, ended } = self;
        if !*ended {
            shared.recorder.close_timed_out(*operation);
        }
        shared.recorder.ledger().connection_closed(stats, *reason);
        shared.connection_gone(*reason);
        if *reason == CloseReason::ConnectFailed {
            // Unlike one that the server refused, it had a slot.
            shared.gate.slot_freed();
        }
        // Its runtime has not run since, or has ended.
        if let Some(end) = end.take() {
            end_elsewhere(shared, end);
        }
    }
}
