//! The recommended size of a pool, and the replay that it rests on.

use serde::Serialize;

use super::Seconds;
use crate::telemetry::{PoolSnapshot, SizingRow};

#[derive(Debug, Serialize)]
pub(super) struct SizingJson {
    recommended_size: Option<usize>,
    withheld_by: Option<&'static str>,
    reason: String,
    wait_target_seconds: Seconds,
    available_slots: Option<usize>,
    #[serde(flatten)]
    replay: Option<ReplayJson>,
}

/// The replay, without which these members are missing.
#[derive(Debug, Serialize)]
struct ReplayJson {
    needed: usize,
    recorded_seconds: Seconds,
    excluded_seconds: Seconds,
    excluded_use_share: f64,
    resolution_seconds: Seconds,
    checkouts: u64,
    mean_in_use: f64,
    table: Vec<SizingRowJson>,
}

#[derive(Debug, Serialize)]
struct SizingRowJson {
    size: usize,
    wait_p50_seconds: Seconds,
    wait_p99_seconds: Seconds,
    waiting_share: f64,
    timeout_share: f64,
}

impl SizingJson {
    pub(super) fn new(snapshot: &PoolSnapshot) -> Self {
        let withheld_by = snapshot.size_withheld_by();
        // While a fault lasts, no size is recommended, nor shown.
        let sizing = snapshot.sizing.as_ref().filter(|_| withheld_by.is_none());
        let available_slots = snapshot.available_slots();
        Self {
            recommended_size: snapshot.recommended_size,
            withheld_by: withheld_by.map(|cause| cause.as_str()),
            reason: snapshot.sizing_reason(),
            wait_target_seconds: Seconds(snapshot.limits.wait_target),
            available_slots,
            replay: sizing.map(|sizing| ReplayJson {
                needed: sizing.needed,
                recorded_seconds: Seconds(sizing.recorded),
                excluded_seconds: Seconds(sizing.excluded),
                excluded_use_share: sizing.excluded_use_share,
                resolution_seconds: Seconds(sizing.resolution),
                checkouts: sizing.checkouts,
                mean_in_use: sizing.mean_in_use,
                table: sizing.table_within(available_slots).map(SizingRowJson::new).collect(),
            }),
        }
    }
}

impl SizingRowJson {
    fn new(row: &SizingRow) -> Self {
        let SizingRow { size, wait_p50, wait_p99, waiting_share, timeout_share, .. } = *row;
        let (wait_p50_seconds, wait_p99_seconds) = (Seconds(wait_p50), Seconds(wait_p99));
        Self { size, wait_p50_seconds, wait_p99_seconds, waiting_share, timeout_share }
    }
}
