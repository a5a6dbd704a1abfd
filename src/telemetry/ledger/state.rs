//! The state under the ledger's lock, and how events change it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::failed_queries::FailedQueries;
use super::holder_links::HeldConnection;
use super::holders::SelfDeadlock;
use super::in_flight::{Entry, InFlight, ShardTotals, Ticket};
use super::queue::QueueReading;
use super::retries::{RetryTotals, count};
use super::shards::Entries;
use super::unpooled::Unpooled;
use crate::labels::{Activity, CloseReason, Dirt, ErrorCode, ErrorPhase, Outcome, Phase};
use crate::telemetry::clock::Nanos;
use crate::telemetry::connection::{ConnectionStats, ConnectionTotals, UnpackedState};
use crate::telemetry::exemplar::Exemplars;
use crate::telemetry::histogram::Histogram;
use crate::telemetry::operations::{OPERATION_IDS, OperationId, Operations};

/// Counters of one operation's checkouts that were not served at their first poll.
#[derive(Clone, Debug, Default)]
pub(super) struct WaitTotals {
    pub(super) outcomes: [u64; Outcome::COUNT],
    pub(super) wait_nanos: u64,
    /// The largest values that snapshots have reported; see [`monotonic`].
    pub(super) wait_reported: u64,
    pub(super) activity_reported: [u64; Activity::COUNT],
}

/// The state under the ledger's lock. What checkouts that wait have changed since is in the shards: a reader that
/// [freezes](super::Ledger::freeze) the ledger moves it here.
#[derive(Debug)]
pub(super) struct LedgerState {
    pub(super) queue: QueueReading,
    pub(super) in_flight: Entries<Entry>,
    pub(super) in_flight_count: usize,
    /// The checkouts that were the oldest in the queue at some time, oldest first, and some that have left it since.
    pub(super) oldest: Vec<(Ticket, Nanos)>,
    /// By operation id.
    pub(super) waits: Vec<WaitTotals>,
    pub(super) phase_nanos: [u64; Phase::COUNT],
    pub(super) wait_time: Histogram,
    pub(super) create_time: Histogram,
    pub(super) create_exemplars: Exemplars,
    /// The largest values that snapshots have reported; see [`monotonic`].
    pub(super) phase_reported: [u64; Phase::COUNT],
    pub(super) saturated_reported: u64,
    /// The live connections.
    pub(super) connections: Vec<Arc<ConnectionStats>>,
    pub(super) created: u64,
    /// By reason.
    pub(super) closed: [u64; CloseReason::COUNT],
    /// Closed connections that the server may not have let go of.
    pub(super) close_timeouts: u64,
    /// What closed connections have counted.
    pub(super) retired: ConnectionTotals,
    pub(super) errors: BTreeMap<(ErrorPhase, ErrorCode), u64>,
    /// Checkouts that ended without a connection.
    pub(super) unserved: u64,
    /// Counted separately; of the fields above only `errors` includes them.
    pub(super) unpooled: Unpooled,
    /// Checkouts that waited while their own task held a connection, by the operation that waited.
    pub(super) self_deadlocks: BTreeMap<OperationId, u64>,
    /// Those that were not logged yet, bounded in number.
    pub(super) unreported_self_deadlocks: Vec<SelfDeadlock>,
    pub(super) dirty: BTreeMap<(OperationId, Dirt), u64>,
    /// At most [`MAX_ERRORS`] entries, as in `retries` and `failed_queries`.
    pub(super) query_errors: BTreeMap<(OperationId, ErrorCode), u64>,
    pub(super) failed_queries: FailedQueries,
    /// Connections whose wire is no longer observed.
    pub(super) wires_lost: u64,
    pub(super) retries: RetryTotals,
}

/// The maximum number of error counters over all operations; further codes are counted as `other`. PostgreSQL defines
/// about 250 codes, and functions can raise others.
pub(super) const MAX_ERRORS: usize = 1000;

/// Prevents a counter that includes activity in progress from ever decreasing.
///
/// A snapshot counts a wait up to its own reading of the clock, while the end of the wait may be read earlier and
/// recorded later. Prometheus interprets any decrease, even by a nanosecond, as a restart from zero.
pub(super) fn monotonic(reported: &mut u64, value: u64) -> u64 {
    *reported = value.max(*reported);
    *reported
}

impl Default for LedgerState {
    fn default() -> Self {
        Self {
            queue: QueueReading::default(),
            in_flight: Entries::default(),
            in_flight_count: 0,
            oldest: Vec::new(),
            waits: vec![WaitTotals::default(); OPERATION_IDS],
            wait_time: Histogram::default(),
            create_time: Histogram::default(),
            create_exemplars: Exemplars::default(),
            phase_nanos: [0; Phase::COUNT],
            phase_reported: [0; Phase::COUNT],
            saturated_reported: 0,
            connections: Vec::new(),
            created: 0,
            closed: [0; CloseReason::COUNT],
            close_timeouts: 0,
            retired: ConnectionTotals::default(),
            errors: BTreeMap::new(),
            unserved: 0,
            unpooled: Unpooled::default(),
            self_deadlocks: BTreeMap::new(),
            unreported_self_deadlocks: Vec::new(),
            dirty: BTreeMap::new(),
            query_errors: BTreeMap::new(),
            failed_queries: FailedQueries::default(),
            wires_lost: 0,
            retries: RetryTotals::default(),
        }
    }
}

impl LedgerState {
    /// Moves here how many checkouts of a shard are in flight, and have ended without a connection.
    pub(super) fn absorb_in_flight(&mut self, totals: &mut ShardTotals) {
        self.in_flight_count = self.in_flight_count.wrapping_add(totals.begun).wrapping_sub(totals.ended);
        (totals.begun, totals.ended) = (0, 0);
        if let Some(rejoined) = totals.rejoined.take()
            && self.oldest.last().is_some_and(|(_, youngest)| rejoined < *youngest)
        {
            self.oldest.clear();
        }
        self.unserved += std::mem::take(&mut totals.unserved);
    }

    /// Moves the other totals of a shard here.
    pub(super) fn absorb_totals(&mut self, totals: &mut ShardTotals) {
        if !std::mem::take(&mut totals.changed) {
            return;
        }
        for (sum, nanos) in self.phase_nanos.iter_mut().zip(&mut totals.phase_nanos) {
            *sum += std::mem::take(nanos);
        }
        self.wait_time.take_from(&mut totals.wait_time);
        for (sum, totals) in self.waits.iter_mut().zip(&mut totals.waits) {
            sum.wait_nanos += std::mem::take(&mut totals.wait_nanos);
            for (sum, count) in sum.outcomes.iter_mut().zip(&mut totals.outcomes) {
                *sum += std::mem::take(count);
            }
        }
    }

    /// Returns each checkout in flight with its entry.
    pub(super) fn checkouts(&self) -> impl Iterator<Item = (&Entry, InFlight)> {
        self.in_flight.iter().filter_map(|(_, entry)| Some((entry, entry.get()?)))
    }

    /// Returns each checkout in flight with its ticket.
    pub(super) fn checkouts_by_ticket(&self) -> impl Iterator<Item = (Ticket, InFlight)> {
        self.in_flight.iter().filter_map(|(key, entry)| Some((Ticket::new(key), entry.get()?)))
    }

    /// Returns a checkout in flight with its entry.
    pub(super) fn checkout(&self, ticket: Ticket) -> Option<(&Entry, InFlight)> {
        let entry = self.in_flight.get(ticket.key())?;
        Some((entry, entry.get()?))
    }

    /// Counts an error reported by the server.
    pub(super) fn count_query_error(&mut self, operation: OperationId, code: ErrorCode) {
        count(&mut self.query_errors, |code| (operation, code), code);
    }

    /// Returns the connections in use, for a checkout that begins to queue.
    pub(super) fn held_connections(&self, operations: &Operations, now: Nanos) -> Vec<HeldConnection> {
        let connections = self.connections.iter().map(|stats| (stats, stats.state()));
        let used = connections.filter(|(_, state)| state.is_used());
        used.map(|(stats, state)| HeldConnection {
            operation: operations.shared_name(state.operation),
            age: now.duration_since(state.since),
            // If the state has changed, the span may already be the next holder's.
            span: stats.span().filter(|_| stats.state() == state),
            stats: Arc::clone(stats),
        })
        .collect()
    }

    pub(super) fn refuse(&mut self, operation: OperationId, outcome: Outcome) {
        let totals = &mut self.waits[operation.index()];
        totals.outcomes[outcome.index()] += 1;
        self.unserved += 1;
        self.wait_time.observe(0);
    }

    /// Adds a connection, unless there are `max` already. Returns whether it did.
    pub(super) fn open(&mut self, stats: &Arc<ConnectionStats>, max: usize) -> bool {
        let has_room = self.connections.len() < max;
        if has_room {
            self.created += 1;
            self.connections.push(Arc::clone(stats));
        }
        has_room
    }

    pub(super) fn close(&mut self, stats: &ConnectionStats, reason: CloseReason, now: Nanos) {
        if let Some(index) = self.connections.iter().position(|live| std::ptr::eq(Arc::as_ptr(live), stats)) {
            self.connections.swap_remove(index);
            self.closed[reason.index()] += 1;
            // The activity in progress is counted up to now, because the connection is not read again.
            stats.add_to(&mut self.retired, now);
        }
    }

    /// Returns the state of each live connection.
    pub(super) fn states(&self) -> impl Iterator<Item = UnpackedState> {
        self.connections.iter().map(|stats| stats.state())
    }

    /// Returns how many connections may be idle now: `pool_size`, and one for each checkout in the queue or waiting for
    /// its turn, which is about to take it.
    pub(super) fn max_idle(&self, pool_size: usize) -> usize {
        pool_size.saturating_add(self.queue.queued).saturating_add(self.queue.turns)
    }
}
