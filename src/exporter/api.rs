//! Answers `/api/v1/pools`: who holds connections and who waits for one, as JSON.

use super::listing::Listing;
use super::query::Query;
use super::turns::{Turns, Undone};
use crate::telemetry::Collector;

/// Why there is no listing.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ApiError {
    /// The query is not one that is understood.
    Query(String),
    /// It could not be made.
    Undone(Undone),
    /// It cannot be written as JSON.
    Encoding,
}

/// The pools of a collector, and the turns there are to list them.
///
/// The turns are not those of the scrapes. A scrape gathers a whole registry, an application's own collectors included:
/// when one of those hangs, who holds the pool is just what one would like to see. And whoever polls this takes no turn
/// from Prometheus.
#[derive(Debug)]
pub(super) struct Api {
    collector: Collector,
    turns: Turns,
}

impl Api {
    pub(super) fn new(collector: Collector, turns: Turns) -> Self {
        Self { collector, turns }
    }

    /// The pools that `query` asks for, as they are now. Off the runtime's workers, since a pool's accounts have a lock,
    /// and a pool may have many holders.
    ///
    /// # Cancel safety
    ///
    /// A listing that has begun goes on to its end, and keeps its turn until then.
    pub(super) async fn pools(&self, query: &str) -> Result<Vec<u8>, ApiError> {
        let Query { pool } = Query::parse(query).map_err(ApiError::Query)?;
        let collector = self.collector.clone();
        let listed = self.turns.take(move || list(&collector, pool.as_deref())).await;
        match listed {
            Ok(Ok(json)) => Ok(json),
            Ok(Err(error)) => {
                tracing::error!(%error, "the pools cannot be written as JSON");
                Err(ApiError::Encoding)
            }
            Err(undone) => {
                if let Undone::Panicked(message) = &undone {
                    tracing::error!(panic = message, "listing the pools panicked");
                }
                Err(ApiError::Undone(undone))
            }
        }
    }
}

fn list(collector: &Collector, pool: Option<&str>) -> serde_json::Result<Vec<u8>> {
    serde_json::to_vec(&Listing::new(&collector.snapshots(), pool))
}

/// A complaint as JSON.
pub(super) fn complaint(text: &str) -> String {
    serde_json::json!({ "error": text }).to_string()
}
