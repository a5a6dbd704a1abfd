//! Helpers shared by the tests.

#[path = "../../support/expositions.rs"]
pub(crate) mod expositions;
mod http;
#[path = "../../support/log_lines.rs"]
pub(crate) mod log_lines;
#[path = "../../support/pages/mod.rs"]
pub(crate) mod pages;
mod server;
mod traces;
#[path = "../../support/waits.rs"]
mod waits;

use std::error::Error;
use std::fmt::Debug;

use ::prometheus::{Registry, TextEncoder};
use poolscope::{Collector, Connection, Pool, PoolBuilder};
use tokio_postgres::error::SqlState;

pub(crate) use http::get as http_get;
pub(crate) use poolscope_testing::otlp::{Attributes, Link, Span};
pub(crate) use poolscope_testing::prometheus::Prometheus;
pub(crate) use poolscope_testing::proxy::Proxy;
pub(crate) use poolscope_testing::scrape::{MonotonicCheck, Scrape};
pub(crate) use server::{Admin, shared};
pub(crate) use traces::{Trace, traced};
pub(crate) use waits::{TEST_TIMEOUT, eventually, poll_until, with_deadline};

/// A pool with a registry of its own.
#[derive(Clone)]
pub(crate) struct TestPool {
    pub(crate) pool: Pool,
    collector: Collector,
    registry: Registry,
}

impl TestPool {
    /// Returns a pool at `url`. Its name, which must be unique to the test, is also its `application_name`.
    pub(crate) fn new(name: &str, url: &str, settings: impl FnOnce(PoolBuilder) -> PoolBuilder) -> Self {
        let collector = Collector::new();
        let builder = Pool::builder().url(url).name(name).application_name(name).collector(collector.clone());
        let registry = Registry::new();
        registry.register(Box::new(collector.clone())).unwrap();
        Self { pool: settings(builder).build().unwrap(), collector, registry }
    }

    /// Returns a pool on the shared server.
    pub(crate) async fn shared(name: &str, settings: impl FnOnce(PoolBuilder) -> PoolBuilder) -> Self {
        Self::new(name, &shared().await.url(), settings)
    }

    pub(crate) fn collector(&self) -> Collector {
        self.collector.clone()
    }

    pub(crate) fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Returns a scrape after checking its invariants.
    pub(crate) fn scrape(&self) -> Scrape {
        let scrape = Scrape::parse(&TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap());
        scrape.assert_adds_up(self.pool.name());
        scrape
    }

    /// Returns how many connections were closed for `reason`.
    pub(crate) fn closed(&self, reason: &str) -> u64 {
        self.scrape().count("poolscope_connections_closed_total", &[("reason", reason)])
    }

    /// Returns how many connection errors there were in `phase` with `code`.
    pub(crate) fn errors(&self, phase: &str, code: &str) -> u64 {
        self.scrape().count("poolscope_connection_errors_total", &[("phase", phase), ("error_type", code)])
    }

    /// Returns how many checkouts had `outcome`.
    pub(crate) fn outcomes(&self, outcome: &str) -> u64 {
        self.scrape().count("poolscope_checkouts_total", &[("outcome", outcome)])
    }

    pub(crate) async fn get(&self) -> Connection {
        with_deadline("a connection", self.pool.get()).await.unwrap()
    }

    /// Checks out `count` connections.
    pub(crate) async fn get_many(&self, count: usize) -> Vec<Connection> {
        let mut guards = Vec::with_capacity(count);
        for _ in 0..count {
            guards.push(self.get().await);
        }
        guards
    }

    /// Returns the backend process of the next checkout's connection.
    pub(crate) async fn next_backend(&self) -> i32 {
        backend(&self.get().await).await
    }
}

/// Returns the backend process of `connection`.
pub(crate) async fn backend(connection: &Connection) -> i32 {
    with_deadline("a result", connection.query_one("SELECT pg_backend_pid()", &[])).await.unwrap().get(0)
}

/// Checks that `cancel` ends a running query.
pub(crate) async fn cancel_sleep<E: Debug>(
    admin: &Admin,
    backend: i32,
    sleep: impl Future<Output = Result<(), tokio_postgres::Error>>,
    cancel: impl Future<Output = Result<(), E>>,
) {
    let cancel = async {
        admin.await_busy(backend).await;
        cancel.await
    };
    let (slept, cancelled) = with_deadline("the query ends", async { tokio::join!(sleep, cancel) }).await;
    cancelled.unwrap();
    assert_eq!(slept.unwrap_err().code(), Some(&SqlState::QUERY_CANCELED));
}

/// Formats an error and its sources on one line.
pub(crate) fn error_chain(error: &(dyn Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        line = format!("{line}: {error}");
        next = error.source();
    }
    line
}

/// Blocks this thread until `work` is done on another thread, with a runtime of its own.
///
/// On a single-threaded runtime no other task runs meanwhile, so that connections do not notice what happens.
pub(crate) fn block_on_other_thread<T: Send>(work: impl AsyncFnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        scope.spawn(move || runtime.block_on(work())).join().unwrap()
    })
}
