//! Probes a database periodically, as a service would use it.

use std::time::Duration;

use poolscope::Pool;
use poolscope::text::ErrorChain;
use thiserror::Error;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tracing::Instrument as _;

/// The operation's name in metrics.
const OPERATION: &str = "probe";

/// How long the query may take. The checkout may take `checkout_timeout` before that.
const QUERY_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a probe's query failed.
#[derive(Debug, Error)]
enum ProbeError {
    #[error("no answer within {QUERY_TIMEOUT:?}")]
    Timeout,
    #[error(transparent)]
    Query(#[from] tokio_postgres::Error),
}

/// Probes every `interval`, the first time after `offset`. Never returns.
pub(super) async fn probe(pool: Pool, interval: Duration, offset: Duration) {
    let operation = pool.operation(OPERATION);
    let mut ticks = interval_at(Instant::now() + offset, interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let probe = operation.clone().run(async |connection| {
            match timeout(QUERY_TIMEOUT, connection.simple_query("SELECT 1")).await {
                Ok(result) => result.map(drop).map_err(ProbeError::from),
                Err(_) => Err(ProbeError::Timeout),
            }
        });
        // The pool counts and logs the failure.
        if let Err(error) = probe.instrument(tracing::info_span!("probe", pool = pool.name())).await {
            tracing::debug!(pool = pool.name(), error = %ErrorChain(&error), "probe failed");
        }
    }
}
