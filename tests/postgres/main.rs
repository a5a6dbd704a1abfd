//! The pool against a real PostgreSQL.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod exporter;
mod exposition;
mod life;
mod lifetime;
mod outage;
mod overflow;
mod recycling;
mod refusals;
mod restarts;
mod saturation;
mod support;
#[cfg(feature = "tls")]
mod tls;
mod using;
mod waiting;

use std::time::{Duration, Instant};

use poolscope::demo::server::Server;
use poolscope::event::{CloseReason, Outcome};
use poolscope::telemetry::PoolSnapshot;
use poolscope::{Collector, Pool, PoolBuilder};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

async fn server() -> Server {
    Server::builder().start().await.unwrap()
}

/// A pool with a collector of its own, so that tests do not see each other.
fn pool(server: &Server, set: impl FnOnce(PoolBuilder) -> PoolBuilder) -> Pool {
    set(Pool::builder().url(&server.url()).name("test").collector(Collector::new())).build().unwrap()
}

/// A connection beside the pool, to look at the server with.
async fn observer(server: &Server) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(&server.url(), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// How many backends the server has for the pools of this test.
async fn backends(observer: &tokio_postgres::Client) -> i64 {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'poolscope'";
    observer.query_one(sql, &[]).await.unwrap().get(0)
}

async fn pid(connection: &poolscope::Connection) -> i32 {
    connection.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0)
}

/// Asks again and again until the answer is yes.
async fn eventually(what: &str, mut asked: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !asked().await {
        assert!(Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn closed(snapshot: &PoolSnapshot, reason: CloseReason) -> u64 {
    snapshot.closed[reason.index()]
}

fn outcomes(snapshot: &PoolSnapshot, outcome: Outcome) -> u64 {
    snapshot.operations.iter().map(|operation| operation.outcomes[outcome.index()]).sum()
}

fn assert_adds_up(snapshot: &PoolSnapshot) {
    for operation in &snapshot.operations {
        let ended: u64 = operation.outcomes.iter().sum();
        assert_eq!(operation.started, ended + operation.in_flight, "{operation:?}");
    }
    let live = snapshot.connections.live();
    assert!(live <= snapshot.limits.max(), "{snapshot:?}");
    assert_eq!(snapshot.created, snapshot.closed.iter().sum::<u64>() + live as u64, "{snapshot:?}");
}
