//! Accepts connections and shuts down gracefully.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};

use super::clients::{Admission, Clients};
use super::connection::ConnectionHandler;
use super::error::ExporterError;
use super::limits::{MAX_CONNECTIONS, MAX_CONNECTIONS_PER_PEER, SHUTDOWN_GRACE};
use crate::telemetry::Collector;
use crate::telemetry::clock::Clock;
use crate::telemetry::log::{ConditionLimiter, Limiter};
use crate::telemetry::sampler::sample_all;
use crate::text::Printable;

/// The pause before the next accept after the process ran out of file descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// An exporter that listens. Connections wait until [`serve`](Self::serve) is polled.
#[derive(Debug)]
pub struct BoundExporter {
    listener: TcpListener,
    local_addr: SocketAddr,
    handler: Arc<ConnectionHandler>,
    collector: Collector,
}

impl BoundExporter {
    pub(super) fn new(
        listener: TcpListener,
        local_addr: SocketAddr,
        handler: ConnectionHandler,
        collector: Collector,
    ) -> Self {
        Self { listener, local_addr, handler: Arc::new(handler), collector }
    }

    /// Returns the address of the socket, with the actual port if it was bound to port 0.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Returns the scheme of its URLs: `https` if the web configuration enables TLS, else `http`.
    pub fn scheme(&self) -> &'static str {
        self.handler.scheme()
    }

    /// Serves until `shutdown` completes, then stops listening and waits for requests in progress. Meanwhile it samples
    /// the pools once per second for their diagnosis.
    ///
    /// Idle connections are closed at once, and requests that have not ended 5 s after `shutdown` completed are
    /// aborted. A collector that hangs still occupies its blocking thread then; if that matters, end the runtime with
    /// [`Runtime::shutdown_timeout`](tokio::runtime::Runtime::shutdown_timeout).
    ///
    /// # Errors
    ///
    /// Returns an error if the listening socket fails. Running out of file descriptors is not a failure: the exporter
    /// logs it once and tries again each second.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the listener and all connections at once.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) -> Result<(), ExporterError> {
        let Self { listener, local_addr, handler, collector } = self;
        let mut sampler = pin!(sample_all(collector.clone(), collector.history()));
        let graceful = GracefulShutdown::new();
        let mut acceptor = Acceptor::new(listener);
        let mut connections = JoinSet::new();
        let mut shutdown = pin!(shutdown);
        tracing::info!(address = %local_addr, scheme = handler.scheme(), "serving metrics");

        loop {
            let (stream, admission) = tokio::select! {
                biased;
                () = &mut shutdown => break,
                never = &mut sampler => match never {},
                Some(ended) = connections.join_next() => {
                    log_panic(ended);
                    continue;
                }
                accepted = acceptor.accept() => {
                    accepted.map_err(|source| ExporterError::Accept { source })?
                }
            };
            let client = Arc::clone(&admission.client);
            let connection = Arc::clone(&handler).handle(stream, client, graceful.watcher());
            connections.spawn(async move {
                connection.await;
                drop(admission);
            });
        }

        handler.begin_shutdown();
        drop(acceptor);
        if timeout(SHUTDOWN_GRACE, graceful.shutdown()).await.is_err() {
            tracing::warn!(connections = connections.len(), "aborted requests still in progress at shutdown");
        }
        connections.shutdown().await;
        Ok(())
    }
}

fn log_panic(ended: Result<(), JoinError>) {
    static PANICS: Limiter = Limiter::new();
    if let Err(error) = ended
        && error.is_panic()
        && let Some(suppressed) = PANICS.pass_now()
    {
        tracing::error!(error = %Printable(error), suppressed, "serving a connection panicked");
    }
}

/// Accepts a bounded number of connections, and survives resource shortages of the process.
#[derive(Debug)]
struct Acceptor {
    listener: TcpListener,
    clients: Clients,
    limit_log: Limiter,
    backoff: AcceptBackoff,
}

impl Acceptor {
    fn new(listener: TcpListener) -> Self {
        Self { listener, clients: Clients::default(), limit_log: Limiter::new(), backoff: AcceptBackoff::default() }
    }

    /// Accepts the next connection, and admits it.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses no connection and does not shorten a pause.
    async fn accept(&mut self) -> io::Result<(TcpStream, Admission)> {
        self.clients.has_room().await;
        loop {
            if let Some(until) = self.backoff.until {
                sleep_until(until).await;
            }
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    self.backoff.reset();
                    let admission = self.clients.admit(peer);
                    if admission.as_ref().is_none_or(|admission| admission.evicts || admission.client.is_reserved()) {
                        self.log_limit();
                    }
                    // Otherwise it is closed: its peer has all the connections that it may have.
                    let Some(admission) = admission else { continue };
                    // Otherwise the tail of a response may wait for an acknowledgement.
                    let _ = stream.set_nodelay(true);
                    return Ok((stream, admission));
                }
                Err(error) => self.backoff.record(error)?,
            }
        }
    }

    fn log_limit(&self) {
        if let Some(suppressed) = self.limit_log.pass_now() {
            tracing::warn!(
                connections = MAX_CONNECTIONS,
                of_one_client = MAX_CONNECTIONS_PER_PEER,
                suppressed,
                "connection limit reached; for each new connection, one without a request under way is closed"
            );
        }
    }
}

/// Pauses accepting while the process lacks file descriptors or memory.
#[derive(Debug, Default)]
struct AcceptBackoff {
    until: Option<Instant>,
    limiter: ConditionLimiter,
}

impl AcceptBackoff {
    /// Decides when to accept again after `error`, or returns it if trying again is useless.
    fn record(&mut self, error: io::Error) -> io::Result<()> {
        match error.kind() {
            // The client closed the connection before it was accepted.
            io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted => Ok(()),
            // The socket does not listen.
            io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported => Err(error),
            // Out of file descriptors or memory. The connection stays in the queue, so trying again at once would spin.
            _ => {
                if let Some(suppressed) = self.limiter.holds(Clock::new().now()) {
                    tracing::error!(%error, suppressed, "cannot accept connections; trying again each second");
                }
                self.until = Some(Instant::now() + ACCEPT_PAUSE);
                Ok(())
            }
        }
    }

    fn reset(&mut self) {
        if self.until.take().is_some() && self.limiter.ended() {
            tracing::info!("accepting connections again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMFILE: i32 = 24;

    #[tokio::test(start_paused = true)]
    async fn accepting_pauses_without_file_descriptors() {
        let mut backoff = AcceptBackoff::default();
        assert!(backoff.record(io::Error::from_raw_os_error(EMFILE)).is_ok());
        assert_eq!(backoff.until, Some(Instant::now() + ACCEPT_PAUSE));

        backoff.reset();
        assert_eq!(backoff.until, None);
    }

    #[test]
    fn aborted_connection_pauses_nothing() {
        let mut backoff = AcceptBackoff::default();
        let aborted = io::ErrorKind::ConnectionAborted.into();
        assert!(backoff.record(aborted).is_ok());
        assert_eq!(backoff.until, None);
    }

    #[test]
    fn socket_that_does_not_listen_is_an_error() {
        let error = io::ErrorKind::InvalidInput.into();
        assert!(AcceptBackoff::default().record(error).is_err());
    }
}
