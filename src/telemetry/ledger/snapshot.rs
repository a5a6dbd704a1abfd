//! One moment of a pool, as plain data.

use std::sync::Arc;
use std::time::Duration;

use super::books::{Books, rising};
use super::history::Totals;
use super::{Holder, Ledger, Limits, UnpooledTotals, Waiter};
use crate::event::{
    Activity, CloseReason, ConnectionState, Direction, Dirt, ErrorCode, ErrorPhase, GiveUp, Outcome, Phase,
};
use crate::telemetry::clock::Nanos;
use crate::telemetry::histogram::Histogram;
use crate::telemetry::seat::Standing;
use crate::telemetry::wire::WireTotals;

/// How many connections there are in each state. Their sum is how many are live.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Connections {
    /// Being established.
    pub creating: usize,
    /// In the pool.
    pub idle: usize,
    /// Held by callers, or being pinged for one.
    pub used: usize,
}

impl Connections {
    pub(super) fn of(standings: impl IntoIterator<Item = Standing>) -> Self {
        let mut connections = Self::default();
        for standing in standings {
            match standing.state {
                ConnectionState::Creating => connections.creating += 1,
                ConnectionState::Idle => connections.idle += 1,
                ConnectionState::Used => connections.used += 1,
            }
        }
        connections
    }

    /// All of them.
    #[must_use]
    pub fn live(&self) -> usize {
        self.creating + self.idle + self.used
    }
}

/// What the checkouts of one operation came to.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct OperationTotals {
    /// The operation's name.
    pub name: Box<str>,
    /// Checkouts begun: the sum of `outcomes` and `in_flight`.
    pub started: u64,
    /// Checkouts that ended, by [`Outcome::ALL`].
    pub outcomes: [u64; Outcome::COUNT],
    /// Checkouts that have not ended.
    pub in_flight: u64,
    /// Time spent waiting, in nanoseconds, by those in flight too.
    pub wait_nanos: u64,
    /// Time for which connections were held, in nanoseconds, counted when they are returned.
    pub use_nanos: u64,
    /// Uses that ended.
    pub returned: u64,
    /// Time for which connections were held by what they did, in nanoseconds, by [`Activity::ALL`]: those that are
    /// held now included, and the time for which they were pinged or cleaned for this operation.
    pub activity_nanos: [u64; Activity::COUNT],
    /// Queries sent.
    pub queries: u64,
    /// Queries that came to an end, with success or without.
    pub queries_finished: u64,
    /// Bytes on the wire, by [`Direction::ALL`].
    pub wire_bytes: [u64; Direction::COUNT],
    /// How often it succeeded after it had failed.
    pub recovered: u64,
    /// Durations of the operation as a whole, by [`Outcome::ALL`].
    pub durations: [Histogram; Outcome::COUNT],
}

/// How long the queries of one kind took.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct QueryDurations {
    /// What they are: operations and targets, as in `SELECT orders`.
    pub summary: Box<str>,
    /// The error that they ended with; `None` of those that succeeded.
    pub error: Option<ErrorCode>,
    /// How long they took, from the request's first byte until the server was ready for the next.
    pub durations: Histogram,
}

/// How often the server reported an error to an operation.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct QueryErrors {
    /// The operation's name.
    pub operation: Box<str>,
    /// What the error said.
    pub code: ErrorCode,
    /// How often, since the pool was made.
    pub count: u64,
}

/// How often an operation was tried again.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Retries {
    /// The operation's name.
    pub operation: Box<str>,
    /// What had failed.
    pub code: ErrorCode,
    /// How often, since the pool was made.
    pub count: u64,
}

/// How often an operation with a retry policy failed, and was not tried again.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RetriesExhausted {
    /// The operation's name.
    pub operation: Box<str>,
    /// Why it was not.
    pub reason: GiveUp,
    /// What had failed.
    pub code: ErrorCode,
    /// How often, since the pool was made.
    pub count: u64,
}

/// How often an operation returned a connection that was dirty.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DirtyReturns {
    /// The operation's name.
    pub operation: Box<str>,
    /// In what way.
    pub dirt: Dirt,
    /// How often, since the pool was made.
    pub count: u64,
}

/// How often a connection reported an error.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ConnectionErrors {
    /// What was under way.
    pub phase: ErrorPhase,
    /// What the error said.
    pub code: ErrorCode,
    /// How often, since the pool was made.
    pub count: u64,
}

/// Everything a pool has counted, as of one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PoolSnapshot {
    /// The pool's name.
    pub name: Arc<str>,
    /// What it may hold.
    pub limits: Limits,
    /// What it holds.
    pub connections: Connections,
    /// By operation, `other` first; those that have a name but did nothing yet are there too.
    pub operations: Vec<OperationTotals>,
    /// Checkouts in flight that wait for capacity.
    pub queued: usize,
    /// All checkouts in flight.
    pub in_flight: usize,
    /// How long the oldest checkout in flight has been waiting; zero if there is none.
    pub oldest_wait: Duration,
    /// Durations of checkouts, failed ones included.
    pub wait_time: Histogram,
    /// Durations of uses, from getting a connection to returning it.
    pub use_time: Histogram,
    /// Durations of connecting, where it succeeded.
    pub create_time: Histogram,
    /// Where waits went, in nanoseconds, by [`Phase::ALL`].
    pub phase_nanos: [u64; Phase::COUNT],
    /// For how long somebody was waiting for capacity, in nanoseconds.
    pub saturated_nanos: u64,
    /// Connections begun: the sum of `closed` and of what lives.
    pub created: u64,
    /// Connections gone, by [`CloseReason::ALL`].
    pub closed: [u64; CloseReason::COUNT],
    /// Errors that connections reported.
    pub errors: Vec<ConnectionErrors>,
    /// Durations of queries by what they are.
    pub queries: Vec<QueryDurations>,
    /// Errors that the server reported to queries.
    pub query_errors: Vec<QueryErrors>,
    /// Connections that came back dirty.
    pub dirty_returns: Vec<DirtyReturns>,
    /// Connections that are held past `leak_threshold` and silent.
    pub suspected_leaks: usize,
    /// Checkouts that waited while their own task held a connection.
    pub self_deadlocks: u64,
    /// Connections whose wire was not understood, and is no longer read.
    pub wires_lost: u64,
    /// What was tried again.
    pub retries: Vec<Retries>,
    /// What had a retry policy, failed, and was not tried again.
    pub retries_exhausted: Vec<RetriesExhausted>,
    /// How many retries may be made now.
    pub retry_budget: f64,
    /// For how long connecting has been left to one checkout at a time since it failed; zero if it is not, or if nobody
    /// has tried for ten seconds.
    pub connecting_suspended: Duration,
    /// Connections outside the pool, of the operations that had any; no other account here counts them, but `errors`.
    pub unpooled: Vec<UnpooledTotals>,
    /// The size that the last minutes ask for, if they tell.
    pub recommended_size: Option<usize>,
    /// Who holds connections, oldest first.
    pub holders: Vec<Holder>,
    /// Who waits for one, oldest first.
    pub waiters: Vec<Waiter>,
}

impl Books {
    pub(super) fn snapshot(&mut self, ledger: &Ledger, now: Nanos) -> PoolSnapshot {
        let mut totals = self.retired.clone();
        // Each is read once: a connection may come back meanwhile, and those counted as used are to be those listed.
        let standings: Vec<_> = self.seats.iter().map(|seat| (seat, seat.add_to(&mut totals, now))).collect();
        let connections = Connections::of(standings.iter().map(|(_, standing)| *standing));
        let holders = self.holders_of(standings.iter().copied(), ledger, now);

        let mut operations: Vec<_> = ledger
            .operations()
            .ids()
            .map(|(id, name)| {
                let uses = totals.by_operation[id.index()];
                let waits = &self.waits[id.index()];
                let mut outcomes = waits.outcomes;
                outcomes[Outcome::Ok.index()] += uses.served;
                OperationTotals {
                    name: name.into(),
                    started: waits.started + uses.served,
                    outcomes,
                    in_flight: 0,
                    wait_nanos: waits.wait_nanos,
                    use_nanos: uses.nanos,
                    returned: uses.returned,
                    activity_nanos: activities(uses.held_nanos, totals.wire[id.index()]),
                    queries: totals.wire[id.index()].queries,
                    queries_finished: totals.wire[id.index()].finished,
                    wire_bytes: [totals.wire[id.index()].sent, totals.wire[id.index()].received],
                    recovered: self.retries.recovered(id),
                    durations: PoolSnapshot::histogram_of(ledger, id),
                }
            })
            .collect();

        let mut wait_time = self.wait_time.clone();
        // A checkout that was served at its first poll did not wait.
        wait_time.observe_zeros(totals.by_operation.iter().map(|uses| uses.served).sum());

        let mut phase_nanos = self.phase_nanos;
        for (_, checkout) in &self.in_flight {
            phase_nanos[checkout.phase.index()] += now.since(checkout.phase_since);
            if let Some(operation) = operations.get_mut(checkout.operation.index()) {
                operation.in_flight += 1;
                operation.wait_nanos += now.since(checkout.started);
            }
        }
        for (operation, waits) in operations.iter_mut().zip(&mut self.waits) {
            operation.wait_nanos = rising(&mut waits.wait_reported, operation.wait_nanos);
            for (nanos, reported) in operation.activity_nanos.iter_mut().zip(&mut waits.activity_reported) {
                *nanos = rising(reported, *nanos);
            }
        }
        for (phase, reported) in phase_nanos.iter_mut().zip(&mut self.phase_reported) {
            *phase = rising(reported, *phase);
        }
        let saturated = self.saturated_nanos + self.saturated_since.map_or(0, |since| now.since(since));
        let saturated_nanos = rising(&mut self.saturated_reported, saturated);

        let waiters = self.waiters(ledger, now);
        let name_of = |id| ledger.operations().name(id).into();

        let so_far = Totals {
            at: now,
            started: operations.iter().map(|operation| operation.started).sum(),
            returned: operations.iter().map(|operation| operation.returned).sum(),
            use_nanos: operations.iter().map(|operation| operation.use_nanos).sum(),
        };
        let recommended_size = self.history.recommend(so_far, ledger.limits().wait_target);

        PoolSnapshot {
            name: Arc::clone(ledger.name()),
            limits: *ledger.limits(),
            connections,
            queued: self.queued,
            in_flight: waiters.len(),
            oldest_wait: waiters.first().map_or(Duration::ZERO, |oldest| oldest.age),
            wait_time,
            use_time: totals.use_time,
            create_time: self.create_time.clone(),
            phase_nanos,
            saturated_nanos,
            created: self.created,
            closed: self.closed,
            errors: self.connection_errors(),
            queries: self.query_durations(ledger, totals.queries),
            query_errors: self
                .query_errors
                .iter()
                .map(|((operation, code), count)| QueryErrors {
                    operation: name_of(*operation),
                    code: *code,
                    count: *count,
                })
                .collect(),
            dirty_returns: self
                .dirty
                .iter()
                .map(|((operation, dirt), count)| DirtyReturns {
                    operation: name_of(*operation),
                    dirt: *dirt,
                    count: *count,
                })
                .collect(),
            suspected_leaks: holders.iter().filter(|holder| holder.suspected_leak).count(),
            self_deadlocks: self.self_deadlocks,
            wires_lost: self.wires_lost,
            retries: self.retries.retries(name_of),
            retries_exhausted: self.retries.exhausted(name_of),
            retry_budget: ledger.budget().balance(now),
            connecting_suspended: self.suspended_for(now),
            unpooled: self.unpooled.totals(ledger, now),
            recommended_size,
            holders,
            waiters,
            operations,
        }
    }

    /// Those that succeeded, and those that failed by their errors.
    fn query_durations(&self, ledger: &Ledger, succeeded: Vec<Histogram>) -> Vec<QueryDurations> {
        let named = ledger.queries.ids().zip(succeeded).filter(|(_, durations)| durations.count() > 0);
        let named =
            named.map(|((_, summary), durations)| QueryDurations { summary: summary.into(), error: None, durations });
        let failed = self.failed_queries.iter().map(|((query, code), durations)| QueryDurations {
            summary: ledger.queries.name(query.as_u16()).into(),
            error: Some(*code),
            durations: durations.clone(),
        });
        named.chain(failed).collect()
    }

    /// By phase and code; what queries report is put together over the operations.
    fn connection_errors(&self) -> Vec<ConnectionErrors> {
        let mut errors = self.errors.clone();
        for ((_, code), count) in &self.query_errors {
            *errors.entry((ErrorPhase::Query, *code)).or_insert(0) += count;
        }
        errors.into_iter().map(|((phase, code), count)| ConnectionErrors { phase, code, count }).collect()
    }
}

/// What connections did while they were held: what the wire says, and nothing the rest of the time.
fn activities(held: u64, wire: WireTotals) -> [u64; Activity::COUNT] {
    let mut nanos = [0; Activity::COUNT];
    nanos[Activity::Executing.index()] = wire.executing_nanos;
    nanos[Activity::IdleInTransaction.index()] = wire.in_transaction_nanos;
    nanos[Activity::Idle.index()] = held.saturating_sub(wire.executing_nanos + wire.in_transaction_nanos);
    nanos
}
