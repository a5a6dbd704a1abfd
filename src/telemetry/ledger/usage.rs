//! The current usage of a pool: enough for an error message, and cheap however many checkouts wait.

use std::sync::Arc;
use std::time::Duration;

use super::state::LedgerState;
use super::{Connections, Ledger, Limits, Nanos};
use crate::labels::Activity;
use crate::telemetry::operations::OperationId;

/// The numbers of connections and checkouts of a pool.
///
/// Compared with deadpool's status, [`max`](Self::max) is `max_size`, [`live`](Self::live) is `size`, [`idle`](Self::idle)
/// is `available`, and [`waiting`](Self::waiting) is `waiting`, but without the checkouts that connect.
///
/// ```no_run
/// # fn example(pool: &poolscope::Pool) {
/// let status = pool.status();
/// println!("{} of {} connections used, {} checkouts waiting", status.used, status.max, status.waiting);
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// The maximum number of idle connections: `pool_size`.
    pub size: usize,
    /// The maximum number of connections: `pool_size + max_overflow`.
    pub max: usize,
    /// Idle connections.
    pub idle: usize,
    /// Connections that are checked out, or being pinged or reset by the pool.
    pub used: usize,
    /// Connections being established.
    pub creating: usize,
    /// Connections that the pool has closed, while the server may still execute their queries.
    pub closing: usize,
    /// Checkouts waiting for capacity.
    pub waiting: usize,
    /// Checkouts that have begun and not ended, whatever they are waiting for.
    pub in_flight: usize,
}

impl Status {
    /// Returns the number of connections, including those being established and closed.
    #[must_use]
    pub const fn live(&self) -> usize {
        self.idle + self.used + self.creating + self.closing
    }

    /// Returns the number of connections beyond `pool_size`.
    #[must_use]
    pub const fn overflow(&self) -> usize {
        self.live().saturating_sub(self.size)
    }
}

/// The connections held by one operation.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OperationUsage {
    /// The operation's name.
    pub operation: Arc<str>,
    /// The number of connections it holds.
    pub connections: usize,
    /// The time since the oldest of them was checked out.
    pub oldest: Duration,
    /// The number of them with each activity, by [`Activity::ALL`]; zero if the wire is not observed.
    pub activities: [usize; Activity::COUNT],
}

/// The usage of a pool at one point in time.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PoolUsage {
    /// The pool's name.
    pub name: Arc<str>,
    /// The numbers of connections and checkouts.
    pub status: Status,
    /// The longest time for which a checkout has been waiting for capacity; zero if none is.
    pub longest_wait: Duration,
    /// The operations that hold connections, those with most connections first.
    pub operations: Vec<OperationUsage>,
}

impl LedgerState {
    pub(super) fn status(&self, limits: &Limits) -> Status {
        self.status_with(limits, Connections::of(self.states()))
    }

    fn status_with(&self, limits: &Limits, connections: Connections) -> Status {
        let Connections { creating, idle, used, closing } = connections;
        let (size, max) = (limits.pool_size, limits.max());
        Status { size, max, idle, used, creating, closing, waiting: self.queue.queued, in_flight: self.in_flight_count }
    }

    /// Returns the usage; the first checkout in the queue has been waiting since `first`.
    pub(super) fn usage(&self, ledger: &Ledger, now: Nanos, first: Option<Nanos>) -> PoolUsage {
        let longest_wait = first.map_or(Duration::ZERO, |started| now.duration_since(started));
        // Read once, so that the connections counted as used are those attributed to operations.
        let states: Vec<_> = self.connections.iter().map(|stats| (stats, stats.state())).collect();
        let mut operations: Vec<(OperationId, OperationUsage)> = Vec::new();
        for (stats, state) in states.iter().filter(|(_, state)| state.is_used()) {
            let age = now.duration_since(state.since);
            let known = operations.iter().position(|(operation, _)| *operation == state.operation);
            let index = known.unwrap_or_else(|| {
                let operation = ledger.operations().shared_name(state.operation);
                let usage = OperationUsage { operation, connections: 0, oldest: age, activities: [0; Activity::COUNT] };
                operations.push((state.operation, usage));
                operations.len() - 1
            });
            let (_, usage) = &mut operations[index];
            usage.connections += 1;
            usage.oldest = age.max(usage.oldest);
            if let Some(activity) = stats.wire().status().activity() {
                usage.activities[activity.index()] += 1;
            }
        }
        let mut operations: Vec<_> = operations.into_iter().map(|(_, usage)| usage).collect();
        operations.sort_by_key(|usage| std::cmp::Reverse((usage.connections, usage.oldest)));
        PoolUsage {
            name: Arc::clone(ledger.name()),
            status: self.status_with(&ledger.limits(), Connections::of(states.iter().map(|(_, state)| *state))),
            longest_wait,
            operations,
        }
    }
}
