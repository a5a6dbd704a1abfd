//! Who holds connections and who waits for one, and which of the holders seem to have forgotten theirs.

use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use super::Ledger;
use super::books::{Books, Ticket};
use crate::event::{Activity, ConnectionState, Phase};
use crate::telemetry::clock::{Nanos, nanos};
use crate::telemetry::operations::{OperationId, SiteId};
use crate::telemetry::seat::{Seat, Standing};
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
    pub tended: bool,
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

impl Books {
    pub(super) fn holders(&self, ledger: &Ledger, now: Nanos) -> Vec<Holder> {
        self.holders_of(self.seats.iter().map(|seat| (seat, seat.standing())), ledger, now)
    }

    pub(super) fn holders_of<'a>(
        &self,
        standings: impl Iterator<Item = (&'a Arc<Seat>, Standing)>,
        ledger: &Ledger,
        now: Nanos,
    ) -> Vec<Holder> {
        let mut holders: Vec<_> = standings
            .filter(|(_, standing)| standing.state == ConnectionState::Used)
            .map(|(seat, standing)| {
                let wire = seat.wire();
                Holder {
                    operation: ledger.operations().shared_name(standing.operation),
                    call_site: ledger.operations().location(seat.site()),
                    age: now.duration_since(standing.since),
                    activity: wire.status().activity(),
                    silent: now.duration_since(wire.active().max(standing.since)),
                    queries: wire.queries_of(seat.word()),
                    backend_pid: wire.backend(),
                    tended: standing.tended,
                    suspected_leak: is_suspect(seat, standing, ledger, now),
                    // The next holder's trace is not to be taken for this one's.
                    trace: seat.trace_ids().filter(|_| seat.standing() == standing),
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
        for seat in &self.seats {
            let standing = seat.standing();
            let suspected = is_suspect(seat, standing, ledger, now);
            if suspected != seat.is_suspected() && standing.state == ConnectionState::Used {
                let (site, trace) = (seat.site(), seat.trace());
                seat.suspect(suspected);
                if seat.standing() != standing {
                    // It came back in the meantime, and the next holder is not to be taken for this one.
                    seat.suspect(false);
                    continue;
                }
                let age = now.duration_since(standing.since);
                changes.push(Suspicion { suspected, operation: standing.operation, site, age, trace });
            }
        }
        changes
    }
}

/// Whether it is held past the threshold, and silent for as long, while the server has nothing to do.
pub(super) fn is_suspect(seat: &Seat, standing: Standing, ledger: &Ledger, now: Nanos) -> bool {
    let Some(threshold) = ledger.limits().leak_threshold.map(nanos) else { return false };
    let activity = seat.wire().status().activity();
    standing.state == ConnectionState::Used
        && !standing.tended
        && now.since(standing.since) >= threshold
        && now.since(seat.wire().active()) >= threshold
        // Where the wire is not read nobody knows whether it is silent.
        && activity.is_some_and(|activity| activity != Activity::Executing)
}

fn own_hold((operation, site): (OperationId, SiteId), ledger: &Ledger) -> OwnHold {
    OwnHold { operation: ledger.operations().shared_name(operation), call_site: ledger.operations().location(site) }
}
