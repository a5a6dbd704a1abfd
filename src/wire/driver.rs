//! Whether a connection's task has requests in its channel.
//!
//! A caller's requests go through a channel to the connection's task, and reach the wire only when that task has run. A
//! future that is dropped right after its first poll leaves its request in the channel, and so does a dropped
//! transaction: its ROLLBACK. A connection returned at that moment looks clean but is not.
//!
//! Sending wakes the task. The task therefore runs with a waker that records whether the task was woken and has not run
//! since, or is running; if neither, the channel is empty. (One gap of some nanoseconds remains when two threads send
//! at once: the second may be done before the first, which has taken the waker, has called it. That requires a thread
//! other than the caller's to drop a statement at the very moment of the return.)

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, OnceLock, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use crate::sync::atomic::Ordering::SeqCst;
use crate::sync::atomic::{AtomicBool, AtomicU8};
use crate::sync::{Mutex, MutexGuard};
use crate::telemetry::connection::ConnectionStats;
use crate::telemetry::wire::SessionStatus;

/// The task was woken, and has not started to run since.
const WOKEN: u8 = 1;
/// The task is running.
const RUNNING: u8 = 2;

/// How often the state of a running task is read before the task counts as unsettled: it is about to return.
const SETTLE_SPINS: usize = 20;

/// The activity of a connection's task. Aligned to its own cache lines, since it is written at each wake and each run
/// of the task, on any thread.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct DriverActivity {
    state: AtomicU8,
    /// The task's first waker, which it normally keeps. A later one is in `replacement`.
    waker: OnceLock<Waker>,
    is_replaced: AtomicBool,
    replacement: Mutex<Option<Waker>>,
    /// Whether [`wait_until`](Self::wait_until) waits for the task to run.
    has_watcher: AtomicBool,
    watcher: Mutex<Option<Waker>>,
    /// Whether the task is to check the connection once it has settled, since the connection was returned before.
    check_deferred: AtomicBool,
}

impl DriverActivity {
    /// Leaves it to the task to check a connection that is returned unsettled. Returns whether the task has settled in
    /// the meantime: the caller must then check the connection itself.
    #[cold]
    pub(crate) fn defer_check(&self) -> bool {
        self.check_deferred.store(true, SeqCst);
        let settled = self.state.load(SeqCst) == 0;
        if settled {
            self.check_deferred.store(false, SeqCst);
        }
        settled
    }

    /// Returns whether the task has processed everything that it was woken for.
    #[inline]
    pub(crate) fn is_settled(&self) -> bool {
        let state = self.state.load(SeqCst);
        state == 0 || (state == RUNNING && self.settles_soon())
    }

    /// Returns whether the task was woken and has not run since.
    #[inline]
    pub(crate) fn is_woken(&self) -> bool {
        self.state.load(SeqCst) & WOKEN != 0
    }

    /// Returns whether the task, which is running on another thread, settles within a short spin.
    #[cold]
    fn settles_soon(&self) -> bool {
        (0..SETTLE_SPINS).any(|_| {
            std::hint::spin_loop();
            self.state.load(SeqCst) == 0
        })
    }

    /// Waits until the condition holds, and evaluates it each time the task has run. One waiter at a time.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future only ends the wait.
    pub(crate) async fn wait_until(&self, mut holds: impl FnMut() -> bool) {
        poll_fn(|cx| {
            *lock(&self.watcher) = Some(cx.waker().clone());
            self.has_watcher.store(true, SeqCst);
            // Evaluated after the watch was set, so that a run that ends in between is not missed.
            if holds() {
                self.has_watcher.store(false, SeqCst);
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }

    /// Uses this waker for the task from now on.
    #[cold]
    fn replace_waker(&self, task: &Waker) {
        *lock(&self.replacement) = Some(task.clone());
        self.is_replaced.store(true, SeqCst);
    }

    fn notify(&self) {
        if self.has_watcher.load(SeqCst) {
            // Not woken under the lock: the waker is the caller's, and may run arbitrary code.
            let waker = lock(&self.watcher).take();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
}

impl Wake for DriverActivity {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.state.fetch_or(WOKEN, SeqCst);
        if self.is_replaced.load(SeqCst) {
            let waker = lock(&self.replacement).clone();
            if let Some(waker) = waker {
                waker.wake();
            }
        } else if let Some(waker) = self.waker.get() {
            waker.wake_by_ref();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The future that drives a connection, run with a [`DriverActivity`].
#[derive(Debug)]
pub(crate) struct DriverTask<F> {
    connection: F,
    driver: Arc<DriverActivity>,
    waker: Waker,
    stats: Arc<ConnectionStats>,
    on_dirty: DirtyCallback,
}

/// A callback for a connection that turns out to be dirty after its return.
#[derive(Clone)]
pub(crate) struct DirtyCallback(pub(crate) Arc<dyn Fn() + Send + Sync>);

impl std::fmt::Debug for DirtyCallback {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DirtyCallback")
    }
}

impl<F: Future + Unpin> DriverTask<F> {
    pub(crate) fn new(
        connection: F,
        driver: Arc<DriverActivity>,
        stats: Arc<ConnectionStats>,
        on_dirty: DirtyCallback,
    ) -> Self {
        // The task has not run yet, and its channel may hold requests by the time it does.
        driver.state.store(WOKEN, SeqCst);
        Self { connection, waker: Waker::from(Arc::clone(&driver)), driver, stats, on_dirty }
    }
}

impl<F> DriverTask<F> {
    /// Checks the connection, now that the requests sent before its return have reached the wire.
    #[cold]
    fn check_deferred(&self) {
        let status = self.stats.wire().status();
        // Work that ends without a cancel is checked once it has ended.
        if status != SessionStatus::Ending {
            self.driver.check_deferred.store(false, SeqCst);
            if !status.is_clean() {
                (self.on_dirty.0)();
            }
        }
    }
}

impl<F: Future + Unpin> Future for DriverTask<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        if !this.driver.waker.get_or_init(|| cx.waker().clone()).will_wake(cx.waker()) {
            this.driver.replace_waker(cx.waker());
        }
        this.driver.state.swap(RUNNING, SeqCst);
        let polled = Pin::new(&mut this.connection).poll(&mut Context::from_waker(&this.waker));
        this.driver.state.fetch_and(!RUNNING, SeqCst);
        this.driver.notify();
        // Not while the task is woken: the request that woke it before the check was deferred may still be in the channel.
        if this.driver.check_deferred.load(SeqCst) && (polled.is_ready() || !this.driver.is_woken()) {
            this.check_deferred();
        }
        polled
    }
}

impl<F> Drop for DriverTask<F> {
    fn drop(&mut self) {
        // The connection is not driven any more: waiters must notice.
        self.stats.wire().end();
        self.driver.state.store(0, SeqCst);
        self.driver.notify();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;
    use crate::telemetry::clock::Nanos;
    use crate::telemetry::operations::OperationId;

    /// A task that receives from a channel, like a connection's.
    struct Worker {
        channel: tokio::sync::mpsc::UnboundedReceiver<u32>,
        done: Arc<AtomicUsize>,
    }

    impl Future for Worker {
        type Output = ();

        fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
            loop {
                match self.channel.poll_recv(cx) {
                    Poll::Ready(Some(_)) => self.done.fetch_add(1, SeqCst),
                    Poll::Ready(None) => return Poll::Ready(()),
                    Poll::Pending => return Poll::Pending,
                };
            }
        }
    }

    fn worker() -> (tokio::sync::mpsc::UnboundedSender<u32>, Arc<AtomicUsize>, Arc<DriverActivity>, DriverTask<Worker>)
    {
        let (sender, channel) = tokio::sync::mpsc::unbounded_channel();
        let (done, driver) = (Arc::new(AtomicUsize::new(0)), Arc::new(DriverActivity::default()));
        let stats = Arc::new(ConnectionStats::new(OperationId::OTHER, Nanos::ZERO));
        let worker = Worker { channel, done: Arc::clone(&done) };
        (sender, done, Arc::clone(&driver), DriverTask::new(worker, driver, stats, DirtyCallback(Arc::new(|| ()))))
    }

    #[tokio::test]
    async fn sent_requests_are_settled_when_the_task_has_run() {
        let (sender, done, driver, task) = worker();
        assert!(!driver.is_settled(), "it has not run yet");
        tokio::spawn(task);
        driver.wait_until(|| driver.is_settled()).await;
        for round in 1..100 {
            sender.send(1).unwrap();
            assert!(!driver.is_settled());
            driver.wait_until(|| driver.is_settled()).await;
            assert_eq!(done.load(SeqCst), round);
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_request_is_unprocessed_while_settled() {
        let (sender, done, driver, task) = worker();
        tokio::spawn(task);
        for round in 1..20_000 {
            sender.send(1).unwrap();
            if round % 3 == 0 {
                driver.wait_until(|| driver.is_settled()).await;
            }
            if driver.is_settled() {
                assert_eq!(done.load(SeqCst), round);
            }
        }
    }

    #[test]
    fn task_is_woken_by_its_latest_waker() {
        struct Counter(AtomicUsize);

        impl Wake for Counter {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, SeqCst);
            }
        }

        let (sender, done, driver, mut task) = worker();
        let counters = [Arc::new(Counter(AtomicUsize::new(0))), Arc::new(Counter(AtomicUsize::new(0)))];
        let woken = || counters.each_ref().map(|counter| counter.0.load(SeqCst));
        for (runs, counter) in counters.iter().enumerate() {
            let waker = Waker::from(Arc::clone(counter));
            assert!(Pin::new(&mut task).poll(&mut Context::from_waker(&waker)).is_pending());
            assert_eq!((done.load(SeqCst), driver.is_settled()), (runs, true));
            sender.send(1).unwrap();
            assert!(!driver.is_settled());
        }
        assert_eq!(woken(), [1, 1]);
    }

    #[tokio::test]
    async fn waiter_is_woken_when_the_task_is_dropped() {
        let (_sender, _, driver, task) = worker();
        let stats = Arc::clone(&task.stats);
        let task = tokio::spawn(task);
        driver.wait_until(|| driver.is_settled()).await;
        let waiting = tokio::spawn({
            let (driver, stats) = (Arc::clone(&driver), Arc::clone(&stats));
            async move { driver.wait_until(|| stats.wire().is_ended()).await }
        });
        tokio::task::yield_now().await;
        task.abort();
        waiting.await.unwrap();
    }
}
