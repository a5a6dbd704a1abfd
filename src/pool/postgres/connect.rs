//! Establishes connections: socket, TLS, authentication, and the task that drives the connection.

use std::fmt;
use std::future::{Future, poll_fn};
use std::path::Path;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_postgres::config::{Host, TargetSessionAttrs};
use tokio_postgres::tls::TlsConnect;
use tokio_postgres::{AsyncMessage, CancelToken, Client, Config, Error, NoTls, Notification};

use super::drive::{ByCaller, Driver, InTask, PolledConnection};
use super::error::ConnectError;
use super::hosts::{candidates, configured_addresses};
use super::losses::LossLog;
use super::password::{CurrentPassword, PasswordProvider, Passwords};
use super::peer::Peer;
use super::pool_name::PoolName;
use super::session::{MAX_OWN_BYTES, MAX_OWN_MESSAGES, SHOW_TRANSACTION_READ_ONLY, bounded_query, first_column};
use super::session_tls;
use super::socket::{Socket, SocketHandover};
use super::tcp_options::Keepalive;
use super::tls::{ClientTls, CurrentTls};
use crate::config::{AuthenticationMethod, AuthenticationMethods, ConfigError, DatabaseUrl, Settings, TlsMode};
use crate::pool::backend::Observer;
use crate::telemetry::clock::Clock;
use crate::telemetry::trace::{DatabaseSystem, ServerAddress};
use crate::wire::{AnswerLimit, AuthenticationPolicy, AwaitPeerClose, ServerGuard, Tap};

/// The `application_name` of a program without a name.
const UNKNOWN_PROGRAM: &str = "poolscope";

/// An established connection.
#[derive(Debug)]
pub(super) struct Established<D = JoinHandle<()>> {
    pub(super) client: Client,
    /// Drives the connection; a task ends when the client is dropped.
    pub(super) driving: D,
    pub(super) peer: Peer,
    pub(super) handover: Arc<SocketHandover>,
}

/// Establishes connections to one database. Cheap to clone.
///
/// tokio-postgres is given sockets that are already connected, so that a [`Tap`] can sit below it. Everything that its
/// own `connect` does before that is done here, in the same order.
#[derive(Clone)]
pub(crate) struct Connector {
    inner: Arc<Inner>,
    answers: AnswerLimit,
}

struct Inner {
    config: Config,
    mode: TlsMode,
    tls: ClientTls,
    passwords: Passwords,
    require_auth: Option<AuthenticationMethods>,
    losses: Arc<LossLog>,
    connect_timeout: Duration,
}

/// What one connection attempt authenticates with.
struct Credentials {
    tls: CurrentTls,
    password: CurrentPassword,
}

impl Connector {
    /// Creates a connector and reads the files of certificates and passwords. Does not connect yet. `pool` is the wanted name for the log.
    ///
    /// # Errors
    ///
    /// Returns an error if they cannot be read or are invalid.
    pub(super) fn new(
        settings: &Settings,
        url: &DatabaseUrl,
        provider: Option<PasswordProvider>,
        pool: &str,
    ) -> Result<Self, ConfigError> {
        let pool = PoolName::wanted(pool);
        let inner = Inner {
            config: configure(settings, url.config().clone()),
            mode: url.tls().clone(),
            tls: ClientTls::new(url.tls(), url.client_certificate(), url.alpn(), &pool)?,
            passwords: Passwords::new(settings, url, provider, &pool)?,
            require_auth: url.require_auth(),
            losses: Arc::new(LossLog::new(pool, Clock::new())),
            connect_timeout: settings.connect_timeout,
        };
        let answers = match u64::try_from(settings.max_answer_kib).unwrap_or(u64::MAX) {
            0 => AnswerLimit::Unlimited,
            limit => AnswerLimit::Bytes(limit.saturating_mul(1024)),
        };
        Ok(Self { inner: Arc::new(inner), answers })
    }

    /// Returns a connector to the same database whose connections have another limit of answers.
    pub(super) fn with_answers(&self, answers: AnswerLimit) -> Self {
        Self { answers, ..self.clone() }
    }

    pub(super) fn connect_timeout(&self) -> Duration {
        self.inner.connect_timeout
    }

    /// Connects to the first server that accepts the connection, within `connect_timeout` in total.
    ///
    /// With an observer, each address that is tried has a protocol observer of its own.
    ///
    /// # Errors
    ///
    /// Returns the error of the last address, or [`ConnectError::Timeout`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the socket.
    pub(super) async fn connect(&self, observer: Option<&Observer>) -> Result<Established, ConnectError> {
        self.with_timeout(self.try_each_host(observer, InTask(observer))).await
    }

    /// Connects as [`connect`](Self::connect) does and executes `statement`, all within `connect_timeout`. The caller
    /// drives the connection. Returns the notifications that arrived meanwhile.
    ///
    /// # Errors
    ///
    /// Also returns [`ConnectError::Answer`] if more notifications arrive than are kept.
    pub(super) async fn connect_and_execute(
        &self,
        statement: &str,
    ) -> Result<(Established<Box<dyn PolledConnection>>, Vec<Notification>), ConnectError> {
        self.with_timeout(async {
            let Established { client, mut driving, peer, handover } = self.try_each_host(None, ByCaller).await?;
            let (mut notifications, mut bytes, mut ended) = (Vec::new(), 0, false);
            let mut executed = Box::pin(client.batch_execute(statement));
            let result = poll_fn(|cx| {
                loop {
                    if let Poll::Ready(result) = executed.as_mut().poll(cx) {
                        return Poll::Ready(result.map_err(|error| self.classify(error, &peer)));
                    }
                    if ended {
                        return Poll::Pending;
                    }
                    match ready!(driving.poll_message(cx)) {
                        Some(Ok(AsyncMessage::Notification(notification))) => {
                            bytes += size_of::<Notification>();
                            bytes += notification.channel().len() + notification.payload().len();
                            if bytes > MAX_OWN_BYTES {
                                return Poll::Ready(Err(ConnectError::Answer {}));
                            }
                            notifications.push(notification);
                        }
                        Some(Ok(_)) => {}
                        Some(Err(error)) => return Poll::Ready(Err(self.classify(error, &peer))),
                        None => ended = true,
                    }
                }
            });
            result.await?;
            drop(executed);
            Ok((Established { client, driving, peer, handover }, notifications))
        })
        .await
    }

    /// Requests that the server at `peer` cancels the query of this token's connection, and waits until it has done so.
    pub(super) async fn cancel(&self, token: &CancelToken, peer: &Peer) -> Result<(), ConnectError> {
        self.with_timeout(async {
            let tls = self.inner.tls.current().await;
            let socket = AwaitPeerClose(open_socket(peer).await?);
            match session_tls::for_host(&tls, peer.hostname()) {
                Some(tls) => token.cancel_query_raw(socket, tls).await,
                None => token.cancel_query_raw(socket, NoTls).await,
            }
            .map_err(|error| explain(&tls, self.classify(error, peer)))
        })
        .await
    }

    /// Sets the pool's final name for the log.
    pub(super) fn give_pool_name(&self, name: &str) {
        self.inner.losses.pool().give(name);
    }

    /// Returns the log of lost connections.
    pub(super) fn losses(&self) -> &LossLog {
        &self.inner.losses
    }

    async fn with_timeout<T>(&self, work: impl Future<Output = Result<T, ConnectError>>) -> Result<T, ConnectError> {
        let after = self.inner.connect_timeout;
        let timed_out = |_| Err(ConnectError::Timeout { address: configured_addresses(&self.inner.config), after });
        tokio::time::timeout(after, work).await.unwrap_or_else(timed_out)
    }

    fn classify(&self, error: Error, peer: &Peer) -> ConnectError {
        ConnectError::classify(error, &self.inner.mode, peer.to_string())
    }

    async fn try_each_host<D: Driver>(
        &self,
        observer: Option<&Observer>,
        driver: D,
    ) -> Result<Established<D::Driving>, ConnectError> {
        let config = &self.inner.config;
        let credentials =
            Credentials { tls: self.inner.tls.current().await, password: self.inner.passwords.current().await? };
        let mut failure = None;
        for candidate in candidates(config)? {
            match candidate.peers(config).await {
                Ok(peers) => {
                    for peer in peers {
                        match self.connect_to(peer, &credentials, observer, driver).await {
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

    async fn connect_to<D: Driver>(
        &self,
        peer: Peer,
        credentials: &Credentials,
        observer: Option<&Observer>,
        driver: D,
    ) -> Result<Established<D::Driving>, ConnectError> {
        let protocol_observer =
            observer.map(|observer| observer.protocol_observer(Arc::new(server_address(&peer, &self.inner.config))));
        // The observer does the rest on connections whose answers are unlimited.
        let answers = (observer.is_none() || self.answers != AnswerLimit::Unlimited).then_some(self.answers);
        let guard = Box::new(ServerGuard::new(answers).authentication(self.authentication_policy(&peer)));
        let mut socket = open_socket(&peer).await?;
        let handover = socket.handover();
        let tap = Tap::new(socket, protocol_observer, Some(guard));
        let Credentials { tls, password } = credentials;
        let config = password.configure(&self.inner.config, &peer);
        let session = match session_tls::for_host(tls, peer.hostname()) {
            Some(tls) => self.start_session(&config, &peer, tap, tls, driver).await,
            None => self.start_session(&config, &peer, tap, NoTls, driver).await,
        };
        match session {
            Ok((client, driving)) => Ok(Established { client, driving, peer, handover }),
            Err(error) => Err(password.explain(explain(tls, error), &config, &peer)),
        }
    }

    /// Returns what the server at `peer` may request. Where TLS is optional, an attacker could suppress it to read the
    /// password. A list of methods to refuse does not ask for clear text.
    fn authentication_policy(&self, peer: &Peer) -> AuthenticationPolicy {
        let Inner { mode, require_auth, .. } = &*self.inner;
        let allowed = require_auth.is_some_and(|methods| methods.name(AuthenticationMethod::Password));
        let is_optional = matches!(mode, TlsMode::Prefer(_));
        AuthenticationPolicy { methods: *require_auth, clear_text: !is_optional || allowed || peer.is_local() }
    }

    /// Starts a session with the server, checks it, and passes the connection to `driver`.
    async fn start_session<T, D>(
        &self,
        config: &Config,
        peer: &Peer,
        socket: Tap<Socket>,
        tls: T,
        driver: D,
    ) -> Result<(Client, D::Driving), ConnectError>
    where
        T: TlsConnect<Tap<Socket>, Stream: Send + 'static>,
        D: Driver,
    {
        let connecting = config.connect_raw(socket, tls);
        let (client, connection) = connecting.await.map_err(|error| self.classify(error, peer))?;
        let connection = self.check_session(&client, connection, peer).await?;
        Ok((client, driver.drive(connection, &self.inner.losses)))
    }

    /// Returns the connection if its session matches `target_session_attrs`. Drives the connection itself, not in a
    /// task, so that dropping this future closes it.
    async fn check_session<C>(&self, client: &Client, mut connection: C, peer: &Peer) -> Result<C, ConnectError>
    where
        C: Future<Output = Result<(), Error>> + Unpin,
    {
        let wanted = self.inner.config.get_target_session_attrs();
        if wanted == TargetSessionAttrs::Any {
            return Ok(connection);
        }
        let show = bounded_query(client, SHOW_TRANSACTION_READ_ONLY, MAX_OWN_MESSAGES, MAX_OWN_BYTES);
        let mut query = std::pin::pin!(show);
        let answer = tokio::select! {
            answer = &mut query => answer,
            Err(error) = &mut connection => {
                drop(connection);
                // The server may have sent an error before it closed.
                let reported = query.await.err().filter(|reported| reported.code().is_some());
                return Err(self.classify(reported.unwrap_or(error), peer));
            }
        };
        let answer = answer.map_err(|error| self.classify(error, peer))?;
        let read_only = first_column(&answer.messages).map_err(|error| self.classify(error, peer))?;
        let problem = match (wanted, read_only) {
            (_, None) => "does not report whether it allows writes",
            (TargetSessionAttrs::ReadWrite, Some("on")) => "does not allow writes (target_session_attrs=read-write)",
            (TargetSessionAttrs::ReadOnly, Some("off")) => "allows writes (target_session_attrs=read-only)",
            _ => return Ok(connection),
        };
        Err(ConnectError::WrongSession { address: peer.to_string(), problem })
    }
}

/// Returns the server's attributes for spans. Without a database name, the server uses the user's name.
fn server_address(peer: &Peer, config: &Config) -> ServerAddress {
    let database = config.get_dbname().or(config.get_user()).unwrap_or_default().to_owned();
    peer.server(DatabaseSystem::PostgreSql, database)
}

/// Adds to the error of a verification which files it used, and when they were read.
fn explain(tls: &CurrentTls, error: ConnectError) -> ConnectError {
    let ConnectError::Tls { address, problem, source } = error else { return error };
    let explanation = tls.explanation(&source).map(|explanation| format!(" ({explanation})"));
    ConnectError::Tls { address, problem: problem + &explanation.unwrap_or_default(), source }
}

async fn open_socket(peer: &Peer) -> Result<Socket, ConnectError> {
    peer.open().await.map_err(|source| ConnectError::Unreachable { address: peer.to_string(), source })
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector")
            .field("pool", &self.inner.losses.pool().as_str())
            .field("tls", &self.inner.mode)
            .finish_non_exhaustive()
    }
}

/// Adds the settings to the configuration from the URL.
fn configure(settings: &Settings, mut config: Config) -> Config {
    let name = settings.application_name.as_deref();
    let name = name.or(config.get_application_name()).map_or_else(program_name, str::to_owned);
    config.application_name(name);
    config.keepalives(settings.tcp_keepalive.is_some());
    if let Some(idle) = settings.tcp_keepalive {
        config.keepalives_idle(idle);
        if config.get_keepalives_interval().is_none() {
            config.keepalives_interval(Keepalive::DEFAULT_INTERVAL);
        }
        if config.get_keepalives_retries().is_none() {
            config.keepalives_retries(Keepalive::DEFAULT_RETRIES);
        }
    }
    if let Some(timeout) = settings.tcp_user_timeout {
        config.tcp_user_timeout(timeout);
    }
    let timeout = settings.connect_timeout / attempts(&config);
    config.connect_timeout(timeout);
    config
}

/// Returns the file name of the program as it was called. The server shortens it to 63 bytes, and replaces characters
/// that are not ASCII.
fn program_name() -> String {
    let program = std::env::args_os().next().unwrap_or_default();
    let name = Path::new(&program).file_name().map(|name| name.to_string_lossy().replace('\0', ""));
    name.filter(|name| !name.is_empty()).unwrap_or_else(|| UNKNOWN_PROGRAM.to_owned())
}

/// Returns the number of addresses among which `connect_timeout` is divided.
///
/// The timeout in tokio-postgres's configuration is per address: with the whole of it, a first address that drops
/// packets would leave the others no time. A name may have several addresses, often one for IPv6 and one for IPv4.
fn attempts(config: &Config) -> u32 {
    let is_name = |host: &Host| matches!(host, Host::Tcp(name) if name.parse::<std::net::IpAddr>().is_err());
    let hosts = config.get_hosts();
    let by_name = config.get_hostaddrs().is_empty() && hosts.iter().any(is_name);
    let attempts = if by_name { hosts.len().max(2) } else { hosts.len().max(1) };
    u32::try_from(attempts).unwrap_or(u32::MAX)
}

#[cfg(test)]
#[path = "connect_tests.rs"]
mod tests;
