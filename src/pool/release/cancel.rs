//! Cancel requests for connections that are closed while the server executes.
//!
//! The server would otherwise go on until it has something to send.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use super::super::backend::Backend;
use super::super::connection::PooledConnection;
use crate::telemetry::connection::ConnectionStats;
use crate::telemetry::wire::SessionStatus;

/// How long an abandoned query may run before it is cancelled at the server. Most end sooner than a cancel request
/// takes, which needs its own connection.
pub(in crate::pool) const CANCEL_DELAY: Duration = Duration::from_millis(5);

/// The time between the two cancel requests.
const SECOND_CANCEL_DELAY: Duration = Duration::from_millis(250);

/// Cancels what the server executes for a connection that is about to be closed.
pub(super) fn cancel_if_executing<M: Backend>(pooled: &PooledConnection<M>) {
    if pooled.meta.stats.wire().status() == SessionStatus::Executing {
        drop(cancel_on_drop(pooled));
    }
}

/// Cancels what the server executes for a connection when dropped, unless disarmed.
pub(super) struct CancelOnDrop<F: Future + Send + 'static> {
    /// Two requests: the first may arrive before the server has begun with the query, which would not be noticed.
    requests: Option<[(Duration, F); 2]>,
    stats: Arc<ConnectionStats>,
    runtime: Option<Handle>,
}

pub(super) fn cancel_on_drop<M: Backend>(
    pooled: &PooledConnection<M>,
) -> CancelOnDrop<impl Future<Output: Send> + Send + 'static + use<M>> {
    let requests = [CANCEL_DELAY, SECOND_CANCEL_DELAY].map(|delay| (delay, pooled.backend.cancel(&pooled.connection)));
    let (stats, runtime) = (Arc::clone(&pooled.meta.stats), pooled.meta.runtime.clone());
    CancelOnDrop { requests: Some(requests), stats, runtime }
}

impl<F: Future + Send + 'static> CancelOnDrop<F> {
    pub(super) fn disarm(&mut self) {
        self.requests = None;
    }
}

impl<F: Future + Send + 'static> Drop for CancelOnDrop<F> {
    fn drop(&mut self) {
        if self.stats.wire().status() == SessionStatus::Executing
            && let (Some(requests), Some(runtime)) = (self.requests.take(), &self.runtime)
        {
            runtime.spawn(async move {
                for (delay, request) in requests {
                    tokio::time::sleep(delay).await;
                    request.await;
                }
            });
        }
    }
}
