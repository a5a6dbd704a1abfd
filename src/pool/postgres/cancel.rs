//! Cancels what a connection is doing.

use std::fmt;
use std::sync::Arc;

use super::connect::Connector;
use super::error::ConnectError;
use super::peer::Peer;

/// Cancels what a connection is doing, from anywhere and while the connection is borrowed.
///
/// It belongs to the connection rather than to a query: once the connection is returned, it may be the next holder's
/// query that it cancels.
#[derive(Clone)]
pub struct CancelToken {
    token: tokio_postgres::CancelToken,
    connector: Connector,
    peer: Arc<Peer>,
}

impl CancelToken {
    pub(super) fn new(token: tokio_postgres::CancelToken, connector: Connector, peer: Arc<Peer>) -> Self {
        Self { token, connector, peer }
    }

    /// Asks the server to cancel what the connection is doing, and returns when the server has taken note.
    ///
    /// The request goes to the server and address that the connection leads to, under the same `sslmode`, all within
    /// `connect_timeout`. The server answers by closing, and does so only when it has sent the signal: a query that is
    /// sent after this returned is not hit by it. Whether there was anything to cancel it does not say; a query that was
    /// cancelled ends with the SQLSTATE 57014.
    ///
    /// # Errors
    ///
    /// If the server cannot be reached, or does not close in time. It may have cancelled in the latter case.
    pub async fn cancel(&self) -> Result<(), ConnectError> {
        self.connector.cancel(&self.token, &self.peer).await
    }

    /// The same as [`cancel`](Self::cancel), for code that was written for tokio-postgres's token.
    ///
    /// Its argument is not needed: the pool's own TLS is used.
    ///
    /// # Errors
    ///
    /// As of [`cancel`](Self::cancel).
    pub async fn cancel_query<T>(&self, tls: T) -> Result<(), ConnectError> {
        drop(tls);
        self.cancel().await
    }
}

/// Without the key, by which anyone could cancel.
impl fmt::Debug for CancelToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancelToken").field("peer", &self.peer).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "cancel_tests.rs"]
mod tests;
