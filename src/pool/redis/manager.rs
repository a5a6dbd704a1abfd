//! The manager of connections to Redis.

use std::fmt;
use std::sync::Arc;

use ::redis::{RedisError, Value, cmd};
use deadpool::managed::{Manager, Metrics, RecycleError, RecycleResult};

use super::client::Client;
use super::connect::{Connector, is_tolerated};
use super::error::{ConnectError, code_of};
use crate::labels::{Dirt, ErrorCode};
use crate::pool::{Backend, ConnectFailure, Observer};

/// Creates, pings and resets connections to Redis.
pub struct RedisManager {
    connector: Arc<Connector>,
}

impl RedisManager {
    pub(super) fn new(connector: Connector) -> Self {
        Self { connector: Arc::new(connector) }
    }

    pub(super) fn connector(&self) -> &Arc<Connector> {
        &self.connector
    }
}

impl fmt::Debug for RedisManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisManager").finish_non_exhaustive()
    }
}

/// Executes a command of the pool itself, and returns its reply.
async fn own_command(client: &mut Client, command: &'static str, argument: Option<i64>) -> Result<Value, ConnectError> {
    let mut packed = cmd(command);
    packed.arg(argument);
    match client.send(&packed).await {
        Ok(Value::ServerError(error)) => {
            let error = RedisError::from(error);
            if is_tolerated(command, code_of(&error)) {
                Ok(Value::Nil)
            } else {
                Err(ConnectError::command(&error, command))
            }
        }
        Ok(value) => Ok(value),
        Err(error) => Err(ConnectError::command(&error, command)),
    }
}

impl Manager for RedisManager {
    type Type = Client;
    type Error = ConnectError;

    async fn create(&self) -> Result<Client, ConnectError> {
        self.connector.connect(None).await
    }

    /// Pings the server.
    async fn recycle(&self, client: &mut Client, _: &Metrics) -> RecycleResult<ConnectError> {
        own_command(client, "PING", None).await?;
        Ok(())
    }
}

impl Backend for RedisManager {
    fn is_broken(client: &Client) -> bool {
        client.is_closed()
    }

    fn code(error: &ConnectError) -> ErrorCode {
        error.code()
    }

    fn connect_failure(error: &ConnectError) -> ConnectFailure {
        error.connect_failure()
    }

    /// Returns whether the server is a replica.
    async fn is_read_only(&self, client: &mut Client) -> Result<bool, RecycleError<ConnectError>> {
        Ok(match own_command(client, "ROLE", None).await? {
            Value::Array(role) => matches!(role.first(), Some(Value::BulkString(role)) if role == b"slave"),
            _ => false,
        })
    }

    async fn connect(&self, observer: Observer) -> Result<Client, ConnectError> {
        self.connector.connect(Some(&observer).filter(|observer| observer.observes())).await
    }

    async fn rollback(&self, client: &mut Client) -> RecycleResult<ConnectError> {
        let command = if client.session.is_queueing() { "DISCARD" } else { "UNWATCH" };
        own_command(client, command, None).await?;
        Ok(())
    }

    /// Waits for the reply: Redis cannot cancel a command. A connection with a command that waits at the server until
    /// something happens is closed instead.
    fn cancel(&self, client: &Client) -> impl Future<Output = RecycleResult<ConnectError>> + Send + use<> {
        let is_blocked = client.session.is_blocked();
        async move {
            if is_blocked {
                return Err(RecycleError::message("a command waits at the server, and its caller has gone"));
            }
            Ok(())
        }
    }

    fn end(&self, client: &Client) -> impl Future<Output = ()> + Send + 'static + use<> {
        client.handover.closed_by_peer()
    }

    #[inline]
    fn needs_reset(client: &Client) -> bool {
        client.session.is_changed()
    }

    /// Selects the connection's database again. A session with anything else that its holder has left is closed.
    async fn reset(&self, client: &mut Client) -> Result<Vec<Dirt>, RecycleError<ConnectError>> {
        if client.session.is_lost() {
            return Err(RecycleError::message(
                "the holder has left a subscription, or another user, protocol or mode of the session",
            ));
        }
        if !client.session.is_elsewhere() {
            return Ok(Vec::new());
        }
        own_command(client, "SELECT", Some(self.connector.database())).await?;
        Ok(vec![Dirt::Settings])
    }
}
