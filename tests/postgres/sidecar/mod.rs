//! The transparent proxy between real clients and a real server.

mod clients;
mod faults;
mod limits;
mod sessions;
mod streams;
mod tls;

use std::net::SocketAddr;

use poolscope::Collector;
use poolscope::labels::CloseReason;
use poolscope::proxy::{ListenAddress, Proxy, Settings};
use poolscope::telemetry::{OperationTotals, PoolSnapshot};
use poolscope_testing::server::Server;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls};

use crate::support::{TEST_TIMEOUT, eventually, poll_until, with_deadline};

/// A running proxy to a server.
pub(super) struct Sidecar {
    address: SocketAddr,
    pub(super) collector: Collector,
    shutdown: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Sidecar {
    pub(super) async fn to(server: &Server) -> Self {
        Self::with(&upstream(server), |_| {}).await
    }

    pub(super) async fn with(upstream: &str, set: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings::new(upstream).unwrap();
        settings.listen = vec!["127.0.0.1:0".parse::<ListenAddress>().unwrap()];
        settings.startup_timeout = TEST_TIMEOUT;
        set(&mut settings);
        let collector = Collector::new();
        let proxy = Proxy::bind(settings, &collector).await.unwrap();
        let address = proxy.tcp_addresses()[0];
        let (shutdown, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(proxy.run(async { drop(stopped.await) }));
        Self { address, collector, shutdown, task }
    }

    /// Returns the URL of a client with this application name.
    pub(super) fn url(&self, application: &str) -> String {
        let port = self.address.port();
        format!("postgres://postgres@127.0.0.1:{port}/postgres?application_name={application}&sslmode=disable")
    }

    pub(super) async fn client(&self, application: &str) -> Client {
        let url = self.url(application);
        let connecting = tokio_postgres::connect(&url, NoTls);
        let (client, connection) = with_deadline("a connection", connecting).await.unwrap();
        tokio::spawn(connection);
        client
    }

    pub(super) fn pool(&self, name: &str) -> Option<PoolSnapshot> {
        self.collector.snapshots().into_iter().find(|pool| *pool.name == *name)
    }

    /// Waits until the pool of this application is in a state.
    pub(super) async fn await_pool(
        &self,
        application: &str,
        what: &str,
        is: impl Fn(&PoolSnapshot) -> bool,
    ) -> PoolSnapshot {
        let name = format!("{application} postgres@postgres");
        poll_until(what, async || self.pool(&name).filter(|pool| is(pool))).await
    }

    /// Begins the shutdown, and waits for its end.
    pub(super) async fn stop(self) {
        let _ = self.shutdown.send(());
        with_deadline("the proxy's end", self.task).await.unwrap();
    }
}

/// Returns the URL of a server without a user.
pub(super) fn upstream(server: &Server) -> String {
    format!("postgres://127.0.0.1:{}?sslmode=disable", server.port())
}

pub(super) fn operation<'a>(pool: &'a PoolSnapshot, name: &str) -> &'a OperationTotals {
    let found = pool.operations.iter().find(|operation| *operation.name == *name);
    found.unwrap_or_else(|| panic!("no {name} in {:?}", pool.operations.iter().map(|of| &of.name).collect::<Vec<_>>()))
}

pub(super) fn closed(pool: &PoolSnapshot, reason: CloseReason) -> u64 {
    pool.closed[reason.index()]
}

/// Checks that each connection is live or has one reason for its end, and that each use is counted once.
pub(super) fn assert_adds_up(pool: &PoolSnapshot) {
    assert_eq!(pool.created, pool.closed.iter().sum::<u64>() + pool.connections.live() as u64, "{pool:?}");
    for operation in &pool.operations {
        assert_eq!(operation.started, operation.outcomes.iter().sum::<u64>(), "{operation:?}");
        assert!(operation.queries_finished <= operation.queries, "{operation:?}");
    }
}
