//! The hook that is called with each new connection.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use super::client::Client;
use super::error::ConnectError;

type BoxError = Box<dyn Error + Send + Sync>;
type HookFuture<'a> = Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send + 'a>>;
type Hook = dyn for<'a> Fn(&'a mut Client) -> HookFuture<'a> + Send + Sync;

/// A function that is called with each new connection before its first use.
#[derive(Clone)]
pub(super) struct AfterConnect(Arc<Hook>);

impl AfterConnect {
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

    /// Calls the hook, for at most `limit`.
    pub(super) async fn call(&self, client: &mut Client, limit: Duration) -> Result<(), ConnectError> {
        match tokio::time::timeout(limit, (self.0)(client)).await {
            Ok(result) => result.map_err(|source| ConnectError::AfterConnect { source }),
            Err(elapsed) => Err(ConnectError::AfterConnect { source: elapsed.into() }),
        }
    }
}

impl fmt::Debug for AfterConnect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AfterConnect")
    }
}
