//! What happened in a pool between two snapshots, and its state at the second one.

use std::sync::Arc;
use std::time::Duration;

use super::call_site::CallSite;
use super::locks::LockBlock;
use crate::labels::{
    Activity, CacheResult, ClientAddress, CloseReason, ErrorCode, ErrorPhase, GiveUp, Outcome, Phase, PoolKind,
};
use crate::telemetry::clock::{Nanos, seconds, to_f64};
use crate::telemetry::{PoolSnapshot, ServerPoll};

/// The number of operations that an interval keeps: those that held connections or waited longest.
const MAX_OPERATIONS: usize = 16;

/// The number of groups of holders that an interval keeps: those with the most connections.
const MAX_HOLDER_GROUPS: usize = 16;

/// The number of error codes that an interval keeps: the most frequent ones.
pub(super) const MAX_ERROR_CODES: usize = 8;

/// A waiter that has waited for less than this while its task holds a connection does not count as blocked by itself.
const MIN_SELF_BLOCKED: Duration = Duration::from_millis(250);

/// The codes of a server without free slots, of PostgreSQL and of Redis.
const TOO_MANY_CONNECTIONS: [ErrorCode; 2] = [ErrorCode::new("53300"), ErrorCode::new("MAXCLIENTS")];

/// The number of buckets of a histogram.
pub(super) const BUCKETS: usize = crate::telemetry::BOUNDS_SECONDS.len() + 1;

/// What one operation did in an interval. Times are connection-seconds.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "exporter", derive(serde::Serialize, serde::Deserialize), serde(default))]
pub(super) struct OperationInterval {
    pub(super) name: Arc<str>,
    /// Time for which it held connections, by [`Activity::ALL`].
    #[cfg_attr(feature = "exporter", serde(with = "super::recording::labels::activity"))]
    pub(super) held: [f64; Activity::COUNT],
    pub(super) waited: f64,
    pub(super) started: f64,
    pub(super) queries: f64,
    pub(super) retries: f64,
}

impl OperationInterval {
    pub(super) fn held_in_all(&self) -> f64 {
        self.held.iter().sum()
    }
}

/// The connections that one operation held at a call site at the end of an interval.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "exporter", derive(serde::Serialize, serde::Deserialize), serde(default))]
pub(super) struct HolderGroup {
    pub(super) operation: Arc<str>,
    pub(super) call_site: Option<CallSite>,
    pub(super) connections: f64,
    /// By [`Activity::ALL`]; zero if the wire is not observed.
    #[cfg_attr(feature = "exporter", serde(with = "super::recording::labels::activity"))]
    pub(super) activities: [f64; Activity::COUNT],
    pub(super) suspected_leaks: f64,
    /// The longest time for which one of them has been held, in seconds.
    pub(super) oldest: f64,
    /// The longest time for which one of them has been held without traffic and without a running query, in seconds.
    pub(super) silent: f64,
}

/// A task that holds a connection and waits for another.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "exporter", derive(serde::Serialize, serde::Deserialize))]
pub(super) struct SelfBlocked {
    pub(super) operation: Arc<str>,
    pub(super) held_by: Arc<str>,
    pub(super) held_at: Option<CallSite>,
    pub(super) waits_at: CallSite,
}

/// The server's view of itself at the end of an interval.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "exporter", derive(serde::Serialize, serde::Deserialize), serde(default))]
pub(super) struct ServerState {
    pub(super) unreachable: bool,
    pub(super) slots: f64,
    pub(super) slots_left: f64,
    /// Backends with the pool's name that no pool of this process owns, by [`ClientAddress::ALL`].
    pub(super) unowned: [f64; ClientAddress::COUNT],
    /// The application with the most backends, and their number.
    pub(super) top_application: Option<(Arc<str>, f64)>,
}

/// What the caches in front of the pool did in an interval.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "exporter", derive(serde::Serialize, serde::Deserialize), serde(default))]
pub(super) struct CacheActivity {
    /// Lookups that a cache answered, or should have answered.
    pub(super) lookups: f64,
    /// Those that bypassed the cache, because it did not answer in time.
    pub(super) bypassed: f64,
    /// The cache with most of them.
    pub(super) most_bypassed: Option<Arc<str>>,
}

/// What happened in a pool between two snapshots, and its state at the second one.
#[derive(Clone, Debug, Default)]
#[cfg_attr(feature = "exporter", derive(serde::Serialize, serde::Deserialize), serde(default))]
pub(super) struct Interval {
    /// The length in seconds; positive.
    pub(super) seconds: f64,
    /// The delay of the timer that took the second snapshot, in seconds.
    pub(super) late: f64,

    /// Whether a proxy observes the pool, which sees neither checkouts nor what waits for a connection.
    #[cfg_attr(feature = "exporter", serde(skip_serializing_if = "std::ops::Not::not"))]
    pub(super) is_proxied: bool,
    // The state at the end.
    /// The maximum of connections; for a proxy's pool of unknown size, the connections at the end.
    pub(super) max: f64,
    pub(super) used: f64,
    pub(super) idle: f64,
    pub(super) creating: f64,
    pub(super) closing: f64,
    pub(super) queued: f64,
    /// Checkouts in flight, whatever they wait for.
    pub(super) in_flight: f64,
    pub(super) oldest_wait: f64,
    pub(super) suspected_leaks: f64,
    pub(super) suspended: f64,
    pub(super) self_blocked: f64,
    pub(super) server: Option<ServerState>,
    #[cfg_attr(
        feature = "exporter",
        serde(deserialize_with = "super::recording::lists::at_most::<_, _, MAX_HOLDER_GROUPS>")
    )]
    pub(super) holders: Vec<HolderGroup>,
    pub(super) first_self_blocked: Option<SelfBlocked>,
    /// The pool's connections that wait for a lock.
    pub(super) blocked_on_locks: f64,
    pub(super) first_lock: Option<LockBlock>,

    // What happened.
    pub(super) started: f64,
    #[cfg_attr(feature = "exporter", serde(with = "super::recording::labels::outcome"))]
    pub(super) outcomes: [f64; Outcome::COUNT],
    #[cfg_attr(feature = "exporter", serde(with = "super::recording::labels::buckets"))]
    pub(super) waits: [f64; BUCKETS],
    /// Connection-seconds by [`Activity::ALL`].
    #[cfg_attr(feature = "exporter", serde(with = "super::recording::labels::activity"))]
    pub(super) held: [f64; Activity::COUNT],
    pub(super) returned: f64,
    pub(super) queries: f64,
    /// Seconds that checkouts spent, by [`Phase::ALL`].
    #[cfg_attr(feature = "exporter", serde(with = "super::recording::labels::phase"))]
    pub(super) phases: [f64; Phase::COUNT],
    pub(super) saturated: f64,
    /// Attempts to connect.
    pub(super) connecting: f64,
    #[cfg_attr(feature = "exporter", serde(with = "super::recording::labels::close_reason"))]
    pub(super) closed: [f64; CloseReason::COUNT],
    /// Errors on connections, by code.
    #[cfg_attr(feature = "exporter", serde(with = "super::recording::labels::errors"))]
    pub(super) errors: Vec<(ErrorCode, f64)>,
    /// Failures to connect, without those of a full server.
    pub(super) connect_failures: f64,
    #[cfg_attr(feature = "exporter", serde(with = "super::recording::labels::error_code"))]
    pub(super) last_connect_failure: Option<ErrorCode>,
    /// Refusals of a full server.
    pub(super) refused: f64,
    pub(super) retries: f64,
    /// Operations that were not retried because the budget was spent.
    pub(super) budget_refusals: f64,
    #[cfg_attr(
        feature = "exporter",
        serde(deserialize_with = "super::recording::lists::at_most::<_, _, MAX_OPERATIONS>")
    )]
    pub(super) operations: Vec<OperationInterval>,
    /// `None` without a cache.
    #[cfg_attr(feature = "exporter", serde(skip_serializing_if = "Option::is_none"))]
    pub(super) caches: Option<CacheActivity>,
}

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

/// Returns whether a connection that was closed for this reason may have been replaced by another.
pub(super) fn may_be_replaced(reason: CloseReason) -> bool {
    !matches!(
        reason,
        CloseReason::ConnectFailed | CloseReason::ConnectAbandoned | CloseReason::Resized | CloseReason::Shutdown
    )
}

fn number(count: usize) -> f64 {
    to_f64(count as u64)
}

/// The smallest number of connections in use that is taken for an exhausted pool.
const MIN_PLATEAU: f64 = 3.0;

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

    /// Returns the connections that were closed and may have been replaced.
    pub(super) fn replaced(&self) -> f64 {
        let reasons = CloseReason::ALL.iter().copied().filter(|reason| may_be_replaced(*reason));
        reasons.map(|reason| self.closed[reason.index()]).sum()
    }

    /// Returns whether all connections of a proxy's pool are in use, `max` of them. One or two are no pool.
    pub(super) fn is_plateau(&self, max: f64) -> bool {
        max >= MIN_PLATEAU && self.used >= max
    }

    /// Returns whether a connection was idle while a checkout waited for capacity: it was woken and not polled.
    pub(super) fn has_unpolled_waiter(&self) -> bool {
        self.idle > 0.0 && self.queued > 0.0 && self.creating == 0.0 && self.suspended == 0.0
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
