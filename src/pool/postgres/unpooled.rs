//! Connections outside the pool, which the pool counts nevertheless.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::panic::Location;

use deadpool::managed::Manager;

use super::super::pool::Pool;
use super::client::Client;
use super::error::ConnectError;
use crate::labels::ErrorPhase;
use crate::telemetry::clock::Nanos;
use crate::telemetry::ledger::{Recorder, UnpooledId};
use crate::telemetry::operations::OperationId;

/// A connection outside the pool, from [`Pool::connect_unpooled`].
///
/// It dereferences to [`Client`]. Dropping it closes the connection at once, without waiting for a running query; to
/// stop that, [cancel](Client::cancel_token) it before. The server rolls back an open transaction.
#[must_use = "dropping the connection closes it"]
pub struct UnpooledConnection {
    // Dropped first, so that the connection is closed before it is counted as closed.
    client: Client,
    tracker: UnpooledTracker,
}

impl Pool {
    /// Opens a connection to the pool's database outside the pool and its limit, for the operation named after the
    /// caller's file and line.
    ///
    /// It uses the pool's settings and `connect_timeout`, but is otherwise independent of the pool: it is also
    /// available when all connections are in use or the pool is closed, and closing the pool does not wait for it. It
    /// costs the setup that a pool avoids, and counts against the server's `max_connections`. Use it for work that
    /// needs a session to itself, and for code that does not use the pool yet. Notifications are not delivered: use
    /// [`listen`](Self::listen).
    ///
    /// It is counted in `poolscope_unpooled_…` and in no other metric. The protocol observer does not read it.
    ///
    /// ```no_run
    /// # async fn example(pool: poolscope::Pool) -> Result<(), Box<dyn std::error::Error>> {
    /// let connection = pool.connect_unpooled().await?;
    /// // The session's, so it is held for as long as the connection is.
    /// connection.execute("SELECT pg_advisory_lock(42)", &[]).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Returns an error if the connection cannot be established. The error is counted in
    /// `poolscope_connection_errors_total`, and the time in `poolscope_unpooled_connect_seconds_total`.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the socket. The time until then counts as connect time.
    #[track_caller]
    pub fn connect_unpooled(&self) -> impl Future<Output = Result<UnpooledConnection, ConnectError>> + Send {
        self.connect_unpooled_at(Location::caller())
    }

    pub(crate) fn connect_unpooled_at(
        &self,
        call_site: &'static Location<'static>,
    ) -> impl Future<Output = Result<UnpooledConnection, ConnectError>> + Send {
        let recorder = &self.shared().recorder;
        let (operation, _) = recorder.operation_at(call_site);
        async move {
            let mut tracker = UnpooledTracker::start(recorder, operation);
            match self.backend().create().await {
                Ok(client) => {
                    tracker.opened();
                    Ok(UnpooledConnection { client, tracker })
                }
                Err(error) => {
                    let (phase, code) = (ErrorPhase::Connect, error.code());
                    recorder.connection_error(phase, code, &error);
                    Err(error)
                }
            }
        }
    }
}

/// Counts a connection from the start of connecting until it is dropped.
#[derive(Debug)]
pub(super) struct UnpooledTracker {
    recorder: Recorder,
    operation: OperationId,
    place: UnpooledId,
    started: Nanos,
    open: bool,
}

impl UnpooledTracker {
    pub(super) fn start(recorder: &Recorder, operation: OperationId) -> Self {
        let at = recorder.now();
        let place = recorder.unpooled_connecting(operation, at);
        Self { recorder: recorder.clone(), operation, place, started: at, open: false }
    }

    fn name(&self) -> &str {
        self.recorder.ledger().operations().name(self.operation)
    }

    pub(super) fn opened(&mut self) {
        self.open = true;
        let at = self.recorder.now();
        self.recorder.unpooled_opened(self.place, self.operation, at.duration_since(self.started), at);
    }
}

impl Drop for UnpooledTracker {
    fn drop(&mut self) {
        self.recorder.unpooled_closed(self.place, self.operation, self.open, self.recorder.now());
    }
}

impl Deref for UnpooledConnection {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl DerefMut for UnpooledConnection {
    fn deref_mut(&mut self) -> &mut Client {
        &mut self.client
    }
}

impl fmt::Debug for UnpooledConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { client, tracker } = self;
        f.debug_struct("UnpooledConnection").field("operation", &tracker.name()).field("client", client).finish()
    }
}
