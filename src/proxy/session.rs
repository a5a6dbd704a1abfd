//! One client connection, from its first byte to its end.

use std::future::{Future as _, poll_fn};
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::cancel;
use super::drain::{Open, Sessions, draining};
use super::handshake::{Handshake, Step};
use super::messages::{StartupParameters, TERMINATE, fatal_error};
use super::observer::{RefusedByServer, SessionObserver};
use super::pools::Pool;
use super::relay::{Ended, Relay, Side};
use super::server::Shared;
use super::startup::{Opening, open};
use super::stream::Stream;
use super::upstream::UpstreamError;
use crate::labels::{CloseReason, ErrorCode, ErrorPhase};
use crate::telemetry::clock::{Clock, Nanos};
use crate::telemetry::connection::ConnectionStats;
use crate::telemetry::operations::OperationId;

/// The SQLSTATEs of the errors that the proxy itself reports.
const TOO_MANY_CONNECTIONS: ErrorCode = ErrorCode::new("53300");
const CONNECTION_FAILURE: ErrorCode = ErrorCode::new("08006");
const ADMIN_SHUTDOWN: ErrorCode = ErrorCode::new("57P01");

/// The code under which refusals of the proxy itself are counted, which are not the server's.
const LIMIT: ErrorCode = ErrorCode::new("limit");

/// How long a client may take to read the last message and to close.
const LINGER: Duration = Duration::from_secs(1);

/// Counts a connection that is closed unread, because there are too many. Its pool is unknown.
#[cold]
pub(super) fn count_refused(shared: &Shared) {
    let pool = shared.pools.other();
    Connection::open(&pool, OperationId::OTHER, Clock::new().now()).count_failure(LIMIT, &StartError::Limit);
}

/// Serves a client until its connection is closed.
pub(super) async fn serve(shared: Arc<Shared>, stream: Stream, open_guard: Open) {
    let deadline = Instant::now() + shared.settings.startup_timeout;
    let mut shutdown = shared.sessions.subscribe();
    let address = stream.peer_ip();
    // Boxed, so that an established session does not keep its memory.
    let start = Box::pin(start(&shared, stream, address, deadline));
    let started = tokio::select! {
        started = start => started,
        // A client that has not started has nothing to lose.
        _ = draining(&mut shutdown) => None,
    };
    if let Some(Started { mut relay, mut connection, admitted }) = started {
        let ended = run(&mut relay, &shared.sessions, shutdown).await;
        connection.reason = match ended {
            Some(Ended::By(_)) if relay.observer.is_terminated() => CloseReason::ClientClosed,
            Some(Ended::By(Side::Client)) => CloseReason::ClientLost,
            Some(Ended::By(Side::Server)) => CloseReason::Broken,
            Some(Ended::Drained) | None => CloseReason::Shutdown,
        };
        let may_send_error = relay.may_send_error();
        let Relay { client, server, observer, .. } = relay;
        // In this order: the observer ends the use in progress, and the connection is closed after that.
        drop(observer);
        drop(connection);
        drop(admitted);
        close(client, server, ended, may_send_error).await;
    }
    drop(open_guard);
}

/// A session that the server is ready for.
struct Started {
    relay: Relay,
    connection: Connection,
    admitted: super::drain::Admitted,
}

/// A connection of a pool, which is closed in the pool's ledger when this is dropped.
struct Connection {
    stats: Arc<ConnectionStats>,
    pool: Pool,
    reason: CloseReason,
}

impl Connection {
    fn open(pool: &Pool, operation: OperationId, since: Nanos) -> Self {
        let stats = Arc::new(ConnectionStats::new(operation, since));
        pool.recorder.connection_creating(&stats);
        Self { stats, pool: pool.clone(), reason: CloseReason::ConnectAbandoned }
    }

    /// Counts a failure, which may be that of the server.
    fn fail(&mut self, code: ErrorCode, error: &(dyn std::error::Error + 'static)) {
        self.count_failure(code, error);
        self.pool.failed(code);
    }

    /// Counts a failure that is not the server's.
    fn count_failure(&mut self, code: ErrorCode, error: &(dyn std::error::Error + 'static)) {
        self.pool.recorder.connection_error(ErrorPhase::Connect, code, error);
        self.reason = CloseReason::ConnectFailed;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.pool.recorder.ledger().connection_closed(&self.stats, self.reason);
        self.pool.recorder.log().connection_closed(self.reason);
    }
}

/// Why a session did not start, as far as it is not the server's decision.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error("the client was not ready within startup_timeout")]
    Timeout,
    #[error("the server closed the connection")]
    ServerLost,
    #[error("max_connections clients are connected")]
    Limit,
}

/// Connects a client to the server. Returns `None` if it wanted something else, or no session was started.
async fn start(shared: &Arc<Shared>, stream: Stream, address: Option<IpAddr>, deadline: Instant) -> Option<Started> {
    let opening = timeout_at(deadline, open(stream, shared.client_tls.as_ref())).await;
    let (mut client, opening) = opening.ok()?.ok()?;
    let message = match opening {
        Opening::Session(message) => message,
        Opening::Cancel(request) => {
            cancel::forward(client, &request, &shared.upstream).await;
            return None;
        }
    };
    let parameters = StartupParameters::of(&message);
    let mut starting = Starting::new(shared, parameters, address);
    let Some(admitted) = shared.sessions.admit() else {
        starting.fail(LIMIT, &StartError::Limit);
        drop(starting);
        refuse(&mut client, TOO_MANY_CONNECTIONS, "sorry, too many clients already").await;
        return None;
    };
    let connected = timeout_at(deadline, shared.upstream.connect()).await;
    let mut server = match connected.unwrap_or(Err(UpstreamError::Timeout)) {
        Ok(server) => server,
        Err(error) => {
            starting.fail(error.code(), &error);
            drop((starting, admitted));
            refuse(&mut client, CONNECTION_FAILURE, describe(&error)).await;
            return None;
        }
    };
    let mut handshake = Handshake::new(&mut client, &mut server);
    let result = timeout_at(deadline, starting.shake_hands(&mut handshake, &message)).await;
    let is_server_silent = handshake.received == 0;
    let (from_client, from_server) =
        (std::mem::take(&mut handshake.from_client.bytes), std::mem::take(&mut handshake.from_server.bytes));
    match result {
        Ok(Some(observer)) => {
            let relay = Relay::new(client, server, observer, from_client, from_server);
            let mut connection = starting.connection?;
            // Unless another is known when it ends.
            connection.reason = CloseReason::Shutdown;
            Some(Started { relay, connection, admitted })
        }
        Ok(None) => {
            // The connection has ended; only the client may still read.
            drop((starting, admitted));
            linger(&mut client).await;
            None
        }
        // A server that has answered waits for the client.
        Err(_) if is_server_silent => {
            starting.fail(ErrorCode::TIMEOUT, &StartError::Timeout);
            None
        }
        Err(_) => {
            starting.connection().count_failure(ErrorCode::TIMEOUT, &StartError::Timeout);
            None
        }
    }
}

/// Returns the message for a client whose server cannot be connected to.
const fn describe(error: &UpstreamError) -> &'static str {
    match error {
        UpstreamError::Io(_) => "poolscope could not connect to the server",
        UpstreamError::Timeout => "the server did not answer poolscope in time",
        UpstreamError::NoTls | UpstreamError::Handshake(_) => "poolscope could not establish TLS to the server",
    }
}

/// A session that is starting. Its pool may be unknown until the server has accepted the client.
struct Starting<'a> {
    shared: &'a Shared,
    parameters: StartupParameters,
    pool_name: String,
    since: Nanos,
    operation: OperationId,
    connection: Option<Connection>,
}

impl<'a> Starting<'a> {
    fn new(shared: &'a Shared, parameters: StartupParameters, address: Option<IpAddr>) -> Self {
        let pool_name = shared.pools.name_of(&parameters, address);
        let since = Clock::new().now();
        let mut starting =
            Self { shared, parameters, pool_name, since, operation: OperationId::OTHER, connection: None };
        if let Some(pool) = shared.pools.get(&starting.pool_name) {
            starting.open_in(&pool);
        }
        starting
    }

    fn open_in(&mut self, pool: &Pool) -> &mut Connection {
        self.connection.get_or_insert_with(|| Connection::open(pool, self.operation, self.since))
    }

    /// Counts a failed start.
    fn fail(&mut self, code: ErrorCode, error: &(dyn std::error::Error + 'static)) {
        self.connection().fail(code, error);
    }

    /// Returns the connection. That of a client that was not accepted, and whose pool is unknown, belongs to the pool `other`.
    fn connection(&mut self) -> &mut Connection {
        let (shared, since) = (self.shared, self.since);
        self.connection.get_or_insert_with(|| Connection::open(&shared.pools.other(), OperationId::OTHER, since))
    }

    /// Passes the start of the session on. Returns its observer once the server is ready, or `None` if it did not start.
    async fn shake_hands(&mut self, handshake: &mut Handshake<'_>, message: &[u8]) -> Option<SessionObserver> {
        if handshake.start(message).await.is_err() {
            self.fail(ErrorCode::IO, &StartError::ServerLost);
            return None;
        }
        match handshake.complete().await {
            Step::Ready(accepted) => {
                let pool = self.shared.pools.get_or_create(&self.pool_name);
                // Not before: clients that the server does not accept must not fill the table of operations.
                self.operation = pool.recorder.operation(&self.parameters.application);
                self.open_in(&pool);
                pool.connected();
                let mut observer = self.observer()?;
                let (sent, received) = (handshake.sent - message.len(), handshake.received - accepted.len());
                observer.count(sent, received);
                observer.sent(message);
                observer.received(&accepted);
                return Some(observer);
            }
            // Passed on without being read.
            Step::Unknown => {
                let pool = self.shared.pools.other();
                self.open_in(&pool);
                let mut observer = self.observer()?;
                observer.lose("unknown message while a session starts");
                return Some(observer);
            }
            Step::Refused(code) => self.fail(code, &RefusedByServer { code }),
            Step::ServerLost => self.fail(ErrorCode::IO, &StartError::ServerLost),
            // It is closed as abandoned.
            Step::ClientLost => {
                self.connection();
            }
        }
        None
    }

    fn observer(&self) -> Option<SessionObserver> {
        let Connection { stats, pool: Pool { recorder, .. }, .. } = self.connection.as_ref()?;
        Some(SessionObserver::new(
            Arc::clone(stats),
            recorder.clone(),
            Arc::clone(&self.shared.names),
            self.operation,
            self.since,
            self.shared.pools.server_of(&self.parameters),
        ))
    }
}

/// Passes bytes on until the session ends, or the shutdown's deadline passes: `None`.
async fn run(
    relay: &mut Relay,
    sessions: &Sessions,
    mut shutdown: tokio::sync::watch::Receiver<Option<Instant>>,
) -> Option<Ended> {
    let mut draining = pin!(draining(&mut shutdown));
    let mut is_registered = false;
    let began = poll_fn(|cx| {
        if let Poll::Ready(ended) = relay.poll_run(cx) {
            return Poll::Ready(Err(ended));
        }
        // Polled once, to be woken by the shutdown, and then not for each message: the waker of a task stays the same.
        if is_registered && !sessions.is_draining() {
            return Poll::Pending;
        }
        is_registered = true;
        draining.as_mut().poll(cx).map(Ok)
    });
    let deadline = match began.await {
        Ok(deadline) => deadline,
        Err(ended) => return Some(ended),
    };
    relay.is_draining = true;
    tokio::select! {
        ended = relay.run() => Some(ended),
        () = sleep_until(deadline) => None,
    }
}

/// Ends both connections. Where the proxy ends the session, the client receives PostgreSQL's message for it.
async fn close(mut client: Stream, mut server: Stream, ended: Option<Ended>, may_send_error: bool) {
    match ended {
        Some(Ended::By(Side::Client)) => return,
        Some(Ended::By(Side::Server)) => {}
        Some(Ended::Drained) | None => {
            let message = "terminating connection due to the shutdown of poolscope";
            let _ = timeout(LINGER, async {
                if ended.is_some() {
                    server.write_all(&TERMINATE).await?;
                    server.shutdown().await?;
                }
                if may_send_error {
                    client.write_all(&fatal_error(ADMIN_SHUTDOWN, message)).await?;
                    client.flush().await?;
                }
                Ok::<_, io::Error>(())
            })
            .await;
        }
    }
    drop(server);
    linger(&mut client).await;
}

/// Ends a session that did not start with an error.
async fn refuse(client: &mut Stream, code: ErrorCode, message: &str) {
    let _ = timeout(LINGER, async {
        client.write_all(&fatal_error(code, message)).await?;
        client.flush().await
    })
    .await;
    linger(client).await;
}

/// Closes the client's connection so that it can still read what was sent: a socket that is closed with unread data resets
/// the connection.
async fn linger(client: &mut Stream) {
    let discard = async {
        client.shutdown().await?;
        let mut discarded = [0; 1024];
        while client.read(&mut discarded).await? > 0 {}
        Ok::<_, io::Error>(())
    };
    let _ = timeout(LINGER, discard).await;
}
