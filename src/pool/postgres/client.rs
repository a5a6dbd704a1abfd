//! The pool's client type.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use super::cancel::{CancelRequest, CancelToken};
use super::connect::{Connector, Established};
use super::deadpool_client;
use super::error::ConnectError;
use super::peer::Peer;
use super::socket::SocketHandover;
use crate::pool::backend::Observer;
use crate::pool::release::{CANCEL_DELAY, HolderCancels};

/// A connection to PostgreSQL.
///
/// It dereferences to [`deadpool_postgres::Client`], with its cached statements and transactions, and through that to
/// [`tokio_postgres::Client`]. The pool that deadpool-postgres's client refers to does not exist: dropping the client
/// closes the connection.
pub struct Client {
    inner: deadpool_postgres::Client,
    connector: Connector,
    peer: Arc<Peer>,
    handover: Arc<SocketHandover>,
    cancels: Arc<HolderCancels>,
    /// The observer of the connection, for the hook that is called before each checkout; `None` if there is no hook.
    observer: Option<Observer>,
}

impl Client {
    /// Connects; see [`Connector::connect`].
    pub(super) async fn connect(
        connector: &Connector,
        observer: Option<&Observer>,
        cancels: Arc<HolderCancels>,
    ) -> Result<Self, ConnectError> {
        let Established { client, driving: task, peer, handover } = connector.connect(observer).await?;
        let inner = deadpool_client::wrap(client, task).await;
        if let Some(observer) = observer {
            let cache = Arc::downgrade(&inner.statement_cache);
            observer.statement_caches().set_own(move || {
                if let Some(cache) = cache.upgrade() {
                    cache.clear();
                }
            });
        }
        Ok(Self { inner, connector: connector.clone(), peer: Arc::new(peer), handover, cancels, observer: None })
    }

    /// Cancels what the server executes, and is ready when the server has closed the connection. The client is dropped
    /// right after this call.
    pub(super) fn end(&self) -> impl Future<Output = ()> + Send + use<> {
        let (request, closed) = (self.cancel_request(), self.handover.closed_by_peer());
        let cancelling = async move {
            let mut delay = CANCEL_DELAY;
            // Repeated, as a request that arrives before the server has begun with the query has no effect, and a
            // request may be lost.
            loop {
                tokio::time::sleep(delay).await;
                let _ = request.send().await;
                delay *= 2;
            }
        };
        async move {
            tokio::select! {
                () = closed => {}
                () = cancelling => {}
            }
        }
    }

    /// Sets the observer that [`observer`](Self::observer) returns.
    pub(super) fn keep_observer(&mut self, observer: Option<&Observer>) {
        self.observer = observer.cloned();
    }

    /// Returns the observer of a connection that a hook is called with before each checkout.
    pub(super) fn observer(&self) -> Option<&Observer> {
        self.observer.as_ref()
    }

    /// Ends the hold of the hook that prepares a pooled connection, with its cancel tokens. Returns whether no request of
    /// theirs can take effect any more, once none is under way.
    pub(super) async fn end_hold(&self) -> bool {
        self.cancels.end_first_hold().await
    }

    /// Returns the request that cancels the query of the connection, of any holder.
    pub(super) fn cancel_request(&self) -> CancelRequest {
        CancelRequest::new(self.inner.cancel_token(), self.connector.clone(), Arc::clone(&self.peer))
    }

    /// Returns a token that cancels the current holder's query on this connection from anywhere. It has no effect once
    /// the connection is returned.
    ///
    /// Create it before a transaction begins. A transaction borrows the connection, and its own `cancel_token` is
    /// tokio-postgres's, which does not know the address that the pool connected to: it fails with `unknown host`.
    ///
    /// ```no_run
    /// # async fn example(pool: poolscope::Pool) -> Result<(), Box<dyn std::error::Error>> {
    /// let connection = pool.get().await?;
    /// let token = connection.cancel_token();
    /// tokio::select! {
    ///     rows = connection.query("SELECT pg_sleep(60)", &[]) => drop(rows?),
    ///     () = tokio::time::sleep(std::time::Duration::from_secs(5)) => token.cancel().await?,
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn cancel_token(&self) -> CancelToken {
        CancelToken::new(self.cancel_request(), self.cancels.current())
    }
}

impl Deref for Client {
    type Target = deadpool_postgres::Client;

    #[inline]
    fn deref(&self) -> &deadpool_postgres::Client {
        &self.inner
    }
}

impl DerefMut for Client {
    #[inline]
    fn deref_mut(&mut self) -> &mut deadpool_postgres::Client {
        &mut self.inner
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("peer", &self.peer).finish_non_exhaustive()
    }
}
