//! Whether the task of a checkout polled it when it was woken.
//!
//! A future that is kept and not polled, while its task waits for another one, may time out although all it waited for
//! was there in time. The error should say so.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Wake, Waker};
use std::time::Duration;

use crate::error::LatePoll;
use crate::telemetry::clock::Nanos;
use crate::telemetry::ledger::Recorder;

/// The time between a wake-up and the next poll from which on the poll is late. A busy runtime takes some milliseconds.
const MIN_LATENESS: Duration = Duration::from_millis(250);

/// The waker of a checkout that waits for something other than deadpool's queue. Records when it was woken first, and
/// the latest of its late polls.
pub(super) struct WakeRecord {
    recorder: Recorder,
    state: Mutex<(Waker, Option<LatePoll>)>,
    /// When it was woken after its last poll; zero if it was not.
    woken_at: AtomicU64,
}

impl WakeRecord {
    pub(super) fn new(recorder: &Recorder, task: &Waker) -> Arc<Self> {
        let (recorder, woken_at) = (recorder.clone(), AtomicU64::new(0));
        Arc::new(Self { recorder, state: Mutex::new((task.clone(), None)), woken_at })
    }

    fn state(&self) -> MutexGuard<'_, (Waker, Option<LatePoll>)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a poll by `task` of a checkout that `started` then.
    pub(super) fn polled(&self, task: &Waker, started: Nanos) {
        let task = task.clone();
        let replaced = std::mem::replace(&mut self.state().0, task);
        // Without the lock: it may be the last reference to its task, whose drop may end another checkout.
        drop(replaced);
        let woken_at = self.woken_at.swap(0, Relaxed);
        if woken_at != 0 {
            self.note(started, Nanos::from_nanos(woken_at), self.recorder.now());
        }
    }

    /// Records that a checkout that `started` then was polled at `polled`, after it was ready at `ready`.
    pub(super) fn note(&self, started: Nanos, ready: Nanos, polled: Nanos) {
        let late_poll = &mut self.state().1;
        *late_poll = longer(*late_poll, started, ready, polled);
    }

    pub(super) fn late_poll(&self) -> Option<LatePoll> {
        self.state().1
    }
}

impl Wake for WakeRecord {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let now = self.recorder.now().as_nanos();
        let _ = self.woken_at.compare_exchange(0, now, Relaxed, Relaxed);
        let task = self.state().0.clone();
        task.wake();
    }
}

/// Returns the poll after `ready` at `polled` if it was late, and later than the one that is `known`; otherwise that.
pub(super) fn longer(known: Option<LatePoll>, started: Nanos, ready: Nanos, polled: Nanos) -> Option<LatePoll> {
    let ready_at = ready.duration_since(started);
    let polled_at = polled.duration_since(started);
    let lateness = polled_at.saturating_sub(ready_at);
    let known_lateness = known.map_or(Duration::ZERO, |known| known.polled_at.saturating_sub(known.ready_at));
    if lateness >= MIN_LATENESS && lateness > known_lateness { Some(LatePoll { ready_at, polled_at }) } else { known }
}
