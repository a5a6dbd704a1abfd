//! Who holds connections and who waits for one, and which of the holders seem to have forgotten theirs.

use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use super::Ledger;
use super::books::{LedgerState, Ticket};
use crate::labels::{Activity, ConnectionState, Phase};
use crate::telemetry::clock::{Nanos, nanos};
use crate::telemetry::operations::{OperationId, SiteId};
use crate::telemetry::seat::{ConnectionStats, UnpackedState};
use crate::telemetry::trace::{Trace, TraceContext};

/// A connection that is held.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Holder {
    /// For which operation.
    pub operation: Arc<str>,
    /// Where it was asked for; unknown if there are more such places than the pool keeps (some thousands).
    pub call_site: Option<&'static Location<'static>>,
    /// For how long.
    pub age: Duration,
    /// What it does now; unknown where the wire is not read.
    pub activity: Option<Activity>,
    /// For how long nothing has passed on its wire, at most as long as it is held.
    pub silent: Duration,
    /// Queries sent since it was checked out.
    pub queries: u64,
    /// The server's process, as in `pg_stat_activity.pid`.
    pub backend_pid: Option<i32>,
    /// Whether it is the pool itself that uses it on behalf of the operation, to ping it or to clean it.
    pub maintenance: bool,
    /// Whether it is held past `leak_threshold`, silent and not executing.
    pub suspected_leak: bool,
    /// The span in which it was checked out, if that was sampled.
    pub trace: Option<TraceContext>,
}

/// A checkout that waits.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Waiter {
    /// For which operation.
    pub operation: Arc<str>,
    /// Where it was asked for.
    pub call_site: &'static Location<'static>,
    /// What it waits for.
    pub phase: Phase,
    /// For how long.
    pub age: Duration,
    /// The connection that its own task holds while it waits for capacity, if it holds one; looked for when it has
    /// waited for 10 ms.
    pub own: Option<OwnHold>,
    /// The span in which it began to wait, if that was sampled.
    pub trace: Option<TraceContext>,
}

/// A connection that is held by the very task that waits for another.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OwnHold {
    /// For which operation.
    pub operation: Arc<str>,
    /// Where it was asked for, if that is known.
    pub call_site: Option<&'static Location<'static>>,
}

/// A holder that became suspect, or no longer is.
#[derive(Clone, Debug)]
pub(crate) struct Suspicion {
    pub(crate) suspected: bool,
    pub(crate) operation: OperationId,
    pub(crate) site: SiteId,
    pub(crate) age: Duration,
    pub(crate) trace: Option<Trace>,
}

impl LedgerState {
    pub(super) fn holders(&self, ledger: &Ledger, now: Nanos) -> Vec<Holder> {
        self.holders_of(self.seats.iter().map(|stats| (stats, stats.unpacked_state())), ledger, now)
    }

    pub(super) fn holders_of<'a>(
        &self,
        standings: impl Iterator<Item = (&'a Arc<ConnectionStats>, UnpackedState)>,
        ledger: &Ledger,
        now: Nanos,
    ) -> Vec<Holder> {
        let mut holders: Vec<_> = standings
            .filter(|(_, unpacked_state)| unpacked_state.state == ConnectionState::Used)
            .map(|(stats, unpacked_state)| {
                let wire = stats.wire();
                Holder {
                    operation: ledger.operations().shared_name(unpacked_state.operation),
                    call_site: ledger.operations().location(stats.site()),
                    age: now.duration_since(unpacked_state.since),
                    activity: wire.status().activity(),
                    silent: now.duration_since(wire.active().max(unpacked_state.since)),
                    queries: wire.queries_of(stats.word()),
                    backend_pid: wire.backend(),
                    maintenance: unpacked_state.maintenance,
                    suspected_leak: is_suspect(stats, unpacked_state, ledger, now),
                    // The next holder's trace is not to be taken for this one's.
                    trace: stats.trace_ids().filter(|_| stats.unpacked_state() == unpacked_state),
                }
            })
            .collect();
        holders.sort_by_key(|holder| std::cmp::Reverse(holder.age));
        holders
    }

    pub(super) fn waiters(&mut self, ledger: &Ledger, now: Nanos) -> Vec<Waiter> {
        self.look_for_owns(now);
        let mut waiters: Vec<_> = self
            .in_flight
            .iter()
            .map(|(_, checkout)| Waiter {
                operation: ledger.operations().shared_name(checkout.operation),
                call_site: checkout.call_site,
                phase: checkout.phase,
                age: now.duration_since(checkout.started),
                own: checkout.own.map(|own| own_hold(own, ledger)),
                trace: checkout.trace.as_ref().map(|trace| trace.within.ids()),
            })
            .collect();
        waiters.sort_by_key(|waiter| std::cmp::Reverse(waiter.age));
        waiters
    }

    /// What the task of a checkout in flight held itself when it began to wait.
    pub(super) fn own_hold(&mut self, ticket: Ticket, ledger: &Ledger, now: Nanos) -> Option<OwnHold> {
        self.look_for_own(ticket, now, None);
        self.in_flight.get(ticket.key())?.own.map(|own| own_hold(own, ledger))
    }

    /// Looks for holders that became suspect since somebody last looked, and for those that no longer are. Nothing
    /// runs on its own for this: it is done whenever somebody asks for the pool's state.
    pub(super) fn review(&self, ledger: &Ledger, now: Nanos) -> Vec<Suspicion> {
        let mut changes = Vec::new();
        for stats in &self.seats {
            let unpacked_state = stats.unpacked_state();
            let suspected = is_suspect(stats, unpacked_state, ledger, now);
            if suspected != stats.is_suspected() && unpacked_state.state == ConnectionState::Used {
                let (site, trace) = (stats.site(), stats.trace());
                stats.suspect(suspected);
                if stats.unpacked_state() != unpacked_state {
                    // It came back in the meantime, and the next holder is not to be taken for this one.
                    stats.suspect(false);
                    continue;
                }
                let age = now.duration_since(unpacked_state.since);
                changes.push(Suspicion { suspected, operation: unpacked_state.operation, site, age, trace });
            }
        }
        changes
    }
}

/// Whether it is held past the threshold, and silent for as long, while the server has nothing to do.
pub(super) fn is_suspect(stats: &ConnectionStats, unpacked_state: UnpackedState, ledger: &Ledger, now: Nanos) -> bool {
    let Some(threshold) = ledger.limits().leak_threshold.map(nanos) else { return false };
    let activity = stats.wire().status().activity();
    unpacked_state.state == ConnectionState::Used
        && !unpacked_state.maintenance
        && now.since(unpacked_state.since) >= threshold
        && now.since(stats.wire().active()) >= threshold
        // Where the wire is not read nobody knows whether it is silent.
        && activity.is_some_and(|activity| activity != Activity::Executing)
}

fn own_hold((operation, site): (OperationId, SiteId), ledger: &Ledger) -> OwnHold {
    OwnHold { operation: ledger.operations().shared_name(operation), call_site: ledger.operations().location(site) }
}
