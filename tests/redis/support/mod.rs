//! Helpers shared by the tests.

#[path = "../../support/expositions.rs"]
pub(crate) mod expositions;
#[path = "../../support/pages/mod.rs"]
pub(crate) mod pages;
#[path = "../../postgres/support/traces.rs"]
#[allow(dead_code, reason = "shared with the tests with PostgreSQL")]
mod traces;
#[path = "../../support/waits.rs"]
mod waits;

use poolscope::Collector;
use poolscope::labels::{CloseReason, Dirt, ErrorPhase, Outcome};
use poolscope::redis::{Connection, Pool, PoolBuilder};
use poolscope::telemetry::{OperationTotals, PoolSnapshot};
use poolscope_testing::redis::Server;
use poolscope_testing::scrape::Scrape;
use prometheus::{Registry, TextEncoder};

pub(crate) use traces::traced;
pub(crate) use waits::{TEST_TIMEOUT, eventually, poll_until, with_deadline};

pub(crate) async fn server() -> Server {
    Server::builder().start().await.unwrap()
}

/// A pool with a registry of its own.
pub(crate) struct TestPool {
    pub(crate) pool: Pool,
    registry: Registry,
}

impl TestPool {
    pub(crate) fn new(url: &str, set: impl FnOnce(PoolBuilder) -> PoolBuilder) -> Self {
        let (collector, registry) = (Collector::new(), Registry::new());
        let builder = PoolBuilder::new().url(url).name("test").collector(collector.clone());
        registry.register(Box::new(collector)).unwrap();
        Self { pool: set(builder).build().unwrap(), registry }
    }

    /// Returns a pool of one connection.
    pub(crate) fn single(url: &str) -> Self {
        Self::new(url, |builder| builder.pool_size(1).max_overflow(0))
    }

    pub(crate) async fn get(&self) -> Connection {
        with_deadline("a connection", self.pool.get()).await.unwrap()
    }

    /// Returns a scrape after checking its invariants.
    pub(crate) fn scrape(&self) -> Scrape {
        let scrape = Scrape::parse(&TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap());
        scrape.assert_adds_up(self.pool.name());
        scrape
    }

    pub(crate) fn snapshot(&self) -> PoolSnapshot {
        self.pool.snapshot()
    }

    pub(crate) fn totals(&self, operation: &str) -> OperationTotals {
        let found = self.snapshot().operations.into_iter().find(|totals| &*totals.name == operation);
        found.unwrap_or_else(|| panic!("no operation {operation}"))
    }

    pub(crate) fn closed(&self, reason: CloseReason) -> u64 {
        self.snapshot().closed[reason.index()]
    }

    pub(crate) fn outcomes(&self, outcome: Outcome) -> u64 {
        self.snapshot().operations.iter().map(|operation| operation.outcomes[outcome.index()]).sum()
    }

    pub(crate) fn errors(&self, phase: ErrorPhase, code: &str) -> u64 {
        let errors = self.snapshot().errors;
        errors.iter().filter(|error| error.phase == phase && error.code.as_str() == code).map(|error| error.count).sum()
    }

    pub(crate) fn dirty(&self, dirt: Dirt) -> u64 {
        self.snapshot().dirty_returns.iter().filter(|dirty| dirty.dirt == dirt).map(|dirty| dirty.count).sum()
    }

    /// Returns how many commands of this name ended, with an error of this code or without one.
    pub(crate) fn commands(&self, name: &str, error: Option<&str>) -> u64 {
        let queries = self.snapshot().queries;
        let matching = queries
            .iter()
            .filter(|query| &*query.summary == name && query.error.as_ref().map(|code| code.as_str()) == error);
        matching.map(|query| query.durations.count()).sum()
    }

    pub(crate) async fn await_idle(&self, count: usize) {
        eventually("idle connections", async || {
            let status = self.pool.status();
            status.used == 0 && status.closing == 0 && status.idle == count
        })
        .await;
    }
}
