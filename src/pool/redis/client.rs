//! A connection to Redis.

use std::fmt;
use std::sync::Arc;

use ::redis::aio::{ConnectionLike, MultiplexedConnection};
use ::redis::{Cmd, Pipeline, RedisFuture, Value};
use tokio::task::JoinHandle;

use super::manager::RedisManager;
use super::peer::Peer;
use super::socket::SocketHandover;
use crate::pool::release::Guard;
use crate::pool::wire::SessionState;

/// A connection to Redis, which [`Connection`](super::Connection) dereferences to.
///
/// It implements [`ConnectionLike`], so that the traits and the builders of commands of the crate `redis` work with it. It
/// is not `Clone`, unlike the connection of that crate: a clone could outlive the checkout. A command has no timeout of its
/// own; if its future is dropped, its reply is discarded when it arrives.
pub struct Client {
    pub(super) connection: MultiplexedConnection,
    /// The task that drives the connection.
    pub(super) task: JoinHandle<()>,
    pub(super) peer: Arc<Peer>,
    pub(super) handover: Arc<SocketHandover>,
    pub(super) session: Arc<SessionState>,
}

impl Client {
    pub(super) fn is_closed(&self) -> bool {
        self.task.is_finished()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl ConnectionLike for Client {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        self.connection.req_packed_command(cmd)
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        self.connection.req_packed_commands(pipeline, offset, count)
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
