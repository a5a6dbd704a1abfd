//! A connection to Redis.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Poll, ready};

use ::redis::aio::{ConnectionLike, MultiplexedConnection};
use ::redis::{Cmd, Pipeline, RedisFuture, RedisResult, Value};
use tokio::task::JoinHandle;

use super::manager::RedisManager;
use super::peer::Peer;
use super::socket::SocketHandover;
use crate::pool::release::Guard;
use crate::wire::SessionState;

/// A connection to Redis, which [`Connection`](super::Connection) dereferences to.
///
/// It implements [`ConnectionLike`], so that the traits and the builders of commands of the crate `redis` work with it. It
/// is not `Clone`, unlike the connection of that crate: a clone could outlive the checkout. A command has no timeout of its
/// own; if its future is dropped, its reply is discarded when it arrives.
pub struct Client {
    connection: MultiplexedConnection,
    driver: Driver,
    pub(super) peer: Arc<Peer>,
    pub(super) handover: Arc<SocketHandover>,
    pub(super) session: Arc<SessionState>,
}

/// The task that drives a connection, which ends when this is dropped.
struct Driver {
    task: JoinHandle<()>,
    /// Whether the task was found to have ended.
    has_ended: bool,
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Driver {
    /// Returns the result of a command, or an error if the task ends before there is one.
    ///
    /// A command that is sent while the task ends may be left in the channel between them: the channel's receiver is
    /// dropped after it was emptied, and before the command was put into it. Nothing else would end it.
    async fn until_end<T>(&mut self, command: impl Future<Output = RedisResult<T>>) -> RedisResult<T> {
        let mut command = pin!(command);
        poll_fn(|cx| {
            if let Poll::Ready(result) = command.as_mut().poll(cx) {
                return Poll::Ready(result);
            }
            if !self.has_ended {
                ready!(Pin::new(&mut self.task).poll(cx)).ok();
                self.has_ended = true;
            }
            // It may have ended with the reply, or an error that explains more.
            match command.as_mut().poll(cx) {
                Poll::Pending => Poll::Ready(Err(io::Error::from(io::ErrorKind::BrokenPipe).into())),
                result => result,
            }
        })
        .await
    }
}

impl Client {
    pub(super) fn new(
        connection: MultiplexedConnection,
        task: JoinHandle<()>,
        peer: Arc<Peer>,
        handover: Arc<SocketHandover>,
        session: Arc<SessionState>,
    ) -> Self {
        Self { connection, driver: Driver { task, has_ended: false }, peer, handover, session }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.driver.task.is_finished()
    }

    pub(super) async fn send(&mut self, command: &Cmd) -> RedisResult<Value> {
        self.driver.until_end(self.connection.send_packed_command(command)).await
    }

    pub(super) async fn send_all(
        &mut self,
        pipeline: &Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisResult<Vec<Value>> {
        self.driver.until_end(self.connection.send_packed_commands(pipeline, offset, count)).await
    }
}

impl ConnectionLike for Client {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        Box::pin(self.send(cmd))
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        Box::pin(self.send_all(pipeline, offset, count))
    }

    fn get_db(&self) -> i64 {
        self.connection.get_db()
    }
}

impl ConnectionLike for Guard<RedisManager> {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        (**self).req_packed_command(cmd)
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        (**self).req_packed_commands(pipeline, offset, count)
    }

    fn get_db(&self) -> i64 {
        (**self).get_db()
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("peer", &self.peer).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use ::redis::{AsyncConnectionConfig, RedisConnectionInfo, cmd};

    use super::*;

    /// As after a command that is sent while the driver ends.
    #[tokio::test]
    async fn command_left_in_the_channel_ends_with_the_driver() {
        let (stream, _server) = tokio::io::duplex(64);
        let info = RedisConnectionInfo::default().set_skip_set_lib_name();
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        let (mut connection, _undriven) = MultiplexedConnection::new_with_config(&info, stream, config).await.unwrap();
        let task = tokio::spawn(async {});
        let mut driver = Driver { task, has_ended: false };
        for _ in 0..2 {
            let command = cmd("PING");
            let error = driver.until_end(connection.send_packed_command(&command)).await.unwrap_err();
            assert!(error.is_connection_dropped(), "{error}");
        }
    }
}
