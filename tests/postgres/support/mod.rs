//! What the tests share.

mod http;
#[path = "../../support/kept.rs"]
mod kept;
#[path = "../../support/otlp.rs"]
mod otlp;
#[path = "../../support/pages/mod.rs"]
pub(crate) mod pages;
#[path = "../../support/prometheus.rs"]
mod prometheus;
#[path = "../../support/proxy.rs"]
mod proxy;
#[path = "../../support/scrape.rs"]
mod scrape;
mod server;
mod traces;

use std::error::Error;
use std::fmt::Debug;
use std::time::{Duration, Instant};

use ::prometheus::{Registry, TextEncoder};
use poolscope::{Collector, Connection, Pool, PoolBuilder};
use tokio_postgres::error::SqlState;

pub(crate) use self::prometheus::Prometheus;
pub(crate) use http::get as http_get;
pub(crate) use otlp::{Attributes, Link, Span};
pub(crate) use proxy::Proxy;
pub(crate) use scrape::{Growth, Scrape};
pub(crate) use server::{Admin, shared};
pub(crate) use traces::{Trace, traced};

/// Long enough for a busy machine: only a test that fails waits for it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The answer of a future that must come.
pub(crate) async fn patiently<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("not within {PATIENCE:?}: {what}"),
    }
}

/// Asks again and again until there is an answer.
pub(crate) async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(begun.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Asks again and again until the answer is yes.
pub(crate) async fn eventually(what: &str, mut ask: impl AsyncFnMut() -> bool) {
    until(what, async || ask().await.then_some(())).await;
}

/// A pool that is counted apart from all others.
#[derive(Clone)]
pub(crate) struct Counted {
    pub(crate) pool: Pool,
    registry: Registry,
}

impl Counted {
    /// A pool at `url`. Its name, which must be the test's own, is also its `application_name`.
    pub(crate) fn new(name: &str, url: &str, settings: impl FnOnce(PoolBuilder) -> PoolBuilder) -> Self {
        let collector = Collector::new();
        let builder = Pool::builder().url(url).name(name).application_name(name).collector(collector.clone());
        let registry = Registry::new();
        registry.register(Box::new(collector)).unwrap();
        Self { pool: settings(builder).build().unwrap(), registry }
    }

    /// The same, on the server that the tests share.
    pub(crate) async fn shared(name: &str, settings: impl FnOnce(PoolBuilder) -> PoolBuilder) -> Self {
        Self::new(name, &shared().await.url(), settings)
    }

    pub(crate) fn registry(&self) -> &Registry {
        &self.registry
    }

    /// What Prometheus would read now, with its invariants held.
    pub(crate) fn scrape(&self) -> Scrape {
        let scrape = Scrape::parse(&TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap());
        scrape.assert_adds_up(self.pool.name());
        scrape
    }

    /// How many connections were closed for this reason.
    pub(crate) fn closed(&self, reason: &str) -> u64 {
        self.scrape().count("poolscope_connections_closed_total", &[("reason", reason)])
    }

    /// How many errors of this code there were in this phase.
    pub(crate) fn errors(&self, phase: &str, code: &str) -> u64 {
        self.scrape().count("poolscope_connection_errors_total", &[("phase", phase), ("sqlstate", code)])
    }

    /// How many checkouts ended like this.
    pub(crate) fn outcomes(&self, outcome: &str) -> u64 {
        self.scrape().count("poolscope_checkouts_total", &[("outcome", outcome)])
    }

    pub(crate) async fn get(&self) -> Connection {
        patiently("a connection", self.pool.get()).await.unwrap()
    }

    /// So many connections at once.
    pub(crate) async fn take(&self, count: usize) -> Vec<Connection> {
        let mut taken = Vec::with_capacity(count);
        for _ in 0..count {
            taken.push(self.get().await);
        }
        taken
    }

    /// The process of the backend that the next checkout gets.
    pub(crate) async fn next_backend(&self) -> i32 {
        backend(&self.get().await).await
    }
}

/// The process of the connection's backend.
pub(crate) async fn backend(connection: &Connection) -> i32 {
    patiently("an answer", connection.query_one("SELECT pg_backend_pid()", &[])).await.unwrap().get(0)
}

/// Has `cancel` end a query that the server is at, and nothing else end it.
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
    let (slept, cancelled) = patiently("the end of a query", async { tokio::join!(sleep, cancel) }).await;
    cancelled.unwrap();
    assert_eq!(slept.unwrap_err().code(), Some(&SqlState::QUERY_CANCELED));
}

/// An error and its sources on one line.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        line = format!("{line}: {error}");
        next = error.source();
    }
    line
}

/// Blocks this thread until `work` is done on another, with a runtime of its own.
///
/// On a runtime of one thread, no other task runs meanwhile: a pool's connections hear nothing of what happens.
pub(crate) fn behind_the_runtimes_back<T: Send>(work: impl AsyncFnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        scope.spawn(move || runtime.block_on(work())).join().unwrap()
    })
}
