//! Holders, waiters, and suspected leaks.

use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use super::Ledger;
use super::in_flight::{Entry, InFlight};
use super::state::LedgerState;
use crate::labels::{Activity, Phase};
use crate::telemetry::clock::{Nanos, nanos};
use crate::telemetry::connection::{ConnectionStats, UnpackedState};
use crate::telemetry::operations::{OperationId, SiteId};
use crate::telemetry::trace::{SampledSpan, TraceContext};

/// A connection in use.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Holder {
    /// The name of the operation.
    pub operation: Arc<str>,
    /// The call site of the checkout; `None` if the pool has more call sites than it records (some thousands).
    pub call_site: Option<&'static Location<'static>>,
    /// The time since the checkout.
    pub age: Duration,
    /// The current activity; `None` if the wire is not observed.
    pub activity: Option<Activity>,
    /// The time since the last byte was sent or received, at most `age`.
    pub silent: Duration,
    /// The number of queries sent since the checkout.
    pub queries: u64,
    /// The process id of the server's backend, as in `pg_stat_activity.pid`.
    pub backend_pid: Option<i32>,
    /// Whether the pool itself uses the connection, to ping or reset it on behalf of the operation.
    pub maintenance: bool,
    /// Whether the connection is held longer than `leak_threshold`, silent and not executing.
    pub suspected_leak: bool,
    /// Whether the holder's task waits for another connection of the pool, see [`Waiter::own_connection`].
    pub waits_for_own_pool: bool,
    /// The span of the checkout, if it is sampled.
    pub trace: Option<TraceContext>,
    /// The method and route of the request that it serves, as in `GET /orders/{id}`; `None` unless a layer of
    /// [`middleware`](crate::middleware) serves it.
    pub request: Option<Arc<str>>,
}

/// A checkout in flight.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Waiter {
    /// The name of the operation.
    pub operation: Arc<str>,
    /// The call site of the checkout.
    pub call_site: &'static Location<'static>,
    /// What it waits for.
    pub phase: Phase,
    /// The time since the checkout's first poll.
    pub age: Duration,
    /// A connection that the waiting task itself holds, if any: the checkout may be waiting for itself. Detected after
    /// 10 ms of waiting for capacity.
    pub own_connection: Option<OwnConnection>,
    /// The span in which it began to wait, if it is sampled.
    pub trace: Option<TraceContext>,
    /// The method and route of the request that it is for, as in [`Holder::request`].
    pub request: Option<Arc<str>>,
}

/// A connection held by the same task that waits for another one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OwnConnection {
    /// The name of the operation that it was checked out for.
    pub operation: Arc<str>,
    /// The call site of its checkout, if known.
    pub call_site: Option<&'static Location<'static>>,
}

/// A checkout that waits while its own task holds a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct SelfDeadlock {
    pub(super) operation: OperationId,
    pub(super) site: SiteId,
    /// The call site, if the pool's table of them is full.
    pub(super) call_site: Option<&'static Location<'static>>,
    /// The operation and the call site of the held connection.
    pub(super) held: (OperationId, SiteId),
}

/// A holder that became a suspected leak, or no longer is one.
#[derive(Clone, Debug)]
pub(super) struct SuspicionChange {
    pub(super) suspected: bool,
    pub(super) operation: OperationId,
    pub(super) site: SiteId,
    pub(super) age: Duration,
    pub(super) span: Option<SampledSpan>,
}

impl LedgerState {
    pub(super) fn holders(&mut self, ledger: &Ledger, now: Nanos) -> Vec<Holder> {
        self.detect_self_deadlocks(now);
        self.holders_of(self.connections.iter().map(|stats| (stats, stats.state())), ledger, now)
    }

    pub(super) fn holders_of<'a>(
        &self,
        states: impl Iterator<Item = (&'a Arc<ConnectionStats>, UnpackedState)>,
        ledger: &Ledger,
        now: Nanos,
    ) -> Vec<Holder> {
        let deadlocked = self.self_deadlocked_tasks();
        let mut holders: Vec<_> = states
            .filter(|(_, state)| state.is_used())
            .map(|(stats, state)| {
                let (wire, request) = (stats.wire(), stats.request());
                Holder {
                    operation: ledger.operations().shared_name(state.operation),
                    call_site: ledger.operations().location(stats.site()),
                    age: now.duration_since(state.since),
                    activity: wire.status().activity(),
                    silent: now.duration_since(wire.last_activity().max(state.since)),
                    queries: wire.queries_of(stats.packed_state()),
                    backend_pid: wire.backend(),
                    maintenance: state.maintenance,
                    suspected_leak: is_suspected_leak(stats, state, ledger, now),
                    waits_for_own_pool: state.is_checked_out() && deadlocked.binary_search(&stats.task()).is_ok(),
                    // If the state has changed, the span and the request may already be the next holder's.
                    trace: stats.span_ids().filter(|_| stats.state() == state),
                    request: request.filter(|_| stats.state() == state).map(|request| ledger.routes().text(request)),
                }
            })
            .collect();
        holders.sort_by_key(|holder| std::cmp::Reverse(holder.age));
        holders
    }

    pub(super) fn waiters(&mut self, ledger: &Ledger, now: Nanos) -> Vec<Waiter> {
        self.detect_self_deadlocks(now);
        self.waiters_where(ledger, now, |_| true)
    }

    /// Returns the waiters whose task holds a connection. Those were detected by the reading of the state.
    pub(super) fn waiters_with_connection(&self, ledger: &Ledger, now: Nanos) -> Vec<Waiter> {
        self.waiters_where(ledger, now, |checkout| checkout.own_connection.is_some())
    }

    fn waiters_where(&self, ledger: &Ledger, now: Nanos, is_listed: impl Fn(&InFlight) -> bool) -> Vec<Waiter> {
        let listed = self.checkouts().filter(|(_, checkout)| is_listed(checkout));
        let mut waiters: Vec<_> = listed
            .map(|(entry, checkout)| Waiter {
                operation: ledger.operations().shared_name(checkout.operation),
                call_site: entry.call_site(&checkout, ledger.operations()),
                phase: checkout.phase,
                age: now.duration_since(checkout.started),
                own_connection: checkout.own_connection.map(|own| own_connection(own, ledger)),
                trace: if checkout.has_extra {
                    entry.extra().trace.as_ref().map(|trace| trace.within.ids())
                } else {
                    None
                },
                request: checkout.request.map(|request| ledger.routes().text(request)),
            })
            .collect();
        waiters.sort_by_key(|waiter| std::cmp::Reverse(waiter.age));
        waiters
    }

    /// Returns what a checkout in flight waits for and since when, and the connection that its task itself holds, if any.
    /// The lock of a shard is held.
    pub(super) fn wait_state(
        &mut self,
        entry: &Entry,
        ledger: &Ledger,
        now: Nanos,
    ) -> Option<(Phase, Nanos, Option<OwnConnection>)> {
        let mut checkout = entry.get()?;
        self.detect_self_deadlock(entry, &mut checkout, now, None);
        let own = checkout.own_connection.map(|own| own_connection(own, ledger));
        Some((checkout.phase, checkout.phase_since, own))
    }

    /// Returns the holders that became suspected leaks, or no longer are, since the last call. No background task does
    /// this: it happens whenever the state of the pool is read.
    pub(super) fn review_suspicions(&self, ledger: &Ledger, now: Nanos) -> Vec<SuspicionChange> {
        let mut changes = Vec::new();
        for stats in &self.connections {
            let state = stats.state();
            let suspected = is_suspected_leak(stats, state, ledger, now);
            if suspected != stats.is_suspected() && state.is_used() {
                let (site, span) = (stats.site(), stats.span());
                stats.set_suspected(suspected);
                if stats.state() != state {
                    // It was returned meanwhile, and the next holder must not be suspected.
                    stats.set_suspected(false);
                    continue;
                }
                let age = now.duration_since(state.since);
                changes.push(SuspicionChange { suspected, operation: state.operation, site, age, span });
            }
        }
        changes
    }
}

/// Returns whether the connection has been held, and silent, for longer than the threshold while the server is not
/// executing.
pub(super) fn is_suspected_leak(stats: &ConnectionStats, state: UnpackedState, ledger: &Ledger, now: Nanos) -> bool {
    let Some(threshold) = ledger.limits().leak_threshold.map(nanos) else { return false };
    let activity = stats.wire().status().activity();
    state.is_checked_out()
        && now.since(state.since) >= threshold
        && now.since(stats.wire().last_activity()) >= threshold
        // Without observing the wire it is unknown whether the connection is silent.
        && activity.is_some_and(|activity| activity != Activity::Executing)
}

fn own_connection((operation, site): (OperationId, SiteId), ledger: &Ledger) -> OwnConnection {
    OwnConnection {
        operation: ledger.operations().shared_name(operation),
        call_site: ledger.operations().location(site),
    }
}
