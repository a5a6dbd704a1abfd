//! Establishing a connection: socket, TLS, authentication, and the task that then drives it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::Connect;
use tokio::task::JoinHandle;
use tokio_postgres::config::Host;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::{Client, Config, Error, NoTls, Socket};

use super::error::{ConnectError, error_code};
use crate::config::{ConfigError, DatabaseUrl, Settings, TlsMode};
use crate::telemetry::log::Chain;

const APPLICATION_NAME: &str = "poolscope";

/// With a `tcp_keepalive` of 30 s a silent peer is found dead after a minute; the kernel's own are 75 s and 9.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_RETRIES: u32 = 3;

type Established = (Client, JoinHandle<()>);

/// Opens connections to one database. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Connector(Arc<Inner>);

struct Inner {
    config: Config,
    mode: TlsMode,
    #[cfg(feature = "tls")]
    tls: Option<tokio_postgres_rustls::MakeRustlsConnect>,
    pool: Arc<str>,
    connect_timeout: Duration,
}

impl Connector {
    /// Reads the certificate files; connects nowhere yet. `pool` is the name for the log.
    ///
    /// # Errors
    /// [`ConfigError::Certificates`].
    pub(crate) fn new(settings: &Settings, url: &DatabaseUrl, pool: impl Into<Arc<str>>) -> Result<Self, ConfigError> {
        let config = configure(settings, url.config().clone());
        #[cfg(feature = "tls")]
        let tls = {
            use tokio_postgres::config::SslNegotiation;
            let direct = config.get_ssl_negotiation() == SslNegotiation::Direct;
            super::tls::connector(url.tls(), direct)?
        };
        Ok(Self(Arc::new(Inner {
            config,
            mode: url.tls().clone(),
            #[cfg(feature = "tls")]
            tls,
            pool: pool.into(),
            connect_timeout: settings.connect_timeout,
        })))
    }

    /// What it connects with, the settings included.
    pub(crate) fn config(&self) -> &Config {
        &self.0.config
    }

    /// Holds `connecting`, which connects through this connector, to `connect_timeout` as a whole, and sorts its error.
    ///
    /// To drop this future closes the socket.
    pub(crate) async fn within<T>(
        &self,
        connecting: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, ConnectError> {
        let after = self.0.connect_timeout;
        match tokio::time::timeout(after, connecting).await {
            Ok(result) => result.map_err(|error| ConnectError::classify(error, &self.0.mode)),
            Err(_) => Err(ConnectError::Timeout { after }),
        }
    }

    async fn open(&self) -> Result<Established, Error> {
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.0.tls {
            return self.start(tls.clone()).await;
        }
        self.start(NoTls).await
    }

    /// The one place where socket and TLS come together, and where whoever wants to read along gets between.
    async fn start<T>(&self, tls: T) -> Result<Established, Error>
    where
        T: MakeTlsConnect<Socket> + Send,
        T::Stream: Send + 'static,
        T::TlsConnect: Send,
        <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
    {
        let (client, connection) = self.0.config.connect(tls).await?;
        let pool = Arc::clone(&self.0.pool);
        let task = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::warn!(
                    pool = &*pool,
                    sqlstate = error_code(&error).as_str(),
                    error = %Chain(&error),
                    "connection lost"
                );
            }
        });
        Ok((client, task))
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").field("pool", &self.0.pool).field("tls", &self.0.mode).finish_non_exhaustive()
    }
}

impl Connect for Connector {
    /// Connects with this connector's own configuration; the manager's is a copy of it. Not bounded in time: see
    /// [`Connector::within`]. The task ends when the client is dropped.
    fn connect(&self, _: &Config) -> Pin<Box<dyn Future<Output = Result<Established, Error>> + Send + '_>> {
        Box::pin(self.open())
    }
}

/// Puts the settings into the configuration that the URL gave.
fn configure(settings: &Settings, mut config: Config) -> Config {
    let name = settings.application_name.as_deref();
    let name = name.or(config.get_application_name()).unwrap_or(APPLICATION_NAME).to_owned();
    config.application_name(name);
    config.keepalives(settings.tcp_keepalive.is_some());
    if let Some(idle) = settings.tcp_keepalive {
        config.keepalives_idle(idle);
        if config.get_keepalives_interval().is_none() {
            config.keepalives_interval(KEEPALIVE_INTERVAL);
        }
        if config.get_keepalives_retries().is_none() {
            config.keepalives_retries(KEEPALIVE_RETRIES);
        }
    }
    if let Some(timeout) = settings.tcp_user_timeout {
        config.tcp_user_timeout(timeout);
    }
    let timeout = settings.connect_timeout / attempts(&config);
    config.connect_timeout(timeout);
    config
}

/// How many addresses should get their turn within `connect_timeout`.
///
/// tokio-postgres' own time-out is for each address: were it the whole, a first address that swallows packets would
/// leave the others no time. A name may stand for several addresses, often one each of IPv6 and IPv4.
fn attempts(config: &Config) -> u32 {
    let is_one_address = |host: &Host| match host {
        Host::Tcp(name) => name.parse::<std::net::IpAddr>().is_ok(),
        #[cfg(unix)]
        Host::Unix(_) => true,
    };
    let hosts = config.get_hosts();
    let by_name = config.get_hostaddrs().is_empty() && !hosts.iter().all(is_one_address);
    let attempts = if by_name { hosts.len().max(2) } else { hosts.len().max(1) };
    u32::try_from(attempts).unwrap_or(u32::MAX)
}

#[cfg(test)]
#[path = "connect_tests.rs"]
mod tests;
