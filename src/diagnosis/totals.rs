//! The totals of a pool at a snapshot, and the interval between two of them.

use std::sync::Arc;
use std::time::Duration;

use super::call_site::CallSite;
use super::interval::{
    BUCKETS, HolderGroup, Interval, MAX_ERROR_CODES, MAX_HOLDER_GROUPS, MAX_OPERATIONS, OperationInterval, SelfBlocked,
    ServerState,
};
use super::locks::LockBlock;
use crate::labels::{Activity, CacheResult, CloseReason, ErrorCode, ErrorPhase, GiveUp, Outcome, Phase, PoolKind};
use crate::telemetry::clock::{Nanos, seconds, to_f64};
use crate::telemetry::{PoolSnapshot, ServerPoll};

/// A waiter that has waited for less than this while its task holds a connection does not count as blocked by itself.
const MIN_SELF_BLOCKED: Duration = Duration::from_millis(250);

/// The codes of a server without free slots, of PostgreSQL and of Redis.
const TOO_MANY_CONNECTIONS: [ErrorCode; 2] = [ErrorCode::new("53300"), ErrorCode::new("MAXCLIENTS")];

/// The counters of the previous snapshot.
#[derive(Debug)]
pub(super) struct Totals {
    at: Nanos,
    operations: Vec<OperationTotals>,
    waits: [u64; BUCKETS],
    phases: [u64; Phase::COUNT],
    saturated: u64,
    created: u64,
    closed: [u64; CloseReason::COUNT],
    errors: Vec<(ErrorCode, u64)>,
    connect_errors: Vec<(ErrorCode, u64)>,
    budget_refusals: u64,
    /// Lookups of each cache by result.
    caches: Vec<[u64; CacheResult::COUNT]>,
}

#[derive(Clone, Debug, Default)]
struct OperationTotals {
    held: [u64; Activity::COUNT],
    waited: u64,
    started: u64,
    outcomes: [u64; Outcome::COUNT],
    returned: u64,
    queries: u64,
    retries: u64,
}

impl Totals {
    pub(super) fn of(at: Nanos, snapshot: &PoolSnapshot) -> Self {
        let retries = |name: &Arc<str>| {
            let of = snapshot.retries.iter().filter(|retries| retries.operation == *name);
            of.fold(0_u64, |sum, retries| sum.saturating_add(retries.count))
        };
        let operations = snapshot.operations.iter().map(|operation| OperationTotals {
            held: operation.activity_nanos,
            waited: operation.wait_nanos,
            started: operation.started,
            outcomes: operation.outcomes,
            returned: operation.returned,
            queries: operation.queries_finished,
            retries: if snapshot.retries.is_empty() { 0 } else { retries(&operation.name) },
        });
        let mut errors: Vec<(ErrorCode, u64)> = Vec::new();
        for of in &snapshot.errors {
            match errors.iter_mut().find(|(code, _)| *code == of.code) {
                Some((_, sum)) => *sum = sum.saturating_add(of.count),
                None => errors.push((of.code, of.count)),
            }
        }
        let connect_errors = snapshot.errors.iter().filter(|errors| errors.phase == ErrorPhase::Connect);
        let budget_refusals = snapshot.retries_exhausted.iter().filter(|exhausted| exhausted.reason == GiveUp::Budget);
        let mut phases = snapshot.phase_nanos;
        if snapshot.kind == PoolKind::Proxy {
            // Clients wait for nothing else that a proxy sees.
            phases[Phase::Connect.index()] = snapshot.create_time.sum_nanos;
        }
        Self {
            at,
            operations: operations.collect(),
            waits: snapshot.wait_time.buckets,
            phases,
            saturated: snapshot.saturated_nanos,
            created: snapshot.created,
            closed: snapshot.closed,
            errors,
            connect_errors: connect_errors.map(|errors| (errors.code, errors.count)).collect(),
            budget_refusals: budget_refusals.fold(0, |sum, exhausted| sum.saturating_add(exhausted.count)),
            caches: snapshot.caches.iter().map(|cache| cache.results).collect(),
        }
    }

    pub(super) fn at(&self) -> Nanos {
        self.at
    }
}

/// Returns the increase of a counter.
fn increase(before: u64, now: u64) -> f64 {
    to_f64(now.saturating_sub(before))
}

fn increases<const N: usize>(before: &[u64; N], now: &[u64; N]) -> [f64; N] {
    std::array::from_fn(|index| increase(before[index], now[index]))
}

/// Returns the increase of a counter of nanoseconds, in seconds.
fn elapsed(before: u64, now: u64) -> f64 {
    seconds(now.saturating_sub(before))
}

fn all_elapsed<const N: usize>(before: &[u64; N], now: &[u64; N]) -> [f64; N] {
    std::array::from_fn(|index| elapsed(before[index], now[index]))
}

fn number(count: usize) -> f64 {
    to_f64(count as u64)
}

impl Interval {
    /// Returns what happened between `before` and `now`, of which `snapshot` was taken. `late` is the delay of its timer.
    pub(super) fn between(before: &Totals, now: &Totals, late: Duration, snapshot: &PoolSnapshot) -> Self {
        let mut interval = Self {
            seconds: elapsed(before.at.as_nanos(), now.at.as_nanos()).max(1e-3),
            late: late.as_secs_f64(),
            waits: increases(&before.waits, &now.waits),
            phases: all_elapsed(&before.phases, &now.phases),
            saturated: elapsed(before.saturated, now.saturated),
            connecting: increase(before.created, now.created),
            closed: increases(&before.closed, &now.closed),
            budget_refusals: increase(before.budget_refusals, now.budget_refusals),
            ..Self::default()
        };
        interval.add_operations(before, now, snapshot);
        interval.add_errors(before, now);
        interval.add_connect_failures(before, now);
        interval.add_caches(before, now, snapshot);
        interval.set_state(snapshot);
        interval
    }

    fn add_operations(&mut self, before: &Totals, now: &Totals, snapshot: &PoolSnapshot) {
        let unknown = OperationTotals::default();
        for (index, (totals, operation)) in now.operations.iter().zip(&snapshot.operations).enumerate() {
            let earlier = before.operations.get(index).unwrap_or(&unknown);
            let of = OperationInterval {
                name: Arc::clone(&operation.name),
                held: all_elapsed(&earlier.held, &totals.held),
                waited: elapsed(earlier.waited, totals.waited),
                started: increase(earlier.started, totals.started),
                queries: increase(earlier.queries, totals.queries),
                retries: increase(earlier.retries, totals.retries),
            };
            self.started += of.started;
            self.returned += increase(earlier.returned, totals.returned);
            self.queries += of.queries;
            self.retries += of.retries;
            for (sum, held) in self.held.iter_mut().zip(of.held) {
                *sum += held;
            }
            for (sum, outcome) in self.outcomes.iter_mut().zip(increases(&earlier.outcomes, &totals.outcomes)) {
                *sum += outcome;
            }
            if of.held_in_all() + of.waited + of.retries > 0.0 {
                self.operations.push(of);
            }
        }
        self.operations.sort_by(|a, b| (b.held_in_all() + b.waited).total_cmp(&(a.held_in_all() + a.waited)));
        self.operations.truncate(MAX_OPERATIONS);
        self.operations.shrink_to_fit();
    }

    fn add_errors(&mut self, before: &Totals, now: &Totals) {
        for (code, total) in &now.errors {
            let earlier = before.errors.iter().find(|(earlier, _)| earlier == code);
            let new = increase(earlier.map_or(0, |(_, total)| *total), *total);
            if new > 0.0 {
                self.errors.push((*code, new));
            }
        }
        self.errors.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        self.errors.truncate(MAX_ERROR_CODES);
        self.errors.shrink_to_fit();
    }

    fn add_connect_failures(&mut self, before: &Totals, now: &Totals) {
        for (code, total) in &now.connect_errors {
            let earlier = before.connect_errors.iter().find(|(earlier, _)| earlier == code);
            let new = increase(earlier.map_or(0, |(_, total)| *total), *total);
            if TOO_MANY_CONNECTIONS.contains(code) {
                self.refused += new;
            } else if new > 0.0 {
                self.connect_failures += new;
                self.last_connect_failure = Some(*code);
            }
        }
    }

    fn add_caches(&mut self, before: &Totals, now: &Totals, snapshot: &PoolSnapshot) {
        let mut most = 0.0;
        for (index, (results, cache)) in now.caches.iter().zip(&snapshot.caches).enumerate() {
            let earlier = before.caches.get(index).unwrap_or(&[0; CacheResult::COUNT]);
            let new = increases(earlier, results);
            let activity = self.caches.get_or_insert_default();
            // Those that shared the result of another, or were dropped, say nothing about the cache.
            let shared = new[CacheResult::Coalesced.index()] + new[CacheResult::Cancelled.index()];
            let bypassed = new[CacheResult::Bypassed.index()];
            activity.lookups += new.iter().sum::<f64>() - shared;
            activity.bypassed += bypassed;
            if bypassed > most {
                most = bypassed;
                activity.most_bypassed = Some(Arc::clone(&cache.name));
            }
        }
    }

    fn set_state(&mut self, snapshot: &PoolSnapshot) {
        self.is_proxied = snapshot.kind == PoolKind::Proxy;
        self.max = number(snapshot.max());
        self.used = number(snapshot.connections.used);
        self.idle = number(snapshot.connections.idle);
        self.creating = number(snapshot.connections.creating);
        self.closing = number(snapshot.connections.closing);
        self.queued = number(snapshot.queued);
        self.in_flight = number(snapshot.in_flight);
        self.oldest_wait = snapshot.oldest_wait.as_secs_f64();
        self.suspected_leaks = number(snapshot.suspected_leaks);
        self.suspended = snapshot.connecting_suspended.as_secs_f64();
        for waiter in &snapshot.waiters {
            let Some(own) = waiter.own_connection.as_ref().filter(|_| waiter.age >= MIN_SELF_BLOCKED) else { continue };
            self.self_blocked += 1.0;
            self.first_self_blocked.get_or_insert_with(|| SelfBlocked {
                operation: Arc::clone(&waiter.operation),
                held_by: Arc::clone(&own.operation),
                held_at: own.call_site.map(CallSite::Code),
                waits_at: CallSite::Code(waiter.call_site),
            });
        }
        self.holders = holder_groups(snapshot);
        self.server = snapshot.server.as_ref().map(ServerState::of);
        (self.blocked_on_locks, self.first_lock) = LockBlock::find(snapshot);
    }
}

impl ServerState {
    fn of(poll: &ServerPoll) -> Self {
        let view = match poll {
            ServerPoll::Seen(view) => view,
            ServerPoll::Redis(view) => {
                let slots = view.max_clients.unwrap_or(u64::MAX);
                let slots_left = to_f64(slots.saturating_sub(view.clients));
                return Self { slots: to_f64(slots), slots_left, ..Self::default() };
            }
            ServerPoll::Failed => return Self { unreachable: true, ..Self::default() },
        };
        let mut applications: Vec<(Arc<str>, u64)> = Vec::new();
        for backends in &view.backends {
            match applications.iter_mut().find(|(application, _)| *application == backends.application) {
                Some((_, count)) => *count = count.saturating_add(backends.count),
                None => applications.push((Arc::clone(&backends.application), backends.count)),
            }
        }
        let top = applications.into_iter().max_by_key(|(_, count)| *count);
        Self {
            unreachable: false,
            slots: to_f64(view.slots),
            slots_left: to_f64(view.slots_left),
            unowned: view.unowned.unwrap_or_default().map(to_f64),
            top_application: top.map(|(application, count)| (application, to_f64(count))),
        }
    }
}

fn holder_groups(snapshot: &PoolSnapshot) -> Vec<HolderGroup> {
    let mut groups: Vec<HolderGroup> = Vec::new();
    for holder in snapshot.holders.iter().filter(|holder| !holder.maintenance) {
        let call_site = holder.call_site.map(CallSite::Code);
        let known = groups.iter().position(|group| group.operation == holder.operation && group.call_site == call_site);
        let index = known.unwrap_or_else(|| {
            groups.push(HolderGroup { operation: Arc::clone(&holder.operation), call_site, ..HolderGroup::default() });
            groups.len() - 1
        });
        let group = &mut groups[index];
        group.connections += 1.0;
        group.oldest = group.oldest.max(holder.age.as_secs_f64());
        if holder.suspected_leak {
            group.suspected_leaks += 1.0;
        }
        if let Some(activity) = holder.activity {
            group.activities[activity.index()] += 1.0;
            if activity != Activity::Executing {
                group.silent = group.silent.max(holder.silent.as_secs_f64());
            }
        }
    }
    groups.sort_by(|a, b| b.connections.total_cmp(&a.connections));
    // Suspected leaks are kept, however few.
    groups.sort_by(|a, b| b.suspected_leaks.total_cmp(&a.suspected_leaks));
    groups.truncate(MAX_HOLDER_GROUPS);
    groups.shrink_to_fit();
    groups
}
