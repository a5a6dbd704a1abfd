//! The shop: an HTTP service as many are, whose requests the middleware accounts to their routes.
//!
//! `endpoint` has its routes, `service` leads a request to its handler, `handlers` does what is asked for. It listens
//! here, until it is closed: then it takes no more, lets those under way end, and cuts off what is left in the end.

mod answer;
mod endpoint;
mod handlers;
mod manner;
mod service;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

pub(super) use self::endpoint::Endpoint;
pub(super) use self::handlers::{Handlers, any_customer, any_product};
pub(super) use self::manner::{Flaw, Manner};
use self::service::{ShopService, serve, service};
use super::course::Course;
use super::error::DemoError;
use poolscope::Pool;

/// How long a customer may stay connected without asking for anything.
const HEAD_WITHIN: Duration = Duration::from_secs(60);

/// How many connections are served at once.
const MOST_CONNECTIONS: usize = 1000;

/// How long to leave the listener alone after the process ran out of something it needs to accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// The shop, open until [`close`](Self::close).
#[derive(Debug)]
pub(super) struct Shop {
    handlers: Arc<Handlers>,
    address: SocketAddr,
    course: watch::Sender<Course>,
    task: JoinHandle<()>,
}

impl Shop {
    /// Opens it at `address`.
    pub(super) async fn open(address: &str, pool: &Pool) -> Result<Self, DemoError> {
        let failed = |source| DemoError::Shop { address: address.to_owned(), source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let handlers = Arc::new(Handlers::new(pool));
        let (course, is_at) = watch::channel(Course::Open);
        let task = tokio::spawn(receive(listener, service(pool, Arc::clone(&handlers)), is_at));
        Ok(Self { handlers, address, course, task })
    }

    /// Where customers on this machine find it.
    pub(super) fn url(&self) -> String {
        let ip = match self.address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        format!("http://{}", SocketAddr::new(ip, self.address.port()))
    }

    /// Who does its work.
    pub(super) fn handlers(&self) -> Arc<Handlers> {
        Arc::clone(&self.handlers)
    }

    /// From now on it takes no request. Those under way go on.
    pub(super) fn close(&self) {
        self.course.send_replace(Course::Closing);
    }

    /// Cuts off what is still under way, and waits until it has ended: what it has to tell is told by then.
    pub(super) async fn abort(self) {
        self.course.send_replace(Course::Over);
        let _ = self.task.await;
    }
}

/// Takes connections as they come, and looks after them.
async fn receive(listener: TcpListener, service: ShopService, mut course: watch::Receiver<Course>) {
    let (graceful, mut connections) = (GracefulShutdown::new(), JoinSet::new());
    loop {
        let accepted = tokio::select! {
            biased;
            () = Course::Closing.reached(&mut course) => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept(), if connections.len() < MOST_CONNECTIONS => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                // Without it, the tail of an answer may wait for an acknowledgement.
                let _ = stream.set_nodelay(true);
                let service = service.clone();
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEAD_WITHIN)
                    .serve_connection(TokioIo::new(stream), service_fn(move |request| serve(service.clone(), request)));
                let connection = graceful.watch(connection);
                // How a customer ends it is his affair.
                connections.spawn(async { drop(connection.await) });
            }
            Err(error) => {
                tracing::debug!(%error, "the shop could not take a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    tokio::select! {
        () = Course::Over.reached(&mut course) => {}
        () = graceful.shutdown() => {}
    }
    connections.shutdown().await;
}
