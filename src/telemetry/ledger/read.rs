//! Reads a ledger at one point in time into a buffer that the next reading reuses.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::holders::is_suspected_leak;
use super::snapshot::{
    ConnectionErrors, Connections, DirtyReturns, OperationTotals, PoolSnapshot, QueryDurations, QueryErrors,
    SelfDeadlocks,
};
use super::state::{LedgerState, monotonic};
use super::{Ledger, Limits};
use crate::labels::{Activity, CloseReason, Direction, ErrorPhase, Outcome, Phase, PoolKind};
use crate::telemetry::caches::CacheTotals;
use crate::telemetry::clock::Nanos;
use crate::telemetry::connection::{ConnectionTotals, UnpackedState};
use crate::telemetry::histogram::Histogram;
use crate::telemetry::requests::RequestTotals;
use crate::telemetry::sizing::{LoadReading, Sizing};
use crate::telemetry::verdict::Verdict;
use crate::telemetry::wire::WireTotals;

/// A snapshot, without holders and waiters, that the ledgers of several pools can be read into one after another. It
/// allocates nothing once it has held the largest of them.
#[derive(Debug)]
pub(crate) struct SnapshotBuffer {
    snapshot: PoolSnapshot,
    /// Operations of a previous pool that the current one lacks, kept for their memory.
    spare: Vec<OperationTotals>,
    /// Likewise for queries.
    spare_queries: Vec<QueryDurations>,
    /// Likewise for requests.
    spare_requests: Vec<RequestTotals>,
    /// Likewise for caches.
    spare_caches: Vec<CacheTotals>,
    totals: ConnectionTotals,
    /// The state of each connection. Read once, because a connection may be returned meanwhile, and the holders listed
    /// must be those counted as used.
    states: Vec<UnpackedState>,
}

impl SnapshotBuffer {
    pub(crate) fn new() -> Self {
        Self {
            snapshot: PoolSnapshot::blank(),
            spare: Vec::new(),
            spare_queries: Vec::new(),
            spare_requests: Vec::new(),
            spare_caches: Vec::new(),
            totals: ConnectionTotals::default(),
            states: Vec::new(),
        }
    }

    /// Returns the snapshot that was read last.
    pub(crate) fn snapshot(&self) -> &PoolSnapshot {
        &self.snapshot
    }

    #[cfg_attr(not(feature = "exporter"), allow(dead_code, reason = "only the exporter reuses a buffer"))]
    pub(super) fn snapshot_mut(&mut self) -> &mut PoolSnapshot {
        &mut self.snapshot
    }

    pub(super) fn set_diagnosis(&mut self, verdict: Option<Arc<Verdict>>, sizing: Option<Arc<Sizing>>) {
        self.snapshot.diagnosis = verdict;
        self.snapshot.sizing = sizing;
        self.snapshot.recommended_size = self.snapshot.recommendation();
    }

    /// Reads what is kept outside the ledger's lock: requests, caches, the server's view, and the connect backoff.
    pub(super) fn read_unlocked(&mut self, ledger: &Ledger) {
        self.snapshot.counting_since = ledger.created;
        self.snapshot.server = ledger.server.latest();
        self.snapshot.connecting_suspended = ledger.connecting_suspended();
        let Self { snapshot: PoolSnapshot { requests, .. }, spare_requests: spare, .. } = self;
        // Elements of a previous pool are reused.
        requests.append(spare);
        let count = ledger.routes.get().map_or(0, |routes| routes.read(requests));
        spare.extend(requests.drain(count..));
        let Self { snapshot: PoolSnapshot { caches, .. }, spare_caches: spare, .. } = self;
        caches.append(spare);
        let count = ledger.caches.read(caches);
        spare.extend(caches.drain(count..));
    }

    pub(super) fn into_snapshot(self) -> PoolSnapshot {
        self.snapshot
    }

    /// Returns the totals of the operation at this index, adding them if needed.
    fn operation(&mut self, index: usize, name: &Arc<str>) -> &mut OperationTotals {
        let operations = &mut self.snapshot.operations;
        if index == operations.len() {
            operations.push(self.spare.pop().unwrap_or_else(|| OperationTotals::blank(Arc::clone(name))));
        }
        let operation = &mut operations[index];
        if !Arc::ptr_eq(&operation.name, name) {
            operation.name = Arc::clone(name);
        }
        operation
    }
}

impl OperationTotals {
    pub(in crate::telemetry) fn blank(name: Arc<str>) -> Self {
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
    pub(in crate::telemetry) fn blank() -> Self {
        Self {
            name: Arc::from(""),
            kind: PoolKind::Pool,
            counting_since: SystemTime::UNIX_EPOCH,
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
            close_timeouts: 0,
            errors: Vec::new(),
            queries: Vec::new(),
            query_errors: Vec::new(),
            dirty_returns: Vec::new(),
            suspected_leaks: 0,
            self_deadlocks: Vec::new(),
            wires_lost: 0,
            retries: Vec::new(),
            retries_exhausted: Vec::new(),
            retry_budget: 0.0,
            connecting_suspended: Duration::ZERO,
            unpooled: Vec::new(),
            requests: Vec::new(),
            caches: Vec::new(),
            server: None,
            recommended_size: None,
            sizing: None,
            diagnosis: None,
            holders: Vec::new(),
            waiters: Vec::new(),
        }
    }
}

impl LedgerState {
    /// Reads holders and waiters into `buffer`, after [`Self::read`].
    pub(super) fn read_holders(&mut self, ledger: &Ledger, now: Nanos, buffer: &mut SnapshotBuffer) {
        let SnapshotBuffer { snapshot, states, .. } = buffer;
        snapshot.holders = self.holders_of(self.connections.iter().zip(states.iter().copied()), ledger, now);
        snapshot.waiters = self.waiters(ledger, now);
        snapshot.suspected_leaks = snapshot.holders.iter().filter(|holder| holder.suspected_leak).count();
    }

    /// Reads holders, and waiters whose task holds a connection, into `buffer`, after [`Self::read`].
    pub(super) fn read_sample(&mut self, ledger: &Ledger, now: Nanos, buffer: &mut SnapshotBuffer) {
        let SnapshotBuffer { snapshot, states, .. } = buffer;
        snapshot.holders = self.holders_of(self.connections.iter().zip(states.iter().copied()), ledger, now);
        snapshot.waiters = self.waiters_with_connection(ledger, now);
        snapshot.suspected_leaks = snapshot.holders.iter().filter(|holder| holder.suspected_leak).count();
    }

    /// Reads the checkouts that have begun, and the uses that have ended. Much less than [`Self::read`], because it is called
    /// ten times per second.
    pub(super) fn read_load(&self, now: Nanos) -> LoadReading {
        let mut uses = self.retired.use_time;
        let in_use = self.connections.iter().filter(|stats| stats.add_uses_to(&mut uses)).count();
        // Each checkout has begun a use, has ended without one, or is in flight.
        let arrivals = uses.count() + self.unserved + (in_use + self.in_flight_count) as u64;
        LoadReading { at: now, arrivals, uses }
    }

    /// Reads everything except holders and waiters into `buffer`.
    pub(super) fn read(&mut self, ledger: &Ledger, now: Nanos, buffer: &mut SnapshotBuffer) {
        self.detect_self_deadlocks(now);
        self.read_connections(ledger, now, buffer);
        self.read_operations(ledger, now, buffer);
        self.read_queries(ledger, buffer);
        self.read_lists(ledger, now, &mut buffer.snapshot);

        let SnapshotBuffer { snapshot, totals, .. } = buffer;
        if !Arc::ptr_eq(&snapshot.name, ledger.name()) {
            snapshot.name = Arc::clone(ledger.name());
        }
        snapshot.kind = ledger.kind();
        snapshot.limits = ledger.limits();
        snapshot.queued = self.queue.queued;
        snapshot.in_flight = self.in_flight_count;
        let oldest = self.checkouts().map(|(_, checkout)| checkout.started).min();
        snapshot.oldest_wait = oldest.map_or(Duration::ZERO, |started| now.duration_since(started));
        snapshot.wait_time.set(&self.wait_time);
        ledger.wait_exemplars.read_into(&mut snapshot.wait_time.exemplars);
        // Checkouts that were served at their first poll did not wait.
        snapshot.wait_time.observe_zeros(totals.by_operation.iter().map(|uses| uses.served).sum());
        snapshot.create_time.set(&self.create_time);
        self.create_exemplars.read_into(&mut snapshot.create_time.exemplars);
        snapshot.saturated_nanos = monotonic(&mut self.saturated_reported, self.queue.saturated_nanos(now));
        snapshot.created = self.created;
        snapshot.closed = self.closed;
        snapshot.close_timeouts = self.close_timeouts;
        snapshot.wires_lost = self.wires_lost;
        snapshot.retry_budget = ledger.budget().balance(now);
    }

    /// Reads the statistics and states of the connections.
    fn read_connections(&self, ledger: &Ledger, now: Nanos, buffer: &mut SnapshotBuffer) {
        let SnapshotBuffer { snapshot, totals, states, .. } = buffer;
        // Read before the counts, so that every exemplar belongs to a counted observation.
        ledger.use_exemplars.read_into(&mut snapshot.use_time.exemplars);
        // Names added from now on have no closed connections yet, because closing takes the lock.
        totals.set(&self.retired, ledger.operations().ids().count(), ledger.summaries.ids().count());
        states.clear();
        states.extend(self.connections.iter().map(|stats| stats.add_to(totals, now)));
        snapshot.connections = Connections::of(states.iter().copied());
        let states = self.connections.iter().zip(&*states);
        snapshot.suspected_leaks =
            states.filter(|(stats, state)| is_suspected_leak(stats, **state, ledger, now)).count();
        (snapshot.use_time.buckets, snapshot.use_time.sum_nanos) =
            (totals.use_time.counts, totals.use_time.sum_nanos());
    }

    /// Reads the totals of each operation.
    fn read_operations(&mut self, ledger: &Ledger, now: Nanos, buffer: &mut SnapshotBuffer) {
        let mut count = 0;
        for (id, name) in ledger.operations().ids() {
            let (uses, wire) = (buffer.totals.by_operation[id.index()], buffer.totals.wire[id.index()]);
            let waits = &self.waits[id.index()];
            let operation = buffer.operation(count, name);
            count += 1;
            operation.outcomes = waits.outcomes;
            operation.outcomes[Outcome::Ok.index()] += uses.served;
            operation.started = operation.outcomes.iter().sum();
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
        let SnapshotBuffer { snapshot, spare, .. } = buffer;
        spare.extend(snapshot.operations.drain(count..));

        let (operations, phase_nanos) = (&mut snapshot.operations, &mut snapshot.phase_nanos);
        *phase_nanos = self.phase_nanos;
        for (_, entry) in self.in_flight.iter() {
            let Some(checkout) = entry.get() else { continue };
            phase_nanos[checkout.phase.index()] += now.since(checkout.phase_since);
            if let Some(operation) = operations.get_mut(checkout.operation.index()) {
                operation.started += 1;
                operation.in_flight += 1;
                operation.wait_nanos += now.since(checkout.started);
            }
        }
        for (operation, waits) in operations.iter_mut().zip(&mut self.waits) {
            operation.wait_nanos = monotonic(&mut waits.wait_reported, operation.wait_nanos);
            for (nanos, reported) in operation.activity_nanos.iter_mut().zip(&mut waits.activity_reported) {
                *nanos = monotonic(reported, *nanos);
            }
        }
        for (phase, reported) in phase_nanos.iter_mut().zip(&mut self.phase_reported) {
            *phase = monotonic(reported, *phase);
        }
    }

    /// Reads the durations of successful queries, and those of failed ones by error code.
    fn read_queries(&self, ledger: &Ledger, buffer: &mut SnapshotBuffer) {
        let succeeded = ledger.summaries.ids().zip(&buffer.totals.queries).zip(&ledger.query_exemplars);
        let succeeded = succeeded.map(|(((_, summary), durations), exemplars)| (summary, None, durations, exemplars));
        let failed = self.failed_queries.iter().map(|(query, code, failed)| {
            (ledger.summaries.shared(query.as_u16()), Some(code), &failed.durations, &failed.exemplars)
        });
        let mut count = 0;
        for (summary, error, durations, exemplars) in succeeded.chain(failed) {
            if durations.count() == 0 {
                continue;
            }
            if count == buffer.snapshot.queries.len() {
                let blank = || QueryDurations { summary: Arc::clone(summary), error, durations: Histogram::default() };
                buffer.snapshot.queries.push(buffer.spare_queries.pop().unwrap_or_else(blank));
            }
            let query = &mut buffer.snapshot.queries[count];
            count += 1;
            query.error = error;
            if !Arc::ptr_eq(&query.summary, summary) {
                query.summary = Arc::clone(summary);
            }
            exemplars.read_into(&mut query.durations.exemplars);
            (query.durations.buckets, query.durations.sum_nanos) = (durations.buckets, durations.sum_nanos);
            // The durations were read before the exemplars, which may include a later observation.
            query.durations.exemplars.retain(|exemplar| durations.buckets[exemplar.bucket()] > 0);
        }
        buffer.spare_queries.extend(buffer.snapshot.queries.drain(count..));
    }

    /// Reads the counters that are not per operation alone.
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
        snapshot.self_deadlocks.clear();
        snapshot.self_deadlocks.extend(
            self.self_deadlocks.iter().map(|(id, count)| SelfDeadlocks { operation: name_of(*id), count: *count }),
        );
        snapshot.retries.clear();
        snapshot.retries.extend(self.retries.retries(name_of));
        snapshot.retries_exhausted.clear();
        snapshot.retries_exhausted.extend(self.retries.exhausted(name_of));
        snapshot.unpooled.clear();
        snapshot.unpooled.extend(self.unpooled.totals(ledger, now));
    }

    /// Reads the errors by phase and code, summing up those of queries over the operations.
    fn read_errors(&self, errors: &mut Vec<ConnectionErrors>) {
        errors.clear();
        let recorded = self.errors.iter();
        errors.extend(recorded.map(|((phase, code), count)| ConnectionErrors {
            phase: *phase,
            code: *code,
            count: *count,
        }));
        for ((_, code), count) in &self.query_errors {
            let key = (ErrorPhase::Query, *code);
            match errors.binary_search_by_key(&key, |errors| (errors.phase, errors.code)) {
                Ok(index) => errors[index].count += count,
                Err(index) => errors.insert(index, ConnectionErrors { phase: key.0, code: key.1, count: *count }),
            }
        }
    }
}

/// Returns the time by activity: what was observed on the wire, and idle for the rest of the time held.
fn activities(held: u64, wire: WireTotals) -> [u64; Activity::COUNT] {
    let mut nanos = [0; Activity::COUNT];
    nanos[Activity::Executing.index()] = wire.executing_nanos;
    nanos[Activity::IdleInTransaction.index()] = wire.in_transaction_nanos;
    nanos[Activity::Idle.index()] = held.saturating_sub(wire.executing_nanos + wire.in_transaction_nanos);
    nanos
}
