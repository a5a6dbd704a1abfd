//! Who drives an established connection: a task, or the caller.

use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;
use tokio_postgres::{AsyncMessage, Connection, Error};

use super::error::error_code;
use super::losses::LossLog;
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

    /// Takes the connection, and records in `losses` if it is lost.
    fn drive(self, connection: impl PolledConnection, losses: &Arc<LossLog>) -> Self::Driving;
}

/// Spawns a task that drives the connection until it ends, under an observer if there is one.
#[derive(Clone, Copy, Debug)]
pub(super) struct InTask<'a>(pub(super) Option<&'a Observer>);

impl Driver for InTask<'_> {
    type Driving = JoinHandle<()>;

    fn drive(self, connection: impl PolledConnection, losses: &Arc<LossLog>) -> JoinHandle<()> {
        let losses = Arc::clone(losses);
        match self.0 {
            Some(observer) => tokio::spawn(until_end(observer.drive(connection), losses, observer.is_held())),
            None => tokio::spawn(until_end(connection, losses, || true)),
        }
    }
}

/// Leaves the connection to the caller.
#[derive(Clone, Copy, Debug)]
pub(super) struct ByCaller;

impl Driver for ByCaller {
    type Driving = Box<dyn PolledConnection>;

    fn drive(self, connection: impl PolledConnection, _: &Arc<LossLog>) -> Box<dyn PolledConnection> {
        Box::new(connection)
    }
}

/// Drives a connection until it ends. `is_held` returns whether a caller uses it.
async fn until_end(
    connection: impl Future<Output = Result<(), Error>>,
    losses: Arc<LossLog>,
    is_held: impl Fn() -> bool,
) {
    if let Err(error) = connection.await {
        let code = error_code(&error);
        // By a shutdown, or by `idle_session_timeout`: no caller is affected.
        let is_expected = matches!(code.as_str(), "57P01" | "57P05");
        losses.record(code, is_expected, is_held(), &ErrorChain(&error));
    }
}
