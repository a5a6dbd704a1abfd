//! The manager of PostgreSQL connections.

use std::sync::Arc;

use deadpool::managed::{Manager, Metrics, RecycleError, RecycleResult};
use tokio::time::Instant;

use super::client::Client;
use super::connect::Connector;
use super::error::ConnectError;
use super::hook::Hooks;
use super::password::PasswordProvider;
use super::session::{is_read_only, own_query, reset};
use crate::config::{ConfigError, DatabaseUrl, Settings};
use crate::labels::{Dirt, ErrorCode};
use crate::pool::release::HolderCancels;
use crate::pool::{Backend, ConnectFailure, Observer};

/// Creates, pings and resets PostgreSQL connections.
#[derive(Debug)]
pub struct PostgresManager {
    connector: Connector,
    hooks: Hooks,
}

impl PostgresManager {
    /// Creates a manager from the settings and the URL. `pool` is the wanted name for the log.
    pub(super) fn new(
        settings: &Settings,
        url: &DatabaseUrl,
        provider: Option<PasswordProvider>,
        hooks: Hooks,
        pool: &str,
    ) -> Result<Self, ConfigError> {
        Ok(Self { connector: Connector::new(settings, url, provider, pool)?, hooks })
    }

    async fn establish(
        &self,
        observer: Option<&Observer>,
        cancels: Arc<HolderCancels>,
    ) -> Result<Client, ConnectError> {
        let (started, limit) = (Instant::now(), self.connector.connect_timeout());
        let mut client = Client::connect(&self.connector, observer, cancels).await?;
        if let Some(hook) = &self.hooks.after_connect {
            hook.after_connect(&mut client, observer, limit.saturating_sub(started.elapsed())).await?;
        }
        if self.hooks.before_checkout.is_some() {
            client.keep_observer(observer);
        }
        Ok(client)
    }

    /// Returns the connector, for connections outside the pool.
    pub(super) fn connector(&self) -> &Connector {
        &self.connector
    }
}

impl Manager for PostgresManager {
    type Type = Client;
    type Error = ConnectError;

    async fn create(&self) -> Result<Client, ConnectError> {
        self.establish(None, Arc::default()).await
    }

    /// Pings the server with an empty query.
    async fn recycle(&self, client: &mut Client, _: &Metrics) -> RecycleResult<ConnectError> {
        if client.is_closed() {
            return Err(RecycleError::message("Connection closed"));
        }
        own_query(client, "").await?;
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

    fn connect_failure(error: &ConnectError) -> ConnectFailure {
        error.connect_failure()
    }

    fn forget_statements(client: &mut Client) {
        client.statement_cache.clear();
    }

    async fn is_read_only(&self, client: &mut Client) -> Result<bool, RecycleError<ConnectError>> {
        Ok(is_read_only(client).await?)
    }

    fn has_before_checkout(&self) -> bool {
        self.hooks.before_checkout.is_some()
    }

    async fn before_checkout(&self, client: &mut Client) -> Result<(), ConnectError> {
        match &self.hooks.before_checkout {
            Some(hook) => hook.before_checkout(client).await,
            None => Ok(()),
        }
    }

    async fn connect(&self, observer: Observer) -> Result<Client, ConnectError> {
        let cancels = Arc::clone(observer.cancels());
        self.establish(Some(&observer).filter(|observer| observer.observes()), cancels).await
    }

    async fn rollback(&self, client: &mut Client) -> RecycleResult<ConnectError> {
        Ok(client.batch_execute("ROLLBACK").await.map_err(ConnectError::query)?)
    }

    fn cancel(&self, client: &Client) -> impl Future<Output = RecycleResult<ConnectError>> + Send + use<> {
        let request = client.cancel_request();
        async move { Ok(request.send().await?) }
    }

    fn end(&self, client: &Client) -> impl Future<Output = ()> + Send + 'static + use<> {
        client.end()
    }

    async fn reset(&self, client: &mut Client) -> Result<Vec<Dirt>, RecycleError<ConnectError>> {
        Ok(reset(client).await?)
    }
}
