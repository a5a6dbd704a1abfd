//! The call of the backend's hook with a connection that is about to be handed out.

use std::sync::Arc;

use super::super::backend::Backend;
use super::PooledConnection;
use crate::labels::{CloseReason, ErrorPhase};
use crate::telemetry::operations::OperationId;

/// Calls [`Backend::before_checkout`] on behalf of `operation`, to which the time counts as its use. A failure is recorded.
///
/// # Errors
///
/// Returns the hook's error. The caller must close the connection.
///
/// # Cancel safety
///
/// If the future is dropped, the caller must close the connection.
pub(super) async fn call_before_checkout<M: Backend>(
    pooled: &mut PooledConnection<M>,
    operation: OperationId,
) -> Result<(), M::Error> {
    let PooledConnection { connection, meta, backend } = pooled;
    let (backend, recorder) = (Arc::clone(backend), &meta.shared.recorder);
    let began = recorder.now();
    recorder.maintenance_started(&meta.stats, operation, began);
    meta.reason = CloseReason::HookAbandoned;
    // Whatever the hook leaves executing is this operation's.
    meta.last_operation = operation;
    let called = backend.before_checkout(connection).await;
    let at = recorder.now();
    recorder.maintenance_finished(&meta.stats, operation, began, at);
    match called {
        Ok(()) => {
            meta.reason = CloseReason::Shutdown;
            meta.ready_at = at;
            Ok(())
        }
        Err(error) => {
            meta.reason = CloseReason::HookFailed;
            recorder.connection_error(ErrorPhase::Hook, M::code(&error), &error);
            Err(error)
        }
    }
}
