//! Cancels the current query of a connection.

use std::fmt;
use std::sync::Arc;

use super::connect::Connector;
use super::error::ConnectError;
use super::peer::Peer;

/// Cancels the current query of a connection, from anywhere and while the connection is borrowed.
///
/// It belongs to the connection rather than to a query: after the connection is returned to the pool, it may cancel the
/// query of the connection's next user.
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

    /// Requests cancellation from the server, and returns when the server has processed the request.
    ///
    /// The request goes to the address that the connection is connected to, with the same `sslmode`, within
    /// `connect_timeout`. The server closes the request's connection after it has sent the signal, so a query sent
    /// after this method returns is not cancelled. A cancelled query ends with SQLSTATE 57014; the server does not
    /// report whether there was one.
    ///
    /// # Errors
    ///
    /// Returns an error if the server cannot be reached or does not close the connection in time. In the latter case it
    /// may have cancelled.
    pub async fn cancel(&self) -> Result<(), ConnectError> {
        self.connector.cancel(&self.token, &self.peer).await
    }

    /// Like [`cancel`](Self::cancel), with the signature of tokio-postgres's token. The argument is ignored: the pool's
    /// TLS configuration is used.
    ///
    /// # Errors
    ///
    /// Same as [`cancel`](Self::cancel).
    pub async fn cancel_query<T>(&self, tls: T) -> Result<(), ConnectError> {
        drop(tls);
        self.cancel().await
    }
}

/// Omits the secret key, which allows cancellation.
impl fmt::Debug for CancelToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancelToken").field("peer", &self.peer).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "cancel_tests.rs"]
mod tests;
