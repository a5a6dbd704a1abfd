//! deadpool-postgres's manager, as a backend.

use std::fmt;

use deadpool::managed::{Manager, Metrics, RecycleError, RecycleResult};
use deadpool_postgres::{ClientWrapper, ManagerConfig, RecyclingMethod};

use super::connect::Connector;
use super::error::ConnectError;
use crate::config::{ConfigError, DatabaseUrl, Settings};
use crate::event::ErrorCode;
use crate::pool::Backend;

/// Makes, pings and closes PostgreSQL connections, through [`deadpool_postgres::Manager`].
pub struct PostgresManager {
    manager: deadpool_postgres::Manager,
    connector: Connector,
}

impl fmt::Debug for PostgresManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresManager").field("manager", &self.manager).finish_non_exhaustive()
    }
}

impl PostgresManager {
    /// Connects as the settings and the URL say. `pool` is the name for the log.
    pub(super) fn new(settings: &Settings, url: &DatabaseUrl, pool: &str) -> Result<Self, ConfigError> {
        let connector = Connector::new(settings, url, pool)?;
        // Verified is what makes recycling a round trip: it is the ping.
        let config = ManagerConfig { recycling_method: RecyclingMethod::Verified };
        let manager = deadpool_postgres::Manager::from_connect(connector.config().clone(), connector.clone(), config);
        Ok(Self { manager, connector })
    }
}

impl Manager for PostgresManager {
    type Type = ClientWrapper;
    type Error = ConnectError;

    async fn create(&self) -> Result<ClientWrapper, ConnectError> {
        self.connector.within(self.manager.create()).await
    }

    async fn recycle(&self, client: &mut ClientWrapper, metrics: &Metrics) -> RecycleResult<ConnectError> {
        self.manager.recycle(client, metrics).await.map_err(|error| match error {
            RecycleError::Message(message) => RecycleError::Message(message),
            RecycleError::Backend(error) => RecycleError::Backend(ConnectError::Postgres(error)),
        })
    }

    fn detach(&self, client: &mut ClientWrapper) {
        self.manager.detach(client);
    }
}

impl Backend for PostgresManager {
    fn is_broken(client: &ClientWrapper) -> bool {
        client.is_closed()
    }

    fn code(error: &ConnectError) -> ErrorCode {
        error.code()
    }
}
