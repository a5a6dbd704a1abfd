//! The shop: an HTTP service with the middleware.
//!
//! `endpoint` lists the routes, `service` routes requests, `handlers` serves them. This module has the listener with its
//! graceful shutdown.

mod behavior;
mod endpoint;
mod handlers;
mod response;
mod service;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use poolscope::Pool;
use poolscope::cache::Cache;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

pub(super) use self::behavior::{Behavior, CodeFault};
pub(super) use self::endpoint::Endpoint;
pub(super) use self::handlers::{Handlers, any_customer, any_product, viewed_product};
use self::service::{ShopService, serve, service};
use super::drain::DrainState;
use super::error::DemoError;

/// How long a connection may take to send the header of a request, idle time included.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(60);

/// How many connections are served at once.
const MAX_CONNECTIONS: usize = 1000;

/// The pause after a failed accept, such as for lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// The running shop. Stopped by [`drain`](Self::drain), then [`abort`](Self::abort).
#[derive(Debug)]
pub(super) struct Shop {
    handlers: Arc<Handlers>,
    address: SocketAddr,
    state: watch::Sender<DrainState>,
    task: JoinHandle<()>,
}

impl Shop {
    /// Starts to serve at `address`, and reads products through the cache, if there is one.
    pub(super) async fn open(address: &str, pool: &Pool, products: Option<Cache<Value>>) -> Result<Self, DemoError> {
        let failed = |source| DemoError::Shop { address: address.to_owned(), source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let handlers = Arc::new(Handlers::new(pool, products));
        let (state, state_receiver) = watch::channel(DrainState::Running);
        let task = tokio::spawn(accept(listener, service(pool, Arc::clone(&handlers)), state_receiver));
        Ok(Self { handlers, address, state, task })
    }

    /// Returns the URL for clients on this machine.
    pub(super) fn url(&self) -> String {
        let ip = match self.address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        format!("http://{}", SocketAddr::new(ip, self.address.port()))
    }

    /// Returns the request handlers.
    pub(super) fn handlers(&self) -> Arc<Handlers> {
        Arc::clone(&self.handlers)
    }

    /// Stops accepting requests. Those in flight continue.
    pub(super) fn drain(&self) {
        self.state.send_replace(DrainState::Draining);
    }

    /// Aborts the requests in flight, and waits for their end, so that they are counted.
    pub(super) async fn abort(self) {
        self.state.send_replace(DrainState::Aborted);
        let _ = self.task.await;
    }
}

/// Accepts and serves connections until the shop is drained.
async fn accept(listener: TcpListener, service: ShopService, mut state: watch::Receiver<DrainState>) {
    let (graceful, mut connections) = (GracefulShutdown::new(), JoinSet::new());
    loop {
        let accepted = tokio::select! {
            biased;
            () = DrainState::Draining.reached(&mut state) => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                // Otherwise the end of a response may wait for an acknowledgement.
                let _ = stream.set_nodelay(true);
                let service = service.clone();
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEADER_READ_TIMEOUT)
                    .serve_connection(TokioIo::new(stream), service_fn(move |request| serve(service.clone(), request)));
                let connection = graceful.watch(connection);
                // Errors of a connection concern its client only.
                connections.spawn(async { drop(connection.await) });
            }
            Err(error) => {
                tracing::debug!(%error, "the shop could not accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    tokio::select! {
        () = DrainState::Aborted.reached(&mut state) => {}
        () = graceful.shutdown() => {}
    }
    connections.shutdown().await;
}
