//! Cancels the current query of a connection.

use std::fmt;
use std::sync::Arc;

use super::connect::Connector;
use super::error::ConnectError;
use super::peer::Peer;
use crate::pool::release::CancelHold;

/// Cancels the current query of a connection, from anywhere and while the connection is borrowed.
///
/// It belongs to the hold in which it was created: once the connection is returned to the pool, it does nothing. If a
/// request is under way at the return, the pool waits for its end before the next use, for at most `clean_timeout`;
/// after that, or if the request failed at an unknown stage, the connection is closed. The token of a connection outside
/// the pool is valid for as long as the connection.
#[derive(Clone)]
pub struct CancelToken {
    request: CancelRequest,
    hold: CancelHold,
}

/// A request that cancels whatever the server executes for a connection.
#[derive(Clone)]
pub(super) struct CancelRequest {
    token: tokio_postgres::CancelToken,
    connector: Connector,
    peer: Arc<Peer>,
}

impl CancelRequest {
    pub(super) fn new(token: tokio_postgres::CancelToken, connector: Connector, peer: Arc<Peer>) -> Self {
        Self { token, connector, peer }
    }

    /// Sends the request, and returns when the server has processed it.
    pub(super) async fn send(&self) -> Result<(), ConnectError> {
        self.connector.cancel(&self.token, &self.peer).await
    }
}

impl CancelToken {
    pub(super) fn new(request: CancelRequest, hold: CancelHold) -> Self {
        Self { request, hold }
    }

    /// Requests cancellation from the server, and returns when the server has processed the request.
    ///
    /// The request goes to the address that the connection is connected to, with the same `sslmode`, within
    /// `connect_timeout`. The server closes the request's connection after it has sent the signal, so a query sent
    /// after this method returns is not cancelled. A cancelled query ends with SQLSTATE 57014; the server does not
    /// report whether there was one. Without effect if the hold has ended.
    ///
    /// # Errors
    ///
    /// Returns an error if the server cannot be reached or does not close the connection in time. In the latter case it
    /// may have cancelled.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, it is unknown whether the request takes effect. The connection is then closed when it
    /// is returned to the pool.
    pub async fn cancel(&self) -> Result<(), ConnectError> {
        let Some(under_way) = self.hold.begin() else { return Ok(()) };
        let result = self.request.send().await;
        // Nothing was sent to a server that was not reached.
        under_way.end(matches!(result, Ok(()) | Err(ConnectError::Unreachable { .. })));
        result
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
        f.debug_struct("CancelToken").field("peer", &self.request.peer).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "cancel_tests.rs"]
mod tests;
