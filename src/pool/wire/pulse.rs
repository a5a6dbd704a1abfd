//! Whether a connection's task has work that it has not come to.
//!
//! What a holder asks of a connection goes through a channel to the connection's task, and is on the wire only when
//! that task has run. A future that is dropped right after it was polled leaves its request in that channel, and so
//! does a transaction that is dropped: its ROLLBACK. A connection that comes back then looks clean and is not.
//!
//! Sending wakes the task. So the task runs with a waker of ours, and the wire's account says whether the task was
//! woken and has not run since, or is running: if neither, nothing is in the channel. (There is a gap of some nanoseconds
//! where two threads send at once: the second may be done before the first, which has taken the waker, has called it.
//! It takes another thread than the holder's to drop a statement in the very moment of the return.)

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicU8};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use crate::telemetry::seat::ConnectionStats;
use crate::telemetry::wire::Status;

/// The task was woken, and has not begun to run since.
const WOKEN: u8 = 1;
/// The task runs.
const RUNNING: u8 = 2;

/// How often a running task is looked at before it counts as unsettled: it only has to return.
const SPINS: usize = 20;

/// The state of a connection's task. Aligned, as it is written whenever that is woken or runs, on any thread.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct DriverActivity {
    state: AtomicU8,
    /// The task itself. A task keeps its waker; should it ever have another, that one is in `moved`.
    task: OnceLock<Waker>,
    has_moved: AtomicBool,
    moved: Mutex<Option<Waker>>,
    /// Whether somebody waits for the task to have run.
    watched: AtomicBool,
    watcher: Mutex<Option<Waker>>,
    /// Whether the connection came back while the task had something to come to.
    left: AtomicBool,
}

impl DriverActivity {
    /// The connection is returned with something that its task has not come to, which the task is to look after.
    /// Answers whether it has come to it by now: then the caller is to look.
    #[cold]
    pub(crate) fn leave(&self) -> bool {
        self.left.store(true, SeqCst);
        let come_to = self.state.load(SeqCst) == 0;
        if come_to {
            self.left.store(false, SeqCst);
        }
        come_to
    }

    /// Whether nothing is left that the task has not come to.
    #[inline]
    pub(crate) fn is_settled(&self) -> bool {
        let state = self.state.load(SeqCst);
        state == 0 || (state == RUNNING && self.settles())
    }

    /// Whether the task was woken for something that it has not come to.
    #[inline]
    pub(crate) fn is_woken(&self) -> bool {
        self.state.load(SeqCst) & WOKEN != 0
    }

    /// A task that runs is about to end its turn, on another thread.
    #[cold]
    fn settles(&self) -> bool {
        (0..SPINS).any(|_| {
            std::hint::spin_loop();
            self.state.load(SeqCst) == 0
        })
    }

    /// Waits until the condition holds; looks at it whenever the task has run.
    pub(crate) async fn until(&self, mut holds: impl FnMut() -> bool) {
        poll_fn(|cx| {
            *lock(&self.watcher) = Some(cx.waker().clone());
            self.watched.store(true, SeqCst);
            // Looked at after the watch was set, so that a turn that ends in between is not missed.
            if holds() {
                self.watched.store(false, SeqCst);
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }

    /// Wakes this one from now on.
    #[cold]
    fn move_to(&self, task: &Waker) {
        *lock(&self.moved) = Some(task.clone());
        self.has_moved.store(true, SeqCst);
    }

    fn notify(&self) {
        if self.watched.load(SeqCst) {
            // Not woken under the lock: the waker is the caller's, and may do anything.
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
        if self.has_moved.load(SeqCst) {
            let waker = lock(&self.moved).clone();
            if let Some(waker) = waker {
                waker.wake();
            }
        } else if let Some(waker) = self.task.get() {
            waker.wake_by_ref();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The future that drives a connection, run with a [`DriverActivity`].
#[derive(Debug)]
pub(crate) struct DriverTask<F> {
    connection: F,
    driver: Arc<DriverActivity>,
    waker: Waker,
    stats: Arc<ConnectionStats>,
    found: Found,
}

/// Told when a connection turns out to be dirty that was returned before that was known.
#[derive(Clone)]
pub(crate) struct Found(pub(crate) Arc<dyn Fn() + Send + Sync>);

impl std::fmt::Debug for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Found")
    }
}

impl<F: Future + Unpin> DriverTask<F> {
    pub(crate) fn new(connection: F, driver: Arc<DriverActivity>, stats: Arc<ConnectionStats>, found: Found) -> Self {
        // It has not run yet, and there may be something in its channel by the time it does.
        driver.state.store(WOKEN, SeqCst);
        Self { connection, waker: Waker::from(Arc::clone(&driver)), driver, stats, found }
    }
}

impl<F> DriverTask<F> {
    /// What was asked before the connection came back has reached the wire.
    #[cold]
    fn look_after(&self) {
        let status = self.stats.wire().status();
        // What ends by itself is on its way to where nothing is left.
        if status != Status::Ending {
            self.driver.left.store(false, SeqCst);
            if !status.is_clean() {
                (self.found.0)();
            }
        }
    }
}

impl<F: Future + Unpin> Future for DriverTask<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        if !this.driver.task.get_or_init(|| cx.waker().clone()).will_wake(cx.waker()) {
            this.driver.move_to(cx.waker());
        }
        this.driver.state.swap(RUNNING, SeqCst);
        let polled = Pin::new(&mut this.connection).poll(&mut Context::from_waker(&this.waker));
        this.driver.state.fetch_and(!RUNNING, SeqCst);
        this.driver.notify();
        if this.driver.left.load(SeqCst) {
            this.look_after();
        }
        polled
    }
}

impl<F> Drop for DriverTask<F> {
    fn drop(&mut self) {
        // Nobody drives the connection any more: who waits for it is to find that out.
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

    /// A task that takes what it was sent from a channel, as a connection's does.
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
        (sender, done, Arc::clone(&driver), DriverTask::new(worker, driver, stats, Found(Arc::new(|| ()))))
    }

    #[tokio::test]
    async fn what_was_sent_is_settled_when_the_task_has_run() {
        let (sender, done, driver, driven) = worker();
        assert!(!driver.is_settled(), "it has not run yet");
        tokio::spawn(driven);
        driver.until(|| driver.is_settled()).await;
        for round in 1..100 {
            sender.send(1).unwrap();
            assert!(!driver.is_settled());
            driver.until(|| driver.is_settled()).await;
            assert_eq!(done.load(SeqCst), round);
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn nothing_that_was_sent_is_outstanding_while_it_is_settled() {
        let (sender, done, driver, driven) = worker();
        tokio::spawn(driven);
        for round in 1..20_000 {
            sender.send(1).unwrap();
            if round % 3 == 0 {
                driver.until(|| driver.is_settled()).await;
            }
            if driver.is_settled() {
                assert_eq!(done.load(SeqCst), round);
            }
        }
    }

    #[test]
    fn a_task_that_has_another_waker_is_woken_by_that() {
        struct Counter(AtomicUsize);

        impl Wake for Counter {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, SeqCst);
            }
        }

        let (sender, done, driver, mut driven) = worker();
        let counters = [Arc::new(Counter(AtomicUsize::new(0))), Arc::new(Counter(AtomicUsize::new(0)))];
        let woken = || counters.each_ref().map(|counter| counter.0.load(SeqCst));
        for (turn, counter) in counters.iter().enumerate() {
            let waker = Waker::from(Arc::clone(counter));
            assert!(Pin::new(&mut driven).poll(&mut Context::from_waker(&waker)).is_pending());
            assert_eq!((done.load(SeqCst), driver.is_settled()), (turn, true));
            sender.send(1).unwrap();
            assert!(!driver.is_settled());
        }
        assert_eq!(woken(), [1, 1]);
    }

    #[tokio::test]
    async fn who_waits_for_a_task_that_is_gone_is_woken() {
        let (_sender, _, driver, driven) = worker();
        let stats = Arc::clone(&driven.stats);
        let task = tokio::spawn(driven);
        driver.until(|| driver.is_settled()).await;
        let waiting = tokio::spawn({
            let (driver, stats) = (Arc::clone(&driver), Arc::clone(&stats));
            async move { driver.until(|| stats.wire().is_ended()).await }
        });
        tokio::task::yield_now().await;
        task.abort();
        waiting.await.unwrap();
    }
}
