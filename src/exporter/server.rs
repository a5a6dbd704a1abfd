//! Accepts connections and lets them end.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};

use super::ExporterError;
use super::conversation::Conversation;
use super::limits::Limits;

/// How long to leave the listener alone after the process ran out of something it needs to accept.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// How often it is told, at the most, that as many connections are open as may be.
const BETWEEN_TELLING: Duration = Duration::from_secs(60);

/// An exporter that listens. Connections wait until [`serve`](Self::serve) is polled.
#[derive(Debug)]
pub struct BoundExporter {
    listener: TcpListener,
    local_addr: SocketAddr,
    scheme: &'static str,
    conversation: Arc<Conversation>,
    limits: Limits,
}

impl BoundExporter {
    pub(super) fn new(
        listener: TcpListener,
        local_addr: SocketAddr,
        scheme: &'static str,
        conversation: Conversation,
        limits: Limits,
    ) -> Self {
        Self { listener, local_addr, scheme, conversation: Arc::new(conversation), limits }
    }

    /// Where it listens, with the port that was picked if 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// How to begin a URL to it: `https` where its web configuration has TLS, else `http`.
    pub fn scheme(&self) -> &'static str {
        self.scheme
    }

    /// Serves until `shutdown` completes, then stops listening and lets the requests under way end.
    ///
    /// Idle connections are closed at once. Requests that have not ended 5 s after `shutdown`
    /// completed are cut off. A collector that hangs still occupies its blocking thread afterwards,
    /// so end the runtime with [`Runtime::shutdown_timeout`](tokio::runtime::Runtime::shutdown_timeout)
    /// where that matters.
    ///
    /// # Errors
    ///
    /// When the listening socket itself fails. Running out of file descriptors is no such failure:
    /// the exporter logs it once and tries again each second.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the listener and all connections at once.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) -> Result<(), ExporterError> {
        let Self { listener, local_addr, scheme, conversation, limits } = self;
        let graceful = GracefulShutdown::new();
        let mut acceptor = Acceptor::new(listener, limits.connections);
        let mut connections = JoinSet::new();
        let mut shutdown = pin!(shutdown);
        tracing::info!(address = %local_addr, scheme, "serving metrics");

        loop {
            let (stream, place) = tokio::select! {
                biased;
                () = &mut shutdown => break,
                Some(ended) = connections.join_next() => {
                    report(ended);
                    continue;
                }
                accepted = acceptor.accept() => {
                    accepted.map_err(|source| ExporterError::Accept { source })?
                }
            };
            let held = Arc::clone(&conversation).hold(stream, graceful.watcher());
            connections.spawn(async move {
                held.await;
                drop(place);
            });
        }

        conversation.stop();
        drop(acceptor);
        if timeout(limits.shutdown_grace, graceful.shutdown()).await.is_err() {
            tracing::warn!(connections = connections.len(), "requests still under way at shutdown were cut off");
        }
        connections.shutdown().await;
        Ok(())
    }
}

fn report(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "serving a connection panicked");
    }
}

/// A listener that takes a bounded number of connections and survives the process' shortages.
#[derive(Debug)]
struct Acceptor {
    listener: TcpListener,
    places: Arc<Semaphore>,
    max_places: usize,
    /// When it was last told that no place was left.
    told_full: Option<Instant>,
    shortage: Shortage,
}

impl Acceptor {
    fn new(listener: TcpListener, max_places: usize) -> Self {
        Self {
            listener,
            places: Arc::new(Semaphore::new(max_places)),
            max_places,
            told_full: None,
            shortage: Shortage::default(),
        }
    }

    /// The next connection, and its place among those open at once.
    ///
    /// # Cancel safety
    ///
    /// No connection is lost, and a pause is not cut short.
    async fn accept(&mut self) -> io::Result<(TcpStream, Option<OwnedSemaphorePermit>)> {
        let place = self.place().await;
        loop {
            if let Some(pause_end) = self.shortage.pause_end {
                sleep_until(pause_end).await;
            }
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    self.shortage.over();
                    // Without it, the tail of an answer may wait for an acknowledgement.
                    let _ = stream.set_nodelay(true);
                    return Ok((stream, place));
                }
                Err(error) => self.shortage.weigh(error)?,
            }
        }
    }

    /// A place, once there is one. `None` is for a semaphore that is closed, which this one never is.
    async fn place(&mut self) -> Option<OwnedSemaphorePermit> {
        if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
            return Some(place);
        }
        // Who connects and leaves again and again is to have no line for each time.
        if self.told_full.is_none_or(|told| told.elapsed() >= BETWEEN_TELLING) {
            self.told_full = Some(Instant::now());
            tracing::warn!(
                connections = self.max_places,
                "as many connections are open as the exporter takes; further ones wait"
            );
        }
        Arc::clone(&self.places).acquire_owned().await.ok()
    }
}

/// Whether the process has lately been unable to accept.
#[derive(Debug, Default)]
struct Shortage {
    pause_end: Option<Instant>,
}

impl Shortage {
    /// Says when to try again after `error`, or gives it back if that is no use.
    fn weigh(&mut self, error: io::Error) -> io::Result<()> {
        match error.kind() {
            // The client went away between its knock and our answer.
            io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted => Ok(()),
            // The socket is not one that listens.
            io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported => Err(error),
            // Out of file descriptors or memory. The connection stays in the queue, so that trying
            // at once would spin.
            _ => {
                if self.pause_end.is_none() {
                    tracing::error!(%error, "cannot accept connections; trying again each second");
                }
                self.pause_end = Some(Instant::now() + ACCEPT_PAUSE);
                Ok(())
            }
        }
    }

    fn over(&mut self) {
        if self.pause_end.take().is_some() {
            tracing::info!("accepting connections again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMFILE: i32 = 24;

    #[tokio::test(start_paused = true)]
    async fn running_out_of_file_descriptors_pauses_the_listener() {
        let mut shortage = Shortage::default();
        assert!(shortage.weigh(io::Error::from_raw_os_error(EMFILE)).is_ok());
        assert_eq!(shortage.pause_end, Some(Instant::now() + ACCEPT_PAUSE));

        shortage.over();
        assert_eq!(shortage.pause_end, None);
    }

    #[test]
    fn a_client_that_left_before_it_was_accepted_pauses_nothing() {
        let mut shortage = Shortage::default();
        let gone = io::ErrorKind::ConnectionAborted.into();
        assert!(shortage.weigh(gone).is_ok());
        assert_eq!(shortage.pause_end, None);
    }

    #[test]
    fn a_socket_that_cannot_listen_is_an_error() {
        let broken = io::ErrorKind::InvalidInput.into();
        assert!(Shortage::default().weigh(broken).is_err());
    }
}
