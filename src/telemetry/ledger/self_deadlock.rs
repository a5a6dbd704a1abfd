//! The detection of checkouts that wait while their own task holds a connection.

use std::sync::Arc;
use std::time::Duration;

use super::holders::SelfDeadlock;
use super::in_flight::{Entry, InFlight};
use super::state::LedgerState;
use crate::labels::{Activity, Phase};
use crate::telemetry::clock::{Nanos, nanos};
use crate::telemetry::connection::ConnectionStats;
use crate::telemetry::operations::{OperationId, SiteId};

/// How long a checkout waits before its own task is checked for a connection. Shorter waits are no self-deadlock, or a
/// harmless one.
const SELF_DEADLOCK_DELAY: Duration = Duration::from_millis(10);

/// The maximum number of self-deadlocks that wait to be logged; lines are limited anyway.
const MAX_UNREPORTED: usize = 16;

/// Returns the task of a checkout that has waited for capacity for so long that the task is checked for a connection, and
/// since when; `None` once one was found.
fn unexplained_wait(checkout: &InFlight, now: Nanos) -> Option<(u64, Nanos)> {
    let InFlight { task, phase_since, .. } = *checkout;
    let is_long = checkout.phase == Phase::Queue && now.since(phase_since) >= nanos(SELF_DEADLOCK_DELAY);
    (is_long && task != 0 && checkout.own_connection.is_none()).then_some((task, phase_since))
}

/// Returns for which operation and call site this task holds a connection that is blocked by a wait that began at this
/// time.
fn held_by(stats: &ConnectionStats, task: u64, began: Nanos) -> Option<(OperationId, SiteId)> {
    let state = stats.state();
    let holds = state.is_checked_out() && stats.task() == task;
    // A task may run several futures by turns. Only a connection that it held before it began to wait, and has not used
    // since, can be blocked by the wait.
    let wire = stats.wire();
    let is_blocked = state.since <= began
        && wire.last_activity() <= began.after(SELF_DEADLOCK_DELAY)
        && wire.status().activity() != Some(Activity::Executing);
    (holds && is_blocked).then(|| (state.operation, stats.site()))
}

impl InFlight {
    /// Returns whether the checkout has waited so long that its own task may hold a connection, or is known to.
    #[inline]
    pub(super) fn may_wait_for_itself(&self, now: Nanos) -> bool {
        self.phase == Phase::Queue && (self.own_connection.is_some() || unexplained_wait(self, now).is_some())
    }
}

impl SelfDeadlock {
    fn new(entry: &Entry, checkout: &InFlight, held: (OperationId, SiteId)) -> Self {
        let InFlight { operation, site, has_extra, .. } = *checkout;
        let call_site = if has_extra { entry.extra().call_site } else { None };
        Self { operation, site, call_site, held }
    }
}

impl LedgerState {
    /// Detects a checkout that waits for capacity while its own task holds a connection, which it may not return before
    /// it gets another. Done only after [`SELF_DEADLOCK_DELAY`], because scanning all connections for each checkout
    /// that queues would be expensive. `got` is the connection that the checkout obtained, which is ignored. The lock of
    /// a shard is held, and the entry is that of the caller's own checkout unless all are.
    pub(super) fn detect_self_deadlock(
        &mut self,
        entry: &Entry,
        checkout: &mut InFlight,
        now: Nanos,
        got: Option<&ConnectionStats>,
    ) {
        let Some((task, began)) = unexplained_wait(checkout, now) else { return };
        let is_got = |stats: &Arc<ConnectionStats>| got.is_some_and(|got| std::ptr::eq(Arc::as_ptr(stats), got));
        let mut others = self.connections.iter().filter(|stats| !is_got(stats));
        if let Some(held) = others.find_map(|stats| held_by(stats, task, began)) {
            entry.set_own_connection(held);
            checkout.own_connection = Some(held);
            self.count_self_deadlock(SelfDeadlock::new(entry, checkout, held));
        }
    }

    /// Ends the wait of a checkout that may have waited for itself. Returns the checkout as it is then: a reader may
    /// have found a connection of its task just before.
    #[cold]
    pub(super) fn end_own_wait(&mut self, entry: &Entry, got: Option<&ConnectionStats>, at: Nanos) -> Option<InFlight> {
        let mut checkout = entry.get()?;
        self.detect_self_deadlock(entry, &mut checkout, at, got);
        self.count_own_wait(&checkout, got, at);
        Some(checkout)
    }

    /// As [`Self::detect_self_deadlock`], for all checkouts in flight. Scans the connections once, however many wait.
    pub(super) fn detect_self_deadlocks(&mut self, now: Nanos) {
        if self.queue.queued == 0 {
            return;
        }
        let connections = &self.connections;
        let used = connections.iter().enumerate().filter(|(_, stats)| stats.state().is_checked_out());
        let mut holders: Vec<_> = used.map(|(index, stats)| (stats.task(), index)).collect();
        holders.sort_unstable();
        let found = |checkout: &InFlight| {
            let (task, began) = unexplained_wait(checkout, now)?;
            let first = holders.partition_point(|(holder, _)| *holder < task);
            let mut own = holders[first..].iter().take_while(|(holder, _)| *holder == task);
            own.find_map(|(_, index)| held_by(&connections[*index], task, began))
        };
        let found: Vec<_> = self
            .checkouts()
            .filter_map(|(entry, checkout)| {
                let held = found(&checkout)?;
                entry.set_own_connection(held);
                Some(SelfDeadlock::new(entry, &checkout, held))
            })
            .collect();
        for found in found {
            self.count_self_deadlock(found);
        }
    }

    fn count_self_deadlock(&mut self, found: SelfDeadlock) {
        *self.self_deadlocks.entry(found.operation).or_insert(0) += 1;
        if self.unreported_self_deadlocks.len() < MAX_UNREPORTED {
            self.unreported_self_deadlocks.push(found);
        }
    }

    /// Removes and returns the self-deadlocks that were not logged yet. Does not allocate.
    pub(super) fn take_self_deadlocks(&mut self) -> Vec<SelfDeadlock> {
        std::mem::take(&mut self.unreported_self_deadlocks)
    }

    /// Adds the time that a checkout spent in the queue to the connections that its own task holds, which it therefore could
    /// not use. Called when it leaves the queue.
    pub(super) fn count_own_wait(&self, checkout: &InFlight, got: Option<&ConnectionStats>, at: Nanos) {
        if checkout.phase != Phase::Queue || checkout.own_connection.is_none() {
            return;
        }
        let (task, began) = (checkout.task, checkout.phase_since);
        for stats in &self.connections {
            let is_got = got.is_some_and(|got| std::ptr::eq(Arc::as_ptr(stats), got));
            let state = stats.state();
            if !is_got && state.is_checked_out() && stats.task() == task && state.since <= began {
                stats.add_own_wait(at.since(began));
            }
        }
    }

    /// Returns the tasks that wait for capacity while they hold a connection, in ascending order.
    pub(super) fn self_deadlocked_tasks(&self) -> Vec<u64> {
        if self.queue.queued == 0 {
            return Vec::new();
        }
        let checkouts = self.checkouts().map(|(_, checkout)| checkout);
        let waiting = checkouts.filter(|checkout| checkout.phase == Phase::Queue && checkout.own_connection.is_some());
        let mut tasks: Vec<_> = waiting.map(|checkout| checkout.task).collect();
        tasks.sort_unstable();
        tasks.dedup();
        tasks
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Ledger, Limits};
    use super::*;
    use crate::labels::Outcome;
    use crate::telemetry::clock::Clock;

    fn at(millis: u64) -> Nanos {
        Nanos::ZERO.after(Duration::from_millis(millis))
    }

    /// Returns a connection that this task checked out at this time.
    fn held(task: u64, since: Nanos) -> Arc<ConnectionStats> {
        let stats = Arc::new(ConnectionStats::new(OperationId::OTHER, Nanos::ZERO));
        stats.set_holder(SiteId::NONE, task);
        stats.set_used(OperationId::OTHER, since);
        stats
    }

    #[test]
    fn reading_finds_each_wait_of_a_task_for_itself() {
        let ledger = Ledger::new("test".into(), Limits::for_tests(), Clock::mock().0);
        // In no order; task 3 holds one that it checked out while it waited, and one from before.
        let mut held: Vec<_> =
            [(7, 1), (3, 50), (9, 1), (3, 2), (0, 1)].map(|(task, since)| held(task, at(since))).into();
        let idle = self::held(5, at(1));
        idle.set_idle(at(1));
        held.push(idle);
        ledger.state().connections = held;
        let tickets = [3, 4, 5, 9, 3, 0].map(|task| ledger.begin(&InFlight::for_tests(task, at(10)), None));
        let own = |state: &LedgerState| {
            tickets.map(|ticket| state.checkout(ticket).is_some_and(|(_, checkout)| checkout.own_connection.is_some()))
        };
        {
            let mut state = ledger.freeze();
            state.detect_self_deadlocks(at(19));
            assert_eq!(own(&state), [false; 6], "not waited for long enough");
            state.detect_self_deadlocks(at(60));
            assert_eq!(own(&state), [true, false, false, true, true, false]);
            assert_eq!((state.self_deadlocked_tasks(), state.take_self_deadlocks().len()), (vec![3, 9], 3));
            // Each is counted once, by this or by the end of the wait.
            state.detect_self_deadlocks(at(70));
        }
        for ticket in tickets {
            assert!(ledger.finish(ticket, (Outcome::Timeout, u64::MAX), None, at(80)).is_none());
        }
        let state = ledger.freeze();
        assert_eq!((state.self_deadlocks[&OperationId::OTHER], state.self_deadlocked_tasks()), (3, Vec::new()));
    }

    #[test]
    fn end_of_a_wait_finds_that_its_task_waited_for_itself() {
        let ledger = Ledger::new("test".into(), Limits::for_tests(), Clock::mock().0);
        let own = held(3, at(1));
        ledger.state().connections.push(Arc::clone(&own));
        let ticket = ledger.begin(&InFlight::for_tests(3, at(10)), None);
        let entered = ledger.change_phase(ticket, Phase::Connect, at(50));
        assert_eq!(entered.found.len(), 1);
        let ended = ledger.finish(ticket, (Outcome::Ok, 0), None, at(60));
        assert_eq!(ended.map(|ended| ended.checkout.phase), Some(Phase::Connect));
        assert_eq!(ledger.freeze().self_deadlocks[&OperationId::OTHER], 1);
    }
}
