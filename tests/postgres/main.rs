//! The pool against a real PostgreSQL.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod after_connect;
mod before_checkout;
mod cancellation;
mod client_api;
mod connect_errors;
mod connections;
mod diagnosis;
mod examples;
mod exporter;
mod exposition;
mod global;
mod guards;
mod holders;
mod listen;
mod outage;
mod overflow;
mod passwords;
mod pgbouncer;
mod places;
mod proxy;
mod queries;
mod recycling;
mod requests;
mod reset;
mod resize;
mod restarts;
mod retries;
mod rogue;
mod saturation;
mod server_view;
#[cfg(feature = "proxy")]
mod sidecar;
mod spans;
mod standby;
mod statements;
mod support;
mod thundering_herd;
#[cfg(feature = "tls")]
mod tls;
mod unpooled;
mod waiting;
mod wire;

use poolscope::labels::{CloseReason, Outcome};
use poolscope::telemetry::PoolSnapshot;
use poolscope::{Collector, Pool, PoolBuilder};
use poolscope_testing::server::Server;

async fn server() -> Server {
    Server::builder().start().await.unwrap()
}

/// Returns a pool with a collector of its own, so that tests are independent.
fn pool(server: &Server, set: impl FnOnce(PoolBuilder) -> PoolBuilder) -> Pool {
    set(Pool::builder().url(&server.url()).name("test").collector(Collector::new())).build().unwrap()
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
