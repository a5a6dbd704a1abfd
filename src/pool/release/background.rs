//! Work on connections that no checkout waits for, and its end if nothing drives it: resets, closing connections, and
//! attempts to connect whose checkouts have ended.
//!
//! Such work runs in the runtime of its connection, and is bounded in time by a timer of that runtime. A runtime that
//! exists but is not driven, as a current-thread runtime outside `block_on`, would keep the connection's place for ever.
//! Therefore each checkout that waits looks for overdue work from time to time, and drops it, which frees the place.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use slab::Slab;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::super::shared::Shared;

/// How long work may exceed its own time limit before it counts as overdue.
const OVERDUE_GRACE: Duration = Duration::from_millis(100);

/// The work of one pool that is under way.
#[derive(Debug, Default)]
pub(in crate::pool) struct Background {
    works: Mutex<Slab<Arc<Work>>>,
    count: AtomicUsize,
}

type WorkFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

struct Work {
    overdue_at: Instant,
    /// `None` once it has ended. Locked while it is polled.
    future: Mutex<Option<WorkFuture>>,
    /// The task that polls it.
    task: OnceLock<AbortHandle>,
}

impl std::fmt::Debug for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Work").field("overdue_at", &self.overdue_at).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Background {
    /// Spawns work that ends within `limit` if `runtime` runs. It is dropped if the runtime has shut down, and may be
    /// dropped once it is overdue.
    pub(in crate::pool) fn spawn(
        &self,
        shared: &Arc<Shared>,
        runtime: &Handle,
        limit: Duration,
        work: impl Future<Output = ()> + Send + 'static,
    ) {
        let overdue_at = Instant::now() + limit + OVERDUE_GRACE;
        let work = Arc::new(Work { overdue_at, future: Mutex::new(Some(Box::pin(work))), task: OnceLock::new() });
        let mut works = lock(&self.works);
        let key = works.insert(Arc::clone(&work));
        self.count.fetch_add(1, SeqCst);
        drop(works);
        let task = WorkTask { shared: Arc::clone(shared), key, work: Arc::clone(&work) };
        let _ = work.task.set(runtime.spawn(task).abort_handle());
    }

    /// Forgets work that has ended. Repeated calls have no effect.
    fn remove(&self, key: usize, work: &Arc<Work>) {
        let mut works = lock(&self.works);
        // The key may belong to other work by now.
        if works.get(key).is_some_and(|current| Arc::ptr_eq(current, work)) {
            works.remove(key);
            self.count.fetch_sub(1, SeqCst);
        }
    }

    /// Drops the work that is overdue, unless it is being polled.
    pub(in crate::pool) fn drop_overdue(&self) {
        if self.count.load(SeqCst) == 0 {
            return;
        }
        let now = Instant::now();
        let overdue: Vec<_> = lock(&self.works)
            .iter()
            .filter(|(_, work)| work.overdue_at <= now)
            .map(|(key, work)| (key, Arc::clone(work)))
            .collect();
        for (key, work) in overdue {
            let future = work.future.try_lock().ok().and_then(|mut future| future.take());
            // Dropped without the lock.
            if future.is_some() {
                drop(future);
                self.remove(key, &work);
                // If its runtime runs again, the task ends.
                if let Some(task) = work.task.get() {
                    task.abort();
                }
            }
        }
    }
}

/// The task that polls work.
struct WorkTask {
    shared: Arc<Shared>,
    key: usize,
    work: Arc<Work>,
}

impl Future for WorkTask {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match &mut *lock(&self.work.future) {
            Some(future) => future.as_mut().poll(cx),
            None => Poll::Ready(()),
        }
    }
}

impl Drop for WorkTask {
    fn drop(&mut self) {
        self.shared.background.remove(self.key, &self.work);
        let future = lock(&self.work.future).take();
        drop(future);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tokio::runtime::Builder;

    use super::*;
    use crate::config::Settings;
    use crate::telemetry::Collector;
    use crate::telemetry::clock::Clock;
    use crate::telemetry::ledger::{Ledger, Limits, Recorder};

    #[test]
    fn dropped_work_of_an_undriven_runtime_is_forgotten() {
        let runtime = || Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let (undriven, other) = (runtime(), runtime());
        let (clock, _) = Clock::mock();
        let ledger = Arc::new(Ledger::new("test".into(), Limits::for_tests(), clock));
        let shared = Arc::new(Shared::new(Recorder::new(ledger), Settings::default(), false, Collector::new()));
        let background = &shared.background;
        let left = || (lock(&background.works).len(), background.count.load(SeqCst));
        let spawn = |limit| background.spawn(&shared, undriven.handle(), limit, std::future::pending());
        other.block_on(async {
            spawn(Duration::ZERO);
            assert_eq!(left(), (1, 1));
            tokio::time::advance(OVERDUE_GRACE).await;
            background.drop_overdue();
            assert_eq!(left(), (0, 0));
            // Has the same key.
            spawn(Duration::from_secs(3600));
        });
        undriven.block_on(tokio::task::yield_now());
        assert_eq!(left(), (1, 1));
        drop(undriven);
        assert_eq!(left(), (0, 0));
    }
}
