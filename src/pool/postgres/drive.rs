//! Who drives an established connection: a task, or the caller.

use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;
use tokio_postgres::{AsyncMessage, Connection, Error};

use super::error::error_code;
use crate::pool::backend::Observer;
use crate::text::ErrorChain;

/// A connection that transfers data only while it is polled.
pub(super) trait PolledConnection: Future<Output = Result<(), Error>> + Send + Unpin + 'static {
    /// Polls for a message that answers no request, as [`Connection::poll_message`] does.
    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<AsyncMessage, Error>>>;
}

impl<S, T> PolledConnection for Connection<S, T>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<AsyncMessage, Error>>> {
        Self::poll_message(self, cx)
    }
}

/// What becomes of a connection once it is established.
pub(super) trait Driver: Copy + Send + Sync {
    /// What drives the connection from then on.
    type Driving: Send;

    /// Takes the connection. `pool` is the name for the log.
    fn drive(self, connection: impl PolledConnection, pool: &Arc<str>) -> Self::Driving;
}

/// Spawns a task that drives the connection until it ends, under an observer if there is one.
#[derive(Clone, Copy, Debug)]
pub(super) struct InTask<'a>(pub(super) Option<&'a Observer>);

impl Driver for InTask<'_> {
    type Driving = JoinHandle<()>;

    fn drive(self, connection: impl PolledConnection, pool: &Arc<str>) -> JoinHandle<()> {
        let pool = Arc::clone(pool);
        match self.0 {
            Some(observer) => tokio::spawn(until_end(observer.drive(connection), pool)),
            None => tokio::spawn(until_end(connection, pool)),
        }
    }
}

/// Leaves the connection to the caller.
#[derive(Clone, Copy, Debug)]
pub(super) struct ByCaller;

impl Driver for ByCaller {
    type Driving = Box<dyn PolledConnection>;

    fn drive(self, connection: impl PolledConnection, _: &Arc<str>) -> Box<dyn PolledConnection> {
        Box::new(connection)
    }
}

/// Drives a connection until it ends.
async fn until_end(connection: impl Future<Output = Result<(), Error>>, pool: Arc<str>) {
    if let Err(error) = connection.await {
        log_loss(&error, &pool);
    }
}

/// Logs the error with which a connection ended.
pub(super) fn log_loss(error: &Error, pool: &str) {
    let sqlstate = error_code(error);
    tracing::warn!(pool, sqlstate = sqlstate.as_str(), error = %ErrorChain(error), "connection lost");
}
