//! Establishing a connection: socket, TLS, authentication, and the task that then drives it.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::ClientWrapper;
use tokio::task::JoinHandle;
use tokio_postgres::config::{Host, TargetSessionAttrs};
use tokio_postgres::tls::TlsConnect;
use tokio_postgres::{CancelToken, Client, Config, Error, NoTls};

use super::error::{ConnectError, error_code};
use super::hosts::candidates;
use super::peer::Peer;
use super::session::{TRANSACTION_READ_ONLY, first};
use super::socket::Sock;
use crate::config::{ConfigError, DatabaseUrl, Settings, TlsMode};
use crate::pool::backend::Observer;
use crate::pool::wire::{Patient, Tap};
use crate::telemetry::log::Chain;

const APPLICATION_NAME: &str = "poolscope";

/// With a `tcp_keepalive` of 30 s a silent peer is found dead after a minute; the kernel's own are 75 s and 9.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_RETRIES: u32 = 3;

/// A connection, the task that drives it, and where it leads.
#[derive(Debug)]
pub(crate) struct Established {
    pub(crate) client: Client,
    /// Ends when the client is dropped.
    pub(crate) task: JoinHandle<()>,
    pub(crate) peer: Peer,
}

/// Opens connections to one database. Cheap to clone.
///
/// tokio-postgres only gets sockets that are connected already, so that there can be a [`Tap`] beneath it. Everything
/// that its own `connect` would do before that is done here, in the same order.
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

    /// Connects to the first server that lets it, within `connect_timeout` as a whole.
    ///
    /// The observer, if there is one, looks at what passes; each address that is tried has eyes of its own. To drop this
    /// future closes the socket.
    ///
    /// # Errors
    /// Why the last address was of no use, or that time ran out.
    pub(crate) async fn connect(&self, observer: Option<&Observer>) -> Result<Established, ConnectError> {
        self.within(self.try_each(observer)).await
    }

    /// The same, as a client of ours.
    pub(super) async fn client(&self, observer: Option<&Observer>) -> Result<super::Client, ConnectError> {
        let Established { client, task, peer } = self.connect(observer).await?;
        Ok(super::Client::new(ClientWrapper::new(client, task), self.clone(), peer))
    }

    /// Asks the server at `peer` to cancel what the connection of this token does, and returns when it has.
    pub(super) async fn cancel(&self, token: &CancelToken, peer: &Peer) -> Result<(), ConnectError> {
        self.within(async {
            let socket = Patient::new(open(peer).await?);
            #[cfg(feature = "tls")]
            if let Some(tls) = &self.0.tls {
                let tls = super::tls::above(tls, peer.hostname());
                return token.cancel_query_raw(socket, tls).await.map_err(|error| self.classify(error));
            }
            token.cancel_query_raw(socket, NoTls).await.map_err(|error| self.classify(error))
        })
        .await
    }

    async fn within<T>(&self, work: impl Future<Output = Result<T, ConnectError>>) -> Result<T, ConnectError> {
        let after = self.0.connect_timeout;
        tokio::time::timeout(after, work).await.unwrap_or(Err(ConnectError::Timeout { after }))
    }

    fn classify(&self, error: Error) -> ConnectError {
        ConnectError::classify(error, &self.0.mode)
    }

    async fn try_each(&self, observer: Option<&Observer>) -> Result<Established, ConnectError> {
        let config = &self.0.config;
        let mut failure = None;
        for candidate in candidates(config)? {
            match candidate.peers(config).await {
                Ok(peers) => {
                    for peer in peers {
                        match self.open(peer, observer).await {
                            Ok(established) => return Ok(established),
                            Err(error) => failure = Some(error),
                        }
                    }
                }
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.unwrap_or_else(ConnectError::no_host))
    }

    async fn open(&self, peer: Peer, observer: Option<&Observer>) -> Result<Established, ConnectError> {
        let eyes = observer.map(|observer| observer.eyes(Arc::new(peer.server(&self.0.config))));
        let socket = Tap::new(open(&peer).await?, eyes);
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.0.tls {
            let tls = super::tls::above(tls, peer.hostname());
            return self.start(peer, socket, tls, observer).await;
        }
        self.start(peer, socket, NoTls, observer).await
    }

    /// Speaks to a server, and if it will do leaves the connection to a task.
    async fn start<T>(
        &self,
        peer: Peer,
        socket: Tap<Sock>,
        tls: T,
        observer: Option<&Observer>,
    ) -> Result<Established, ConnectError>
    where
        T: TlsConnect<Tap<Sock>, Stream: Send + 'static>,
    {
        let connecting = self.0.config.connect_raw(socket, tls);
        let (client, connection) = connecting.await.map_err(|error| self.classify(error))?;
        let connection = self.suitable(&client, connection, &peer).await?;
        let pool = Arc::clone(&self.0.pool);
        let task = match observer {
            Some(observer) => tokio::spawn(drive(observer.drive(connection), pool)),
            None => tokio::spawn(drive(connection, pool)),
        };
        Ok(Established { client, task, peer })
    }

    /// Gives the connection back if its session is what `target_session_attrs` asks for. It is driven from here, not by
    /// a task of its own: whoever stops waiting closes it.
    async fn suitable<C>(&self, client: &Client, mut connection: C, peer: &Peer) -> Result<C, ConnectError>
    where
        C: Future<Output = Result<(), Error>> + Unpin,
    {
        let wanted = self.0.config.get_target_session_attrs();
        if wanted == TargetSessionAttrs::Any {
            return Ok(connection);
        }
        let mut asking = std::pin::pin!(client.simple_query(TRANSACTION_READ_ONLY));
        let answer = tokio::select! {
            answer = &mut asking => answer,
            Err(error) = &mut connection => {
                drop(connection);
                // The server may have said why before it left.
                let told = asking.await.err().filter(|told| told.code().is_some());
                return Err(self.classify(told.unwrap_or(error)));
            }
        };
        let answer = answer.map_err(|error| self.classify(error))?;
        let read_only = first(&answer).map_err(|error| self.classify(error))?;
        let problem = match (wanted, read_only) {
            (_, None) => "does not say whether it allows writes",
            (TargetSessionAttrs::ReadWrite, Some("on")) => "does not allow writes (target_session_attrs=read-write)",
            (TargetSessionAttrs::ReadOnly, Some("off")) => "allows writes (target_session_attrs=read-only)",
            _ => return Ok(connection),
        };
        Err(ConnectError::WrongSession { address: peer.to_string(), problem })
    }
}

/// Drives a connection to its end.
async fn drive(connection: impl Future<Output = Result<(), Error>>, pool: Arc<str>) {
    if let Err(error) = connection.await {
        let sqlstate = error_code(&error);
        tracing::warn!(pool = &*pool, sqlstate = sqlstate.as_str(), error = %Chain(&error), "connection lost");
    }
}

async fn open(peer: &Peer) -> Result<Sock, ConnectError> {
    peer.open().await.map_err(|source| ConnectError::Unreachable { address: peer.to_string(), source })
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").field("pool", &self.0.pool).field("tls", &self.0.mode).finish_non_exhaustive()
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
/// The configuration's own time-out is for each address: were it the whole, a first address that swallows packets would
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
