//! Asks a database for a sign of life every so often, as a service would.

use std::time::Duration;

use thiserror::Error;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tracing::Instrument as _;

use poolscope::Pool;

/// What it is counted as.
pub(super) const OPERATION: &str = "probe";

/// How long the answer may take. To be given a connection may take `checkout_timeout` before that.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Why there was none.
#[derive(Debug, Error)]
enum ProbeError {
    #[error("no answer within {ANSWER_WITHIN:?}")]
    Silent,
    #[error(transparent)]
    Refused(#[from] tokio_postgres::Error),
}

/// Probes until it is dropped: first after `offset`, then each time `every` is over.
pub(super) async fn probe(pool: Pool, every: Duration, offset: Duration) {
    let operation = pool.operation(OPERATION);
    let mut ticks = interval_at(Instant::now() + offset, every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let probed = operation.clone().run(async |connection| {
            match timeout(ANSWER_WITHIN, connection.simple_query("SELECT 1")).await {
                Ok(answer) => answer.map(drop).map_err(ProbeError::from),
                Err(_) => Err(ProbeError::Silent),
            }
        });
        // The accounts and the log have it already.
        if let Err(error) = probed.instrument(tracing::info_span!("probe", pool = pool.name())).await {
            tracing::debug!(pool = pool.name(), %error, "a probe failed");
        }
    }
}
