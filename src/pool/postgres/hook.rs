//! The hooks that are called with each new connection, and with each one before it is handed out.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use super::client::Client;
use super::error::ConnectError;
use crate::pool::backend::{Observer, SessionEnd};
use crate::telemetry::wire::SessionStatus;

type BoxError = Box<dyn Error + Send + Sync>;
type HookFuture<'a> = Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send + 'a>>;
type Hook = dyn for<'a> Fn(&'a mut Client) -> HookFuture<'a> + Send + Sync;

/// A function that is called with a connection before its use.
#[derive(Clone)]
pub(super) struct ConnectionHook(Arc<Hook>);

/// The hooks of a pool.
#[derive(Debug, Default)]
pub(super) struct Hooks {
    pub(super) after_connect: Option<ConnectionHook>,
    pub(super) before_checkout: Option<ConnectionHook>,
}

impl ConnectionHook {
    pub(super) fn new<F, E>(hook: F) -> Self
    where
        F: for<'a> Fn(&'a mut Client) -> Pin<Box<dyn Future<Output = Result<(), E>> + Send + 'a>>
            + Send
            + Sync
            + 'static,
        E: Into<BoxError> + 'static,
    {
        Self(Arc::new(move |client| {
            let called = hook(client);
            Box::pin(async move { called.await.map_err(E::into) })
        }))
    }

    /// Calls the hook `after_connect` with a new connection, for at most `limit`.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the caller must close the connection. What the server executes is then cancelled.
    pub(super) async fn after_connect(
        &self,
        client: &mut Client,
        observer: Option<&Observer>,
        limit: Duration,
    ) -> Result<(), ConnectError> {
        let mut leaving = Leaving { observer, end: Some(Box::pin(client.end())) };
        match tokio::time::timeout(limit, self.call(client, observer)).await {
            Ok(Ok(())) => {
                leaving.end = None;
                Ok(())
            }
            Ok(Err(source)) => Err(ConnectError::AfterConnect { source }),
            Err(elapsed) => Err(ConnectError::AfterConnect { source: elapsed.into() }),
        }
    }

    /// Calls the hook `before_checkout` with a connection.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the caller must close the connection.
    pub(super) async fn before_checkout(&self, client: &mut Client) -> Result<(), ConnectError> {
        let observer = client.observer().cloned();
        self.call(client, observer.as_ref()).await.map_err(|source| ConnectError::BeforeCheckout { source })
    }

    /// Calls the hook, which must leave nothing on the connection that concerns its next holder.
    async fn call(&self, client: &mut Client, observer: Option<&Observer>) -> Result<(), BoxError> {
        (self.0)(client).await?;
        if let Some(observer) = observer {
            check(observer.settled_status().await)?;
        }
        // Before the next holder executes anything that a late request would cancel.
        if client.end_hold().await { Ok(()) } else { Err(Unfinished::Cancel.into()) }
    }
}

/// What a hook has left on the connection.
#[derive(Debug, thiserror::Error)]
enum Unfinished {
    #[error("the connection was lost")]
    Lost,
    #[error("it left a transaction open: commit it, or roll it back")]
    Transaction,
    #[error("it dropped a query before its end: await it")]
    Query,
    #[error("it dropped a cancel request before its end: await it")]
    Cancel,
}

/// Returns an error unless a connection with this status can be handed out; `None` if its session has ended.
fn check(status: Option<SessionStatus>) -> Result<(), Unfinished> {
    match status {
        None => Err(Unfinished::Lost),
        Some(SessionStatus::Unread | SessionStatus::Idle) => Ok(()),
        Some(SessionStatus::Executing | SessionStatus::Ending) => Err(Unfinished::Query),
        Some(SessionStatus::InTransaction | SessionStatus::FailedTransaction) => Err(Unfinished::Transaction),
    }
}

/// Leaves the end of the connection to the pool if it is dropped before the hook has succeeded, while the server
/// executes.
struct Leaving<'a> {
    observer: Option<&'a Observer>,
    end: Option<SessionEnd>,
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        if let (Some(observer), Some(end)) = (self.observer, self.end.take())
            && observer.is_executing()
        {
            observer.leave_executing(end);
        }
    }
}

impl fmt::Debug for ConnectionHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ConnectionHook")
    }
}
