//! The proxy: its listeners, and its sessions.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::drain::Sessions;
use super::error::ProxyError;
use super::listener::Listener;
use super::pools::Pools;
use super::session;
use super::settings::Settings;
use super::startup::ClientTls;
use super::upstream::Upstream;
use super::workers::Workers;
use crate::telemetry::Collector;
use crate::telemetry::log::{Limiter, event};
use crate::wire::CommentNames;

/// How long accepting pauses after an error such as a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long a shutdown waits beyond its deadline for the sessions that it has ended.
const END_TIMEOUT: Duration = Duration::from_secs(3);

/// A transparent proxy, see the [module's documentation](super).
#[derive(Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
    listeners: Vec<Listener>,
    workers: Arc<Workers>,
}

/// What the sessions share.
pub(super) struct Shared {
    pub(super) settings: Settings,
    pub(super) upstream: Upstream,
    pub(super) client_tls: Option<ClientTls>,
    pub(super) pools: Pools,
    pub(super) names: Arc<CommentNames>,
    pub(super) sessions: Arc<Sessions>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Proxy {
    /// Reads the certificate files and binds the listeners. The pools of the clients join `collector`. Does not connect to
    /// the server.
    ///
    /// # Errors
    ///
    /// Returns an error if a setting or a file is invalid, or an address cannot be listened at.
    pub async fn bind(settings: Settings, collector: &Collector) -> Result<Self, ProxyError> {
        settings.validate()?;
        let tls = |error| ProxyError::Tls(Box::new(error));
        let upstream = Upstream::new(&settings).map_err(tls)?;
        let client_tls = ClientTls::new(&settings).map_err(tls)?;
        let mut listeners = Vec::new();
        for address in &settings.listen {
            listeners.push(Listener::bind(address).await?);
        }
        let pools = Pools::new(&settings, collector, upstream.server());
        let names = Arc::new(CommentNames::new(settings.operation_keys.iter().map(String::as_str)));
        let sessions = Arc::new(Sessions::new(settings.max_connections));
        let workers = Arc::new(Workers::start(settings.threads).map_err(ProxyError::Thread)?);
        let shared = Arc::new(Shared { settings, upstream, client_tls, pools, names, sessions });
        Ok(Self { shared, listeners, workers })
    }

    /// Returns the addresses of the TCP listeners.
    #[must_use]
    pub fn tcp_addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(Listener::tcp_address).collect()
    }

    /// Serves clients until `shutdown` is ready. Then it accepts no more, ends each session with SQLSTATE 57P01 as soon as it
    /// is idle outside a transaction, and returns when all have ended, at the latest a little after `drain_timeout`.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let Self { shared, listeners, workers } = self;
        let mut accepting = JoinSet::new();
        for listener in listeners {
            accepting.spawn(accept(listener, Arc::clone(&shared), Arc::clone(&workers)));
        }
        shutdown.await;
        accepting.shutdown().await;
        let drain_timeout = shared.settings.drain_timeout;
        shared.sessions.drain(Instant::now() + drain_timeout);
        let _ = timeout(drain_timeout + END_TIMEOUT, shared.sessions.closed()).await;
    }
}

/// Accepts connections, and never returns.
async fn accept(listener: Listener, shared: Arc<Shared>, workers: Arc<Workers>) {
    static FAILURES: Limiter = Limiter::new();
    loop {
        match listener.accept().await {
            Ok(stream) => match shared.sessions.open() {
                Some(open) => {
                    let shared = Arc::clone(&shared);
                    workers.spawn(stream, move |stream| session::serve(shared, stream, open));
                }
                None => session::count_refused(&shared),
            },
            Err(error) => {
                if let Some(suppressed) = FAILURES.pass_now() {
                    event!(error, %error, suppressed, "could not accept a client's connection");
                }
                // The error of one client concerns no other.
                if !matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}
