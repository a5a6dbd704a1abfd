//! PostgreSQL's connections, as a backend.

use deadpool::managed::{Manager, Metrics, RecycleError, RecycleResult};
use deadpool_postgres::ClientWrapper;

use super::client::Client;
use super::connect::{Connector, Established};
use super::error::ConnectError;
use crate::config::{ConfigError, DatabaseUrl, Settings};
use crate::event::ErrorCode;
use crate::pool::Backend;

/// Makes, pings and closes PostgreSQL connections.
#[derive(Debug)]
pub struct PostgresManager {
    connector: Connector,
}

impl PostgresManager {
    /// Connects as the settings and the URL say. `pool` is the name for the log.
    pub(super) fn new(settings: &Settings, url: &DatabaseUrl, pool: &str) -> Result<Self, ConfigError> {
        Ok(Self { connector: Connector::new(settings, url, pool)? })
    }
}

impl Manager for PostgresManager {
    type Type = Client;
    type Error = ConnectError;

    async fn create(&self) -> Result<Client, ConnectError> {
        let Established { client, task, peer } = self.connector.connect(|| None).await?;
        Ok(Client::new(ClientWrapper::new(client, task), self.connector.clone(), peer))
    }

    /// The ping: an empty query, which no server takes long for.
    async fn recycle(&self, client: &mut Client, _: &Metrics) -> RecycleResult<ConnectError> {
        if client.is_closed() {
            return Err(RecycleError::message("Connection closed"));
        }
        client.simple_query("").await.map_err(ConnectError::Postgres)?;
        Ok(())
    }
}

impl Backend for PostgresManager {
    fn is_broken(client: &Client) -> bool {
        client.is_closed()
    }

    fn code(error: &ConnectError) -> ErrorCode {
        error.code()
    }
}
