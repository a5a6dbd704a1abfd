//! Adds the snapshot of a replaced pool to that of its successor.

use super::{ConnectionErrors, Connections, Limits, PoolSnapshot};
use crate::labels::CacheResult;
use crate::telemetry::histogram::Histogram;

impl PoolSnapshot {
    /// Adds what a replaced pool has counted, and its current state. Numbers that are not sums stay those of this pool.
    pub(super) fn add(&mut self, replaced: &Self) {
        // Every field, so that a new one does not compile until it is added.
        let Self {
            name: _,
            kind: _,
            counting_since,
            limits,
            connections,
            operations,
            queued,
            in_flight,
            oldest_wait,
            wait_time,
            use_time,
            create_time,
            phase_nanos,
            saturated_nanos,
            created,
            closed,
            close_timeouts,
            errors,
            queries,
            query_errors,
            dirty_returns,
            suspected_leaks,
            self_deadlocks,
            wires_lost,
            retries,
            retries_exhausted,
            retry_budget: _,
            connecting_suspended: _,
            unpooled,
            requests,
            caches,
            server,
            recommended_size: _,
            sizing: _,
            diagnosis: _,
            holders,
            waiters,
        } = replaced;
        self.counting_since = self.counting_since.min(*counting_since);
        self.limits.pool_size += limits.pool_size;
        self.limits.max_overflow += limits.max_overflow;
        let Connections { creating, idle, used, closing } = *connections;
        self.connections.creating += creating;
        self.connections.idle += idle;
        self.connections.used += used;
        self.connections.closing += closing;
        self.queued += queued;
        self.in_flight += in_flight;
        self.oldest_wait = self.oldest_wait.max(*oldest_wait);
        add_durations(&mut self.wait_time, wait_time);
        add_durations(&mut self.use_time, use_time);
        add_durations(&mut self.create_time, create_time);
        add_each(&mut self.phase_nanos, phase_nanos);
        self.saturated_nanos += saturated_nanos;
        self.created += created;
        add_each(&mut self.closed, closed);
        self.close_timeouts += close_timeouts;
        self.suspected_leaks += suspected_leaks;
        self.wires_lost += wires_lost;
        if self.server.is_none() {
            self.server.clone_from(server);
        }

        merge(
            &mut self.operations,
            operations,
            |one, other| one.name == other.name,
            |total, other| {
                total.started += other.started;
                add_each(&mut total.outcomes, &other.outcomes);
                total.in_flight += other.in_flight;
                total.wait_nanos += other.wait_nanos;
                total.use_nanos += other.use_nanos;
                total.returned += other.returned;
                add_each(&mut total.activity_nanos, &other.activity_nanos);
                total.queries += other.queries;
                total.queries_finished += other.queries_finished;
                add_each(&mut total.wire_bytes, &other.wire_bytes);
                total.recovered += other.recovered;
                for (total, other) in total.durations.iter_mut().zip(&other.durations) {
                    add_durations(total, other);
                }
            },
        );
        let key = |errors: &ConnectionErrors| (errors.phase, errors.code);
        merge(&mut self.errors, errors, |one, other| key(one) == key(other), |total, other| total.count += other.count);
        self.errors.sort_by_key(key);
        merge(
            &mut self.queries,
            queries,
            |one, other| one.summary == other.summary && one.error == other.error,
            |total, other| add_durations(&mut total.durations, &other.durations),
        );
        merge(
            &mut self.query_errors,
            query_errors,
            |one, other| one.operation == other.operation && one.code == other.code,
            |total, other| total.count += other.count,
        );
        merge(
            &mut self.dirty_returns,
            dirty_returns,
            |one, other| one.operation == other.operation && one.dirt == other.dirt,
            |total, other| total.count += other.count,
        );
        merge(
            &mut self.self_deadlocks,
            self_deadlocks,
            |one, other| one.operation == other.operation,
            |total, other| total.count += other.count,
        );
        merge(
            &mut self.retries,
            retries,
            |one, other| one.operation == other.operation && one.code == other.code,
            |total, other| total.count += other.count,
        );
        merge(
            &mut self.retries_exhausted,
            retries_exhausted,
            |one, other| one.operation == other.operation && one.reason == other.reason && one.code == other.code,
            |total, other| total.count += other.count,
        );
        merge(
            &mut self.unpooled,
            unpooled,
            |one, other| one.operation == other.operation,
            |total, other| {
                total.opened += other.opened;
                total.active += other.active;
                total.open_nanos += other.open_nanos;
                total.connect_nanos += other.connect_nanos;
            },
        );
        merge(
            &mut self.requests,
            requests,
            |one, other| one.route == other.route && one.method == other.method,
            |total, other| {
                total.started += other.started;
                total.in_flight += other.in_flight;
                for (total, other) in total.durations.iter_mut().zip(&other.durations) {
                    add_durations(total, other);
                }
                total.checkouts += other.checkouts;
                total.wait_nanos += other.wait_nanos;
                add_each(&mut total.use_nanos, &other.use_nanos);
                total.retries += other.retries;
                add_each(&mut total.warnings, &other.warnings);
            },
        );
        merge(
            &mut self.caches,
            caches,
            |one, other| one.name == other.name,
            |total, other| {
                total.started += other.started;
                add_each(&mut total.results, &other.results);
                total.in_flight += other.in_flight;
                for (total, other) in total.loads.iter_mut().zip(&other.loads) {
                    add_durations(total, other);
                }
                total.loads_in_flight += other.loads_in_flight;
                total.max_loads += other.max_loads;
                total.saved_nanos += other.saved_nanos;
                add_each(&mut total.errors, &other.errors);
                add_each(&mut total.bytes, &other.bytes);
            },
        );
        self.holders.extend_from_slice(holders);
        self.holders.sort_by_key(|holder| std::cmp::Reverse(holder.age));
        self.waiters.extend_from_slice(waiters);
        self.waiters.sort_by_key(|waiter| std::cmp::Reverse(waiter.age));
    }

    /// Removes what describes the present, after which only counters are left.
    pub(super) fn keep_counters(&mut self) {
        self.limits = Limits::NONE;
        self.server = None;
        self.holders.clear();
        self.waiters.clear();
        // What a cache has not ended by now is not counted any more.
        for cache in &mut self.caches {
            cache.results[CacheResult::Cancelled.index()] += std::mem::take(&mut cache.in_flight);
            (cache.loads_in_flight, cache.max_loads) = (0, 0);
        }
    }
}

/// Adds the elements of `others` to the equal ones of `totals`, and appends those that have no equal.
fn merge<T: Clone>(totals: &mut Vec<T>, others: &[T], same: impl Fn(&T, &T) -> bool, add: impl Fn(&mut T, &T)) {
    for other in others {
        match totals.iter_mut().find(|total| same(total, other)) {
            Some(total) => add(total, other),
            None => totals.push(other.clone()),
        }
    }
}

fn add_each<const N: usize>(totals: &mut [u64; N], others: &[u64; N]) {
    for (total, other) in totals.iter_mut().zip(others) {
        *total += other;
    }
}

/// Exemplars stay those of `total`: they are examples of recent observations.
fn add_durations(total: &mut Histogram, other: &Histogram) {
    add_each(&mut total.buckets, &other.buckets);
    total.sum_nanos = total.sum_nanos.saturating_add(other.sum_nanos);
}
