//! Probes a database periodically, as a service would use it.

use std::pin::pin;
use std::time::Duration;

use futures_util::TryStreamExt as _;

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
    #[error("the answer has more than {MAX_MESSAGES} messages")]
    TooLong,
    #[error(transparent)]
    Query(#[from] tokio_postgres::Error),
}

/// The messages of an answer to `SELECT 1`, which are three.
const MAX_MESSAGES: usize = 10;

/// Executes `SELECT 1`, and reads a bounded answer.
async fn query(connection: &tokio_postgres::Client) -> Result<(), ProbeError> {
    let mut answer = pin!(connection.simple_query_raw("SELECT 1").await?);
    let mut messages = 0;
    while answer.try_next().await?.is_some() {
        messages += 1;
        if messages > MAX_MESSAGES {
            return Err(ProbeError::TooLong);
        }
    }
    Ok(())
}

/// Probes every `interval`, the first time after `offset`. Never returns.
pub(super) async fn probe(pool: Pool, interval: Duration, offset: Duration) {
    let operation = pool.operation(OPERATION);
    let mut ticks = interval_at(Instant::now() + offset, interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let probe = operation.clone().run(async |connection| {
            timeout(QUERY_TIMEOUT, query(connection)).await.unwrap_or(Err(ProbeError::Timeout))
        });
        // The pool counts and logs the failure.
        if let Err(error) = probe.instrument(tracing::info_span!("probe", pool = pool.name())).await {
            tracing::debug!(pool = pool.name(), error = %ErrorChain(&error), "probe failed");
        }
    }
}
