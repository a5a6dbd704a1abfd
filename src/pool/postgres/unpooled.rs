//! Connections outside the pool, which its accounts know of all the same.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::panic::Location;

use deadpool::managed::Manager;

use super::Pool;
use super::client::Client;
use super::error::ConnectError;
use crate::labels::ErrorPhase;
use crate::telemetry::clock::Nanos;
use crate::telemetry::ledger::{Recorder, UnpooledPlace};
use crate::telemetry::operations::OperationId;

/// A connection outside the pool, from [`Pool::connect_unpooled`]. Dropping it closes it.
///
/// It derefs to [`Client`]. It is closed at once, without waiting for what the server is doing for it: to have that
/// given up, [cancel](Client::cancel_token) it before. What is open of a transaction the server rolls back.
#[must_use = "a connection that is not held is closed at once"]
pub struct UnpooledConnection {
    // Dropped first: a connection is counted as closed when it is.
    client: Client,
    account: Account,
}

impl Pool {
    /// A connection of its own to the pool's database, outside the pool and its limit, for the operation that is named
    /// after the caller's file and line.
    ///
    /// It is made by the pool's settings, within `connect_timeout`, and that is all it asks of the pool: it is to be had
    /// where every connection is taken, and where the pool is closed. Closing does not wait for it. Each costs what a
    /// pool is there to save, and counts against the server's `max_connections`; it is for what needs a session to
    /// itself, and for code that does not use the pool yet. Notifications are not delivered: to `LISTEN` takes a
    /// connection whose messages are polled, from tokio-postgres itself.
    ///
    /// It is counted by `poolscope_unpooled_…`, and by no other metric. What passes on its wire is not read.
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
    /// If it cannot be established. That is counted in `poolscope_connection_errors_total`, and the time it took in
    /// `poolscope_unpooled_connect_seconds_total`.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the socket. The time until then is counted as time of connecting.
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
            let mut account = Account::begin(recorder, operation);
            match self.backend().create().await {
                Ok(client) => {
                    account.open();
                    Ok(UnpooledConnection { client, account })
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

/// Has the connection counted, and when it is dropped, no longer. Begun before it is established.
#[derive(Debug)]
struct Account {
    recorder: Recorder,
    operation: OperationId,
    place: UnpooledPlace,
    begun: Nanos,
    open: bool,
}

impl Account {
    fn begin(recorder: &Recorder, operation: OperationId) -> Self {
        let at = recorder.now();
        let place = recorder.unpooled_connecting(operation, at);
        Self { recorder: recorder.clone(), operation, place, begun: at, open: false }
    }

    fn name(&self) -> &str {
        self.recorder.ledger().operations().name(self.operation)
    }

    fn open(&mut self) {
        self.open = true;
        let at = self.recorder.now();
        self.recorder.unpooled_opened(self.place, self.operation, at.duration_since(self.begun), at);
    }
}

impl Drop for Account {
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
        let Self { client, account } = self;
        f.debug_struct("UnpooledConnection").field("operation", &account.name()).field("client", client).finish()
    }
}
