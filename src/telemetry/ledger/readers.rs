//! What is read from a ledger, and under which locks.

use std::sync::atomic::{Ordering::SeqCst, fence};
use std::time::Duration;

use super::diagnosed::UNSAMPLED_INTERVAL;
use super::holders::{SelfDeadlock, SuspicionChange};
use super::in_flight::{Ticket, thread_number};
use super::state::LedgerState;
use super::{Connections, Holder, Ledger, OwnConnection, PoolSnapshot, PoolUsage, SnapshotBuffer, Status, Waiter};
use crate::labels::{ConnectionState, Outcome, Phase};
use crate::telemetry::clock::Nanos;
use crate::telemetry::histogram::Histogram;
use crate::telemetry::operations::OperationId;
use crate::telemetry::server::OwnBackends;
use crate::telemetry::trace;

impl Ledger {
    /// Returns whether no connection is live and no checkout is in flight.
    pub(crate) fn is_drained(&self) -> bool {
        let state = self.freeze();
        state.connections.is_empty() && state.in_flight_count == 0
    }

    /// Returns what a checkout in flight waits for and since when, and the connection that its task itself holds, if any.
    /// Called by the checkout's own task.
    pub(crate) fn wait_state(&self, ticket: Ticket) -> (Phase, Nanos, Option<OwnConnection>) {
        let now = self.clock.now();
        let mut state = self.state();
        let mut shard = self.waiting.local(thread_number());
        let entry = shard.entry(ticket.key()).map(|(entry, _)| entry);
        let wait = entry.and_then(|entry| state.wait_state(entry, self, now));
        drop(shard);
        let found = state.take_self_deadlocks();
        drop(state);
        self.report_self_deadlocks(&found);
        wait.unwrap_or((Phase::Queue, now, None))
    }

    /// Returns whether more connections are idle than `pool_size` and the waiting checkouts account for.
    pub(crate) fn has_surplus(&self) -> bool {
        // A return and a checkout that leaves the queue each call this after their change: of the two fences, the later
        // one comes after both changes.
        fence(SeqCst);
        // Mostly, one of these suffices: however many connections are idle, or however many checkouts wait. A checkout that is
        // being served changes both, and is seen by halves without the locks of the shards.
        let pool_size = self.limits().pool_size;
        let max_idle = pool_size.saturating_add(self.contended.queue.waiting());
        if self.hints.live() <= max_idle || self.connections().idle <= pool_size {
            return false;
        }
        let state = self.freeze();
        Connections::of(state.states()).idle > state.max_idle(self.limits().pool_size)
    }

    /// Adds the backends that belong to the pool.
    pub(crate) fn add_own_backends(&self, own: &mut OwnBackends) {
        let state = self.state();
        for stats in &state.connections {
            match stats.wire().backend() {
                Some(pid) => drop(own.pids.insert(pid)),
                // Its wire is not observed.
                None => own.unknown |= stats.state().label != ConnectionState::Creating,
            }
        }
        own.unpooled += state.unpooled.open_count();
        own.pids.extend(self.server.backends());
    }

    /// Returns whether the pool has less than its maximum of connections.
    pub(crate) fn has_room(&self) -> bool {
        let state = self.state();
        state.connections.len() < self.limits().max()
    }

    /// Returns the numbers of connections by state, without the locks of the shards.
    pub(crate) fn connections(&self) -> Connections {
        Connections::of(self.state().states())
    }

    /// Returns the numbers of connections and checkouts.
    pub(crate) fn status(&self) -> Status {
        self.freeze().status(&self.limits())
    }

    /// Returns the pool's usage. The cost does not depend on the number of waiters, because many may time out together
    /// and each calls this.
    pub(crate) fn usage(&self) -> PoolUsage {
        let now = self.clock.now();
        let (usage, changes) = {
            let mut state = self.freeze();
            let first = state.first_in_queue();
            (state.usage(self, now, first), state.review_suspicions(self, now))
        };
        self.report_suspicions(&changes);
        usage
    }

    /// Returns the holders of connections, oldest first.
    pub(crate) fn holders(&self) -> Vec<Holder> {
        let now = self.clock.now();
        let (holders, changes, found) = {
            let mut state = self.freeze();
            (state.holders(self, now), state.review_suspicions(self, now), state.take_self_deadlocks())
        };
        self.report_suspicions(&changes);
        self.report_self_deadlocks(&found);
        holders
    }

    /// Returns the checkouts in flight, oldest first.
    pub(crate) fn waiters(&self) -> Vec<Waiter> {
        let now = self.clock.now();
        let (waiters, found) = {
            let mut state = self.freeze();
            (state.waiters(self, now), state.take_self_deadlocks())
        };
        self.report_self_deadlocks(&found);
        waiters
    }

    /// Returns everything that the pool has recorded, at one point in time.
    #[must_use]
    pub(crate) fn snapshot(&self) -> PoolSnapshot {
        let mut buffer = SnapshotBuffer::new();
        let now = self.read_with(&mut buffer, LedgerState::read_holders);
        self.diagnose_if_due(now, &mut buffer);
        buffer.into_snapshot()
    }

    /// Returns a snapshot for the series of the pool's name, which include the pool that this one has replaced.
    pub(crate) fn collected_snapshot(&self, holders: bool) -> PoolSnapshot {
        self.close_idle();
        let mut buffer = SnapshotBuffer::new();
        if holders {
            let now = self.read_with(&mut buffer, LedgerState::read_holders);
            self.diagnose_if_due(now, &mut buffer);
        } else if !self.sample_unsampled(&mut buffer) {
            self.read_with(&mut buffer, |_, _, _, _| {});
            buffer.set_diagnosis(self.verdict(), self.sizing());
        }
        let mut snapshot = buffer.into_snapshot();
        self.add_others(&mut snapshot, holders);
        snapshot
    }

    /// Reads a snapshot without holders and waiters, including the pool that this one has replaced, into a buffer.
    #[cfg_attr(not(feature = "exporter"), allow(dead_code, reason = "only the exporter reuses a buffer"))]
    pub(crate) fn read(&self, buffer: &mut SnapshotBuffer) {
        self.record_unsampled(self.clock.now());
        self.read_or_sample(buffer, UNSAMPLED_INTERVAL, Duration::ZERO);
    }

    /// Reads a snapshot as [`Self::read`] does, and diagnoses it as [`Self::sample`] does.
    #[cfg_attr(not(feature = "exporter"), allow(dead_code, reason = "only the exporter reuses a buffer"))]
    pub(crate) fn read_or_sample(&self, buffer: &mut SnapshotBuffer, interval: Duration, late: Duration) {
        self.close_idle();
        if !self.sample(buffer, interval, late) {
            self.read_with(buffer, |_, _, _, _| {});
            buffer.set_diagnosis(self.verdict(), self.sizing());
        }
        self.add_others(buffer.snapshot_mut(), false);
    }

    /// Reads a snapshot into a buffer, and calls `read_more` under the same lock. Returns the time of the snapshot.
    pub(super) fn read_with(
        &self,
        buffer: &mut SnapshotBuffer,
        read_more: impl FnOnce(&mut LedgerState, &Self, Nanos, &mut SnapshotBuffer),
    ) -> Nanos {
        let now = self.clock.now();
        let (changes, found) = {
            let mut state = self.freeze_with_totals();
            let changes = state.review_suspicions(self, now);
            state.read(self, now, buffer);
            read_more(&mut state, self, now, buffer);
            (changes, state.take_self_deadlocks())
        };
        self.report_suspicions(&changes);
        self.report_self_deadlocks(&found);
        // Not part of the consistent state, so read without its lock.
        buffer.read_unlocked(self);
        now
    }

    /// Logs changes of suspected leaks, and adds events to the holders' spans.
    fn report_suspicions(&self, changes: &[SuspicionChange]) {
        for SuspicionChange { suspected, operation, site, age, span } in changes {
            let (id, operation) = (*operation, self.operations.name(*operation));
            let call_site = self.operations.location(*site);
            if *suspected {
                self.log().leak_suspected((id, operation), call_site, *age);
                if let Some(span) = span {
                    trace::record_suspected_leak(span, operation, *age);
                }
            } else {
                self.log().suspect_used(operation, call_site, *age);
            }
        }
    }

    /// Logs checkouts that wait while their own task holds a connection.
    pub(super) fn report_self_deadlocks(&self, found: &[SelfDeadlock]) {
        for SelfDeadlock { operation, site, call_site, held: (held_operation, held_site) } in found {
            let waiting = (self.operations.name(*operation), self.operations.location(*site).or(*call_site));
            let held = (self.operations.name(*held_operation), self.operations.location(*held_site));
            self.log().self_deadlock(waiting, held);
        }
    }

    pub(super) fn read_durations(&self, operation: OperationId, histograms: &mut [Histogram; Outcome::COUNT]) {
        match self.durations[operation.index()].get() {
            Some(durations) => {
                for (duration, histogram) in durations.iter().zip(histograms) {
                    match duration.get() {
                        Some(duration) => duration.read_into(histogram),
                        None => histogram.clear(),
                    }
                }
            }
            None => histograms.iter_mut().for_each(Histogram::clear),
        }
    }
}
