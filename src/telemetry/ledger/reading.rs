//! A pool's accounts read at one moment, into memory that the next reading finds again.

use std::sync::Arc;
use std::time::Duration;

use super::books::{LedgerState, rising};
use super::history::Totals;
use super::holders::is_suspect;
use super::snapshot::{
    ConnectionErrors, Connections, DirtyReturns, OperationTotals, PoolSnapshot, QueryDurations, QueryErrors,
};
use super::{Ledger, Limits};
use crate::labels::{Activity, CloseReason, Direction, ErrorPhase, Outcome, Phase};
use crate::telemetry::clock::Nanos;
use crate::telemetry::histogram::Histogram;
#[cfg(feature = "exporter")]
use crate::telemetry::requests::RequestTotals;
use crate::telemetry::seat::{ConnectionTotals, UnpackedState};
use crate::telemetry::wire::WireTotals;

/// A snapshot, without those who hold and who wait, that any pool can be read into, one after the other. When it has
/// seen the largest of them it allocates no more.
#[derive(Debug)]
pub(crate) struct Reading {
    snapshot: PoolSnapshot,
    /// Operations that this pool lacks and another had, with the memory they hold.
    spare: Vec<OperationTotals>,
    /// The same of queries.
    spare_queries: Vec<QueryDurations>,
    /// The same of kinds of requests.
    #[cfg(feature = "exporter")]
    spare_requests: Vec<RequestTotals>,
    totals: ConnectionTotals,
    /// How each connection stood, in the books' order. Each is read once: a connection may come back meanwhile, and those
    /// counted as used are to be those listed.
    standings: Vec<UnpackedState>,
}

impl Reading {
    pub(crate) fn new() -> Self {
        Self {
            snapshot: PoolSnapshot::blank(),
            spare: Vec::new(),
            spare_queries: Vec::new(),
            #[cfg(feature = "exporter")]
            spare_requests: Vec::new(),
            totals: ConnectionTotals::default(),
            standings: Vec::new(),
        }
    }

    /// What was read last.
    #[cfg(feature = "exporter")]
    pub(crate) fn snapshot(&self) -> &PoolSnapshot {
        &self.snapshot
    }

    /// What requests cost, if any are served, and what the server says, if it is asked.
    #[cfg(feature = "exporter")]
    pub(super) fn read_what_others_keep(&mut self, ledger: &Ledger) {
        self.snapshot.server = ledger.server.latest();
        self.snapshot.connecting_suspended = ledger.connecting_suspended();
        let Self { snapshot: PoolSnapshot { requests, .. }, spare_requests: spare, .. } = self;
        // Those that another pool had are there to be used again.
        requests.append(spare);
        let known = ledger.requests.get().map_or(0, |kinds| kinds.read(requests));
        spare.extend(requests.drain(known..));
    }

    /// Makes room for the operation of this place.
    fn operation(&mut self, place: usize, name: &Arc<str>) -> &mut OperationTotals {
        let operations = &mut self.snapshot.operations;
        if place == operations.len() {
            operations.push(self.spare.pop().unwrap_or_else(|| OperationTotals::blank(Arc::clone(name))));
        }
        let operation = &mut operations[place];
        if !Arc::ptr_eq(&operation.name, name) {
            operation.name = Arc::clone(name);
        }
        operation
    }
}

impl OperationTotals {
    fn blank(name: Arc<str>) -> Self {
        Self {
            name,
            started: 0,
            outcomes: [0; Outcome::COUNT],
            in_flight: 0,
            wait_nanos: 0,
            use_nanos: 0,
            returned: 0,
            activity_nanos: [0; Activity::COUNT],
            queries: 0,
            queries_finished: 0,
            wire_bytes: [0; Direction::COUNT],
            recovered: 0,
            durations: Default::default(),
        }
    }
}

impl PoolSnapshot {
    /// The same with what requests cost, if any are served, and what the server says, if it is asked.
    pub(super) fn with_what_others_keep(mut self, ledger: &Ledger) -> Self {
        self.server = ledger.server.latest();
        self.connecting_suspended = ledger.connecting_suspended();
        if let Some(kinds) = ledger.requests.get() {
            kinds.read(&mut self.requests);
        }
        self
    }

    fn blank() -> Self {
        Self {
            name: Arc::from(""),
            limits: Limits::NONE,
            connections: Connections::default(),
            operations: Vec::new(),
            queued: 0,
            in_flight: 0,
            oldest_wait: Duration::ZERO,
            wait_time: Histogram::default(),
            use_time: Histogram::default(),
            create_time: Histogram::default(),
            phase_nanos: [0; Phase::COUNT],
            saturated_nanos: 0,
            created: 0,
            closed: [0; CloseReason::COUNT],
            errors: Vec::new(),
            queries: Vec::new(),
            query_errors: Vec::new(),
            dirty_returns: Vec::new(),
            suspected_leaks: 0,
            self_deadlocks: 0,
            wires_lost: 0,
            retries: Vec::new(),
            retries_exhausted: Vec::new(),
            retry_budget: 0.0,
            connecting_suspended: Duration::ZERO,
            unpooled: Vec::new(),
            requests: Vec::new(),
            server: None,
            recommended_size: None,
            holders: Vec::new(),
            waiters: Vec::new(),
        }
    }
}

impl LedgerState {
    /// Everything, with those who hold and who wait.
    pub(super) fn snapshot(&mut self, ledger: &Ledger, now: Nanos) -> PoolSnapshot {
        let mut reading = Reading::new();
        self.read(ledger, now, &mut reading);
        let Reading { mut snapshot, standings, .. } = reading;
        snapshot.holders = self.holders_of(self.seats.iter().zip(standings), ledger, now);
        snapshot.waiters = self.waiters(ledger, now);
        snapshot.suspected_leaks = snapshot.holders.iter().filter(|holder| holder.suspected_leak).count();
        snapshot
    }

    /// Reads all that is counted into `reading`.
    pub(super) fn read(&mut self, ledger: &Ledger, now: Nanos, reading: &mut Reading) {
        self.look_for_owns(now);
        self.read_seats(ledger, now, reading);
        self.read_operations(ledger, now, reading);
        self.read_queries(ledger, reading);
        self.read_lists(ledger, now, &mut reading.snapshot);

        let Reading { snapshot, totals, .. } = reading;
        let so_far = Totals {
            at: now,
            started: snapshot.operations.iter().map(|operation| operation.started).sum(),
            returned: snapshot.operations.iter().map(|operation| operation.returned).sum(),
            use_nanos: snapshot.operations.iter().map(|operation| operation.use_nanos).sum(),
        };
        snapshot.recommended_size = self.history.recommend(so_far, ledger.limits().wait_target);

        if !Arc::ptr_eq(&snapshot.name, ledger.name()) {
            snapshot.name = Arc::clone(ledger.name());
        }
        snapshot.limits = *ledger.limits();
        snapshot.queued = self.queued;
        snapshot.in_flight = self.in_flight.len();
        let oldest = self.in_flight.iter().map(|(_, checkout)| checkout.started).min();
        snapshot.oldest_wait = oldest.map_or(Duration::ZERO, |started| now.duration_since(started));
        snapshot.wait_time.set(&self.wait_time);
        self.wait_exemplars.read_into(&mut snapshot.wait_time.exemplars);
        // A checkout that was served at its first poll did not wait.
        snapshot.wait_time.observe_zeros(totals.by_operation.iter().map(|uses| uses.served).sum());
        snapshot.create_time.set(&self.create_time);
        self.create_exemplars.read_into(&mut snapshot.create_time.exemplars);
        let saturated = self.saturated_nanos + self.saturated_since.map_or(0, |since| now.since(since));
        snapshot.saturated_nanos = rising(&mut self.saturated_reported, saturated);
        snapshot.created = self.created;
        snapshot.closed = self.closed;
        snapshot.self_deadlocks = self.self_deadlocks;
        snapshot.wires_lost = self.wires_lost;
        snapshot.retry_budget = ledger.budget().balance(now);
    }

    /// What the connections served, and how they stand.
    fn read_seats(&self, ledger: &Ledger, now: Nanos, reading: &mut Reading) {
        let Reading { snapshot, totals, standings, .. } = reading;
        // Read before what they are examples of.
        ledger.use_exemplars.read_into(&mut snapshot.use_time.exemplars);
        // One that gets its name from now on has retired nothing: that takes the lock.
        totals.set(&self.retired, ledger.operations().ids().count(), ledger.queries.ids().count());
        standings.clear();
        standings.extend(self.seats.iter().map(|stats| stats.add_to(totals, now)));
        snapshot.connections = Connections::of(standings.iter().copied());
        let standings = self.seats.iter().zip(&*standings);
        snapshot.suspected_leaks =
            standings.filter(|(stats, unpacked_state)| is_suspect(stats, **unpacked_state, ledger, now)).count();
        (snapshot.use_time.buckets, snapshot.use_time.sum_nanos) = (totals.use_time.buckets, totals.use_time.sum_nanos);
    }

    /// What each operation came to.
    fn read_operations(&mut self, ledger: &Ledger, now: Nanos, reading: &mut Reading) {
        let mut known = 0;
        for (id, name) in ledger.operations().ids() {
            let (uses, wire) = (reading.totals.by_operation[id.index()], reading.totals.wire[id.index()]);
            let waits = &self.waits[id.index()];
            let operation = reading.operation(known, name);
            known += 1;
            operation.started = waits.started + uses.served;
            operation.outcomes = waits.outcomes;
            operation.outcomes[Outcome::Ok.index()] += uses.served;
            operation.in_flight = 0;
            operation.wait_nanos = waits.wait_nanos;
            operation.use_nanos = uses.nanos;
            operation.returned = uses.returned;
            operation.activity_nanos = activities(uses.held_nanos, wire);
            operation.queries = wire.queries;
            operation.queries_finished = wire.finished;
            operation.wire_bytes = [wire.sent, wire.received];
            operation.recovered = self.retries.recovered(id);
            ledger.read_durations(id, &mut operation.durations);
        }
        let Reading { snapshot, spare, .. } = reading;
        spare.extend(snapshot.operations.drain(known..));

        let (operations, phase_nanos) = (&mut snapshot.operations, &mut snapshot.phase_nanos);
        *phase_nanos = self.phase_nanos;
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
    }

    /// How long queries took: those that succeeded, and those that failed by their errors.
    fn read_queries(&self, ledger: &Ledger, reading: &mut Reading) {
        let succeeded = ledger.queries.ids().zip(&reading.totals.queries).zip(&ledger.query_exemplars);
        let succeeded = succeeded.map(|(((_, summary), durations), exemplars)| (summary, None, durations, exemplars));
        let failed = self.failed_queries.iter().map(|(query, code, failed)| {
            (ledger.queries.shared(query.as_u16()), Some(code), &failed.durations, &failed.exemplars)
        });
        let mut known = 0;
        for (summary, error, durations, exemplars) in succeeded.chain(failed) {
            if durations.count() == 0 {
                continue;
            }
            if known == reading.snapshot.queries.len() {
                let blank = || QueryDurations { summary: Arc::clone(summary), error, durations: Histogram::default() };
                reading.snapshot.queries.push(reading.spare_queries.pop().unwrap_or_else(blank));
            }
            let query = &mut reading.snapshot.queries[known];
            known += 1;
            query.error = error;
            if !Arc::ptr_eq(&query.summary, summary) {
                query.summary = Arc::clone(summary);
            }
            exemplars.read_into(&mut query.durations.exemplars);
            (query.durations.buckets, query.durations.sum_nanos) = (durations.buckets, durations.sum_nanos);
            // The connections were read before these, and one that was traced may have come meanwhile.
            query.durations.exemplars.retain(|exemplar| durations.buckets[exemplar.bucket()] > 0);
        }
        reading.spare_queries.extend(reading.snapshot.queries.drain(known..));
    }

    /// What is listed by something else than the operation alone.
    fn read_lists(&mut self, ledger: &Ledger, now: Nanos, snapshot: &mut PoolSnapshot) {
        let name_of = |id| ledger.operations().shared_name(id);
        self.read_errors(&mut snapshot.errors);
        snapshot.query_errors.clear();
        snapshot.query_errors.extend(self.query_errors.iter().map(|((operation, code), count)| QueryErrors {
            operation: name_of(*operation),
            code: *code,
            count: *count,
        }));
        snapshot.dirty_returns.clear();
        snapshot.dirty_returns.extend(self.dirty.iter().map(|((operation, dirt), count)| DirtyReturns {
            operation: name_of(*operation),
            dirt: *dirt,
            count: *count,
        }));
        snapshot.retries.clear();
        snapshot.retries.extend(self.retries.retries(name_of));
        snapshot.retries_exhausted.clear();
        snapshot.retries_exhausted.extend(self.retries.exhausted(name_of));
        snapshot.unpooled.clear();
        snapshot.unpooled.extend(self.unpooled.totals(ledger, now));
    }

    /// By phase and code; what queries report is put together over the operations.
    fn read_errors(&self, errors: &mut Vec<ConnectionErrors>) {
        errors.clear();
        let own = self.errors.iter();
        errors.extend(own.map(|((phase, code), count)| ConnectionErrors { phase: *phase, code: *code, count: *count }));
        for ((_, code), count) in &self.query_errors {
            let key = (ErrorPhase::Query, *code);
            match errors.binary_search_by_key(&key, |errors| (errors.phase, errors.code)) {
                Ok(place) => errors[place].count += count,
                Err(place) => errors.insert(place, ConnectionErrors { phase: key.0, code: key.1, count: *count }),
            }
        }
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
