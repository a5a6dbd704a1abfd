//! One moment of a pool, as plain data.

use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use super::books::{Books, rising};
use super::history::Totals;
use super::{Ledger, Limits};
use crate::event::{CloseReason, ConnectionState, ErrorCode, ErrorPhase, Outcome, Phase};
use crate::telemetry::clock::Nanos;
use crate::telemetry::histogram::Histogram;
use crate::telemetry::operations::OperationId;
use crate::telemetry::seat::Standing;

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
    /// Durations of the operation as a whole, by [`Outcome::ALL`].
    pub durations: [Histogram; Outcome::COUNT],
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

/// A connection that is held.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Holder {
    /// For which operation.
    pub operation: Box<str>,
    /// For how long.
    pub age: Duration,
}

/// A checkout that waits.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Waiter {
    /// For which operation.
    pub operation: Box<str>,
    /// Where it was asked for.
    pub call_site: &'static Location<'static>,
    /// What it waits for.
    pub phase: Phase,
    /// For how long.
    pub age: Duration,
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
        for seat in &self.seats {
            seat.add_to(&mut totals);
        }
        // Read once: a connection may come back meanwhile, and those counted as used are to be those listed.
        let mut holders: Vec<_> = self.standings().collect();
        let connections = Connections::of(holders.iter().copied());
        holders.retain(|standing| standing.state == ConnectionState::Used);

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
                    durations: PoolSnapshot::histogram_of(ledger, id),
                }
            })
            .collect();

        let mut wait_time = self.wait_time.clone();
        // A checkout that was served at its first poll did not wait.
        wait_time.observe_zeros(totals.by_operation.iter().map(|uses| uses.served).sum());

        let mut phase_nanos = self.phase_nanos;
        let mut waiters = Vec::with_capacity(self.in_flight.len());
        for (_, checkout) in &self.in_flight {
            phase_nanos[checkout.phase.index()] += now.since(checkout.phase_since);
            if let Some(operation) = operations.get_mut(checkout.operation.index()) {
                operation.in_flight += 1;
                operation.wait_nanos += now.since(checkout.started);
            }
            waiters.push(checkout);
        }
        for (operation, waits) in operations.iter_mut().zip(&mut self.waits) {
            operation.wait_nanos = rising(&mut waits.wait_reported, operation.wait_nanos);
        }
        for (phase, reported) in phase_nanos.iter_mut().zip(&mut self.phase_reported) {
            *phase = rising(reported, *phase);
        }
        let saturated = self.saturated_nanos + self.saturated_since.map_or(0, |since| now.since(since));
        let saturated_nanos = rising(&mut self.saturated_reported, saturated);

        waiters.sort_by_key(|checkout| checkout.started);
        holders.sort_by_key(|standing| standing.since);
        let name_of = |id: OperationId| ledger.operations().name(id).into();

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
            oldest_wait: waiters.first().map_or(Duration::ZERO, |oldest| now.duration_since(oldest.started)),
            wait_time,
            use_time: totals.use_time,
            create_time: self.create_time.clone(),
            phase_nanos,
            saturated_nanos,
            created: self.created,
            closed: self.closed,
            errors: self
                .errors
                .iter()
                .map(|((phase, code), count)| ConnectionErrors { phase: *phase, code: *code, count: *count })
                .collect(),
            recommended_size,
            holders: holders
                .into_iter()
                .map(|standing| Holder {
                    operation: name_of(standing.operation),
                    age: now.duration_since(standing.since),
                })
                .collect(),
            waiters: waiters
                .into_iter()
                .map(|checkout| Waiter {
                    operation: name_of(checkout.operation),
                    call_site: checkout.call_site,
                    phase: checkout.phase,
                    age: now.duration_since(checkout.started),
                })
                .collect(),
            operations,
        }
    }
}
