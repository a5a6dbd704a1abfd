//! The last that a server hears of a connection that is closed while it works.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use super::super::backend::Backend;
use super::super::observed::PooledConnection;
use super::GRACE;
use crate::telemetry::seat::ConnectionStats;
use crate::telemetry::wire::Status;

/// When the server is asked once more.
const AGAIN: Duration = Duration::from_millis(250);

/// Has the server give up what it does for a connection that is about to be closed: it would not notice before it has
/// something to say.
pub(in crate::pool) fn cancel_in_passing<M: Backend>(pooled: &PooledConnection<M>) {
    if pooled.meta.stats.wire().status() == Status::Executing {
        drop(farewell(pooled));
    }
}

/// Dropped, it has the server give up what it does for the connection, if it does anything.
pub(super) struct Farewell<F: Future + Send + 'static> {
    /// Twice: whether the server had begun with the query when it was first asked will not be known.
    pub(super) attempts: Option<[(Duration, F); 2]>,
    stats: Arc<ConnectionStats>,
    runtime: Option<Handle>,
}

pub(super) fn farewell<M: Backend>(
    pooled: &PooledConnection<M>,
) -> Farewell<impl Future<Output: Send> + Send + 'static + use<M>> {
    let attempts = Some([GRACE, AGAIN].map(|wait| (wait, pooled.backend.cancel(&pooled.connection))));
    Farewell { attempts, stats: Arc::clone(&pooled.meta.stats), runtime: pooled.meta.runtime.clone() }
}

impl<F: Future + Send + 'static> Drop for Farewell<F> {
    fn drop(&mut self) {
        if self.stats.wire().status() == Status::Executing
            && let (Some(attempts), Some(runtime)) = (self.attempts.take(), &self.runtime)
        {
            runtime.spawn(async move {
                for (wait, cancelling) in attempts {
                    tokio::time::sleep(wait).await;
                    cancelling.await;
                }
            });
        }
    }
}
