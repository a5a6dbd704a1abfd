//! Who blocks whom: the pool's connections that wait for a lock, and the sessions that hold it.

use std::sync::Arc;
use std::time::Duration;

use super::call_site::CallSite;
use crate::labels::BackendState;
use crate::telemetry::clock::to_f64;
use crate::telemetry::{BlockedBackend, Holder, PoolSnapshot, ServerPoll};

/// How much shorter than the server reports a holder may have held its connection: the two do not read the time at once.
const AGE_TOLERANCE: Duration = Duration::from_millis(100);

/// Who holds or waits for a lock, if it is a connection of this pool.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "exporter", derive(serde::Serialize, serde::Deserialize))]
pub(super) struct LockParty {
    pub(super) operation: Arc<str>,
    pub(super) call_site: Option<CallSite>,
}

/// A connection of the pool that waits for a lock, and the session that blocks it.
#[derive(Clone, Debug)]
#[cfg_attr(feature = "exporter", derive(serde::Serialize, serde::Deserialize))]
pub(super) struct LockBlock {
    pub(super) waiter: LockParty,
    /// The blocker, if it is a connection of this pool.
    pub(super) blocker: Option<LockParty>,
    /// The blocker as the server describes it.
    pub(super) application: Arc<str>,
    pub(super) user: Arc<str>,
    #[cfg_attr(feature = "exporter", serde(with = "super::recording::labels::backend_state"))]
    pub(super) state: BackendState,
    #[cfg_attr(feature = "exporter", serde(default))]
    pub(super) pid: i32,
    /// How long the blocker has been in its state, in seconds.
    #[cfg_attr(feature = "exporter", serde(default))]
    pub(super) state_seconds: f64,
    /// How long the waiter's query has run, in seconds.
    #[cfg_attr(feature = "exporter", serde(default))]
    pub(super) waiting: f64,
}

impl LockParty {
    fn of(holder: &Holder) -> Self {
        Self { operation: Arc::clone(&holder.operation), call_site: holder.call_site.map(CallSite::Code) }
    }
}

impl LockBlock {
    /// Returns the number of the pool's connections that wait for a lock, and who blocks the one that has waited longest.
    pub(super) fn find(snapshot: &PoolSnapshot) -> (f64, Option<Self>) {
        let Some(ServerPoll::Seen(view)) = &snapshot.server else { return (0.0, None) };
        let holder = |pid: i32| snapshot.holders.iter().find(|holder| holder.backend_pid == Some(pid));
        // The view is older than the list of holders: a lock may have been released and its connection have another
        // holder since.
        let is_later = |holder: &&Holder, since: Duration| holder.age + AGE_TOLERANCE < since;
        let mut waiting: Vec<i32> = Vec::new();
        let mut longest: Option<(&BlockedBackend, &Holder)> = None;
        for blocked in &view.blocked {
            let Some(waiter) = holder(blocked.pid) else { continue };
            let blocker = holder(blocked.blocker_pid);
            if is_later(&waiter, blocked.waiting)
                || blocker.as_ref().is_some_and(|blocker| is_later(blocker, blocked.blocker_state_age))
            {
                continue;
            }
            if !waiting.contains(&blocked.pid) {
                waiting.push(blocked.pid);
            }
            // A session that waits itself is not the one to look at.
            let is_root = !view.blocked.iter().any(|other| other.pid == blocked.blocker_pid);
            if is_root && longest.is_none_or(|(longest, _)| blocked.waiting > longest.waiting) {
                longest = Some((blocked, waiter));
            }
        }
        let block = longest.map(|(blocked, waiter)| Self {
            waiter: LockParty::of(waiter),
            blocker: holder(blocked.blocker_pid).map(LockParty::of),
            application: Arc::clone(&blocked.blocker_application),
            user: Arc::clone(&blocked.blocker_user),
            state: blocked.blocker_state,
            pid: blocked.blocker_pid,
            state_seconds: blocked.blocker_state_age.as_secs_f64(),
            waiting: blocked.waiting.as_secs_f64(),
        });
        (to_f64(waiting.len() as u64), block)
    }
}
