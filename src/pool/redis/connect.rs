//! Establishes connections: socket, TLS, authentication, and the task that drives the connection.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{AsyncConnectionConfig, Pipeline, ProtocolVersion, RedisConnectionInfo, Value, cmd, pipe};
use tokio::io::{AsyncRead, AsyncWrite};

use super::client::Client;
use super::error::{ConnectError, code_of};
use super::losses::LossLog;
use super::peer::{Address, Peer};
use super::pool_name::PoolName;
use super::socket::SocketHandover;
use super::tcp_options::{Keepalive, TcpOptions};
use super::tls::ClientTls;
use crate::config::{ConfigError, RedisAddress, RedisUrl, Settings};
use crate::labels::ErrorCode;
use crate::net::LastWords;
use crate::pool::backend::Observer;
use crate::telemetry::clock::Clock;
use crate::telemetry::trace::DatabaseSystem;
use crate::wire::{SessionState, Tap};

/// Establishes connections to one server.
pub(super) struct Connector {
    url: RedisUrl,
    info: RedisConnectionInfo,
    #[cfg_attr(not(feature = "tls"), allow(dead_code, reason = "there is nothing to configure"))]
    tls: ClientTls,
    tcp_options: TcpOptions,
    /// The name in the server's list of clients.
    client_name: Option<String>,
    connect_timeout: Duration,
    losses: Arc<LossLog>,
}

impl Connector {
    /// Creates a connector, and reads the files of certificates. Does not connect yet. `pool` is the wanted name for the
    /// log.
    pub(super) fn new(settings: &Settings, url: &RedisUrl, pool: &str) -> Result<Self, ConfigError> {
        let pool = PoolName::wanted(pool);
        // The crate's own setup hides the server's errors, except that of HELLO.
        let mut info = RedisConnectionInfo::default().set_skip_set_lib_name();
        if url.is_resp3() {
            info = info.set_protocol(ProtocolVersion::RESP3);
            if let Some(password) = url.password() {
                info = info.set_username(url.user().unwrap_or("default")).set_password(password);
            }
        }
        let keepalive = settings.tcp_keepalive.map(|idle| Keepalive {
            idle,
            interval: Some(Keepalive::DEFAULT_INTERVAL),
            retries: Some(Keepalive::DEFAULT_RETRIES),
        });
        Ok(Self {
            info,
            tls: ClientTls::new(url.tls(), url.client_certificate(), None, &pool)?,
            tcp_options: TcpOptions::new(settings.tcp_user_timeout, keepalive),
            client_name: settings.application_name.as_deref().map(client_name),
            connect_timeout: settings.connect_timeout,
            losses: Arc::new(LossLog::new(pool, Clock::new())),
            url: url.clone(),
        })
    }

    /// Sets the pool's final name for the log.
    pub(super) fn give_pool_name(&self, name: &str) {
        self.losses.pool().give(name);
    }

    pub(super) fn database(&self) -> i64 {
        self.url.database()
    }

    /// Connects to the first address that accepts the connection, within `connect_timeout` in total.
    ///
    /// # Errors
    ///
    /// Returns the error of the last address, or [`ConnectError::Timeout`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the socket.
    pub(super) async fn connect(&self, observer: Option<&Observer>) -> Result<Client, ConnectError> {
        let after = self.connect_timeout;
        let timed_out = |_| Err(ConnectError::Timeout { address: self.configured_address(), after });
        tokio::time::timeout(after, self.try_each_address(observer)).await.unwrap_or_else(timed_out)
    }

    fn configured_address(&self) -> String {
        match self.url.address() {
            RedisAddress::Tcp(host, port) if host.contains(':') => format!("[{host}]:{port}"),
            RedisAddress::Tcp(host, port) => format!("{host}:{port}"),
            RedisAddress::Unix(path) => path.display().to_string(),
        }
    }

    async fn try_each_address(&self, observer: Option<&Observer>) -> Result<Client, ConnectError> {
        let unreachable = |source| ConnectError::Unreachable { address: self.configured_address(), source };
        let peers = self.peers().await.map_err(unreachable)?;
        let mut failure = None;
        for peer in peers {
            match self.connect_to(peer, observer).await {
                Ok(client) => return Ok(client),
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.unwrap_or_else(|| unreachable(io::ErrorKind::NotFound.into())))
    }

    /// Returns the addresses to try, in order.
    async fn peers(&self) -> io::Result<Vec<Peer>> {
        let peer = |address, name: Option<&str>, timeout| {
            Peer::new(address, name.map(str::to_owned), Some(timeout), self.tcp_options.clone())
        };
        match self.url.address() {
            RedisAddress::Unix(path) => Ok(vec![peer(Address::Unix(path.clone()), None, self.connect_timeout)]),
            RedisAddress::Tcp(host, port) => {
                let addresses: Vec<SocketAddr> = tokio::net::lookup_host((&**host, *port)).await?.collect();
                // An address that drops packets leaves the next one half of the time.
                let timeout = self.connect_timeout / if addresses.len() > 1 { 2 } else { 1 };
                Ok(addresses.into_iter().map(|address| peer(Address::Tcp(address), Some(host), timeout)).collect())
            }
        }
    }

    async fn connect_to(&self, peer: Peer, observer: Option<&Observer>) -> Result<Client, ConnectError> {
        let address = peer.to_string();
        let socket = peer.open().await;
        let mut socket = socket.map_err(|source| ConnectError::Unreachable { address: address.clone(), source })?;
        let handover = socket.handover();
        let start = Start { peer: Arc::new(peer), handover, observer };
        #[cfg(feature = "tls")]
        {
            let tls = self.tls.current().await;
            if let Some(config) = tls.config() {
                let stream = encrypt(Arc::clone(config), start.peer.hostname(), socket).await;
                let stream = stream.map_err(|source| self.tls_error(&tls, source, address))?;
                return self.start(stream, start).await;
            }
        }
        self.start(socket, start).await
    }

    #[cfg(feature = "tls")]
    fn tls_error(&self, tls: &super::tls::CurrentTls, source: io::Error, address: String) -> ConnectError {
        let sslmode = self.url.tls().as_str();
        let problem = super::tls::tls_problem(&source, sslmode)
            .unwrap_or_else(|| format!("the TLS handshake failed (sslmode={sslmode}): {source}"));
        let explanation = tls.explanation(&source).map(|explanation| format!(" ({explanation})"));
        let problem = crate::text::printable(&(problem + &explanation.unwrap_or_default())).into_owned();
        ConnectError::Tls { address, problem, source }
    }

    /// Starts a session over a stream, and spawns the task that drives it.
    async fn start<S>(&self, stream: S, start: Start<'_>) -> Result<Client, ConnectError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Start { peer, handover, observer } = start;
        let (session, address) = (Arc::new(SessionState::default()), peer.to_string());
        let server = Arc::new(peer.server(DatabaseSystem::Redis, self.url.database().to_string()));
        let resp_observer = observer.map(|observer| observer.resp_observer(server, Arc::clone(&session)));
        let tap = Tap::new(LastWords::new(stream), resp_observer, None);
        // The caller bounds its commands: some wait at the server for minutes.
        let config = AsyncConnectionConfig::new().set_response_timeout(None).set_connection_timeout(None);
        let started = MultiplexedConnection::new_with_config(&self.info, tap, config).await;
        let (connection, driver) = started.map_err(|error| ConnectError::refused(&error, "HELLO", address.clone()))?;
        let losses = Arc::clone(&self.losses);
        let task = match observer {
            Some(observer) => tokio::spawn(until_end(observer.drive(Box::pin(driver)), losses, observer.is_held())),
            None => tokio::spawn(until_end(driver, losses, || true)),
        };
        let mut client = Client::new(connection, task, peer, handover, session);
        self.set_up(&mut client, address).await?;
        client.session.begin(self.url.database());
        Ok(client)
    }

    /// Authenticates, selects the database, and makes sure that the server accepts commands.
    async fn set_up(&self, client: &mut Client, address: String) -> Result<(), ConnectError> {
        let mut commands: Vec<&'static str> = Vec::new();
        let mut pipeline = pipe();
        let mut add = |pipeline: &mut Pipeline, name: &'static str, arguments: &[&str]| {
            let mut command = cmd(name);
            command.arg(arguments);
            pipeline.add_command(command);
            commands.push(name);
        };
        let database = self.url.database().to_string();
        match (self.url.user(), self.url.password()) {
            _ if self.url.is_resp3() => {}
            (Some(user), Some(password)) => add(&mut pipeline, "AUTH", &[user, password]),
            (None, Some(password)) => add(&mut pipeline, "AUTH", &[password]),
            (_, None) => {}
        }
        if self.url.database() != 0 {
            add(&mut pipeline, "SELECT", &[&database]);
        }
        if let Some(name) = &self.client_name {
            add(&mut pipeline, "CLIENT", &["SETNAME", name]);
        }
        // Finds out what the others do not: that a password is missing, or that the server is loading its data.
        add(&mut pipeline, "PING", &[]);
        let replies = client.send_all(&pipeline, 0, commands.len()).await;
        let replies = replies.map_err(|error| ConnectError::refused(&error, commands[0], address.clone()))?;
        for (command, reply) in commands.into_iter().zip(replies) {
            let Value::ServerError(error) = reply else { continue };
            let code = code_of(&error.into());
            if is_tolerated(command, code) {
                continue;
            }
            return Err(ConnectError::Refused { address, command, code });
        }
        Ok(())
    }
}

/// Where a session is started.
struct Start<'a> {
    peer: Arc<Peer>,
    handover: Arc<SocketHandover>,
    observer: Option<&'a Observer>,
}

/// Returns whether a connection is usable although this command failed: its user may lack the permission.
pub(super) fn is_tolerated(command: &str, code: ErrorCode) -> bool {
    command == "CLIENT" || (command == "PING" && code == ErrorCode::new("NOPERM"))
}

#[cfg(feature = "tls")]
async fn encrypt(
    config: Arc<rustls::ClientConfig>,
    hostname: &str,
    socket: super::socket::Socket,
) -> io::Result<tokio_rustls::client::TlsStream<super::socket::Socket>> {
    let name = rustls::pki_types::ServerName::try_from(hostname.to_owned());
    let name = name.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    tokio_rustls::TlsConnector::from(config).connect(name, socket).await
}

/// Drives a connection until it ends. `is_held` returns whether a caller uses it.
async fn until_end(connection: impl Future<Output = ()>, losses: Arc<LossLog>, is_held: impl Fn() -> bool) {
    connection.await;
    // The client is dropped only after its task was aborted. A server closes those that are idle by its `timeout`, or
    // when it stops: no caller is affected.
    losses.record(ErrorCode::IO, true, is_held(), &"the server closed the connection");
}

/// Returns a name that the server accepts: printable ASCII without spaces.
fn client_name(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_graphic() { c } else { '-' }).collect()
}
