//! Sums over the connections of a pool.

use crate::telemetry::histogram::Histogram;
use crate::telemetry::names::NAME_IDS;
use crate::telemetry::operations::OPERATION_IDS;
use crate::telemetry::owned::UseTimes;
use crate::telemetry::wire::WireTotals;

/// What the connections of a pool have counted.
#[derive(Clone, Debug)]
pub(crate) struct ConnectionTotals {
    pub(crate) use_time: UseTimes,
    /// By operation id.
    pub(crate) by_operation: Vec<UseTotals>,
    /// By operation id.
    pub(crate) wire: Vec<WireTotals>,
    /// The durations of successful queries, by query id.
    pub(crate) queries: Vec<Histogram>,
}

/// What one operation has counted over all connections.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct UseTotals {
    pub(crate) served: u64,
    pub(crate) returned: u64,
    pub(crate) nanos: u64,
    /// Time for which connections were used for the operation, including uses in progress and maintenance by the pool.
    pub(crate) held_nanos: u64,
}

impl ConnectionTotals {
    /// Becomes a copy of `other`, in which only the first `operations` and `queries` have counted anything. The
    /// histograms of further queries are removed, so that nothing is added to them.
    pub(crate) fn set(&mut self, other: &Self, operations: usize, queries: usize) {
        self.use_time = other.use_time;
        self.by_operation[..operations].copy_from_slice(&other.by_operation[..operations]);
        self.by_operation[operations..].fill(UseTotals::default());
        self.wire[..operations].copy_from_slice(&other.wire[..operations]);
        self.wire[operations..].fill(WireTotals::default());
        self.queries.clear();
        self.queries.extend_from_slice(&other.queries[..queries]);
    }
}

impl Default for ConnectionTotals {
    fn default() -> Self {
        Self {
            use_time: UseTimes::default(),
            by_operation: vec![UseTotals::default(); OPERATION_IDS],
            wire: vec![WireTotals::default(); OPERATION_IDS],
            queries: vec![Histogram::default(); NAME_IDS],
        }
    }
}
