//! A pool over the scripted backend, with mocked clocks, and futures that are polled by hand.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use poolscope::error::CheckoutError;
use poolscope::labels::{CloseReason, Outcome, Phase};
use poolscope::pool::{Guard, Pool};
use poolscope::telemetry::{OperationTotals, PoolSnapshot};
use poolscope::{Collector, Settings};

use super::backend::{Completion, ScriptedBackend, ScriptedError};
use super::invariants;

pub(crate) type TestGuard = Guard<ScriptedBackend>;
pub(crate) type CheckoutResult = Result<TestGuard, CheckoutError<ScriptedError>>;

pub(crate) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Settings of a small pool: 1 s to check out, an hour to connect, ping after 0.5 s idle, recycle after 10 s.
pub(crate) fn settings(pool_size: usize, max_overflow: usize) -> Settings {
    let mut settings = Settings::default();
    settings.pool_size = pool_size;
    settings.max_overflow = max_overflow;
    settings.checkout_timeout = ms(1000);
    settings.connect_timeout = ms(3_600_000);
    settings.pre_ping_idle = ms(500);
    settings.ping_timeout = ms(300);
    settings.recycle_after = Some(ms(10_000));
    settings.close_timeout = ms(1200);
    settings
}

/// A pool and what it runs on.
pub(crate) struct TestPool {
    pub(crate) pool: Pool<ScriptedBackend>,
    pub(crate) backend: ScriptedBackend,
    pub(crate) collector: Collector,
    mock_clock: Arc<quanta::Mock>,
    /// The number of connections in the last snapshot: a pool that has shrunk may have more than its maximum, but opens
    /// none.
    live: AtomicUsize,
}

impl TestPool {
    pub(crate) fn new(pool_size: usize, max_overflow: usize) -> Self {
        Self::with(&settings(pool_size, max_overflow))
    }

    pub(crate) fn with(settings: &Settings) -> Self {
        Self::with_backend(settings, ScriptedBackend::default())
    }

    pub(crate) fn with_backend(settings: &Settings, backend: ScriptedBackend) -> Self {
        let collector = Collector::new();
        let (pool, mock_clock) = Pool::with_mock_clock(backend.clone(), "test", settings, &collector).unwrap();
        Self { pool, backend, collector, mock_clock, live: AtomicUsize::new(0) }
    }

    /// Changes the maximum, and returns the error's text.
    pub(crate) fn resize(&self, pool_size: usize, max_overflow: usize) -> Result<(), String> {
        self.live.store(self.pool.status().live(), SeqCst);
        self.pool.resize(pool_size, max_overflow).map_err(|error| error.to_string())
    }

    /// Advances both clocks.
    pub(crate) async fn advance(&self, time: Duration) {
        self.advance_pool_clock(time);
        tokio::time::advance(time).await;
        // Lets the expired timers fire.
        tokio::task::yield_now().await;
    }

    /// Lets detached attempts to connect run.
    pub(crate) async fn run_detached(&self) {
        // A slow call completes at its third poll.
        for _ in 0..4 {
            tokio::task::yield_now().await;
        }
    }

    /// Completes blocked calls, and lets detached attempts to connect run.
    pub(crate) async fn release_all(&self, end: Completion) {
        while self.backend.blocked() > 0 {
            self.backend.release(0, end);
        }
        self.run_detached().await;
    }

    /// Advances the pool's own clock only.
    pub(crate) fn advance_pool_clock(&self, time: Duration) {
        self.mock_clock.increment(time);
    }

    /// Returns the time of the pool's own clock, in nanoseconds.
    pub(crate) fn now(&self) -> u64 {
        self.mock_clock.value()
    }

    /// Returns a checkout that was not polled yet.
    pub(crate) fn checkout(&self, operation: &str) -> ManualFuture {
        let operation = self.pool.operation(operation);
        ManualFuture::new(async move { operation.get().await })
    }

    /// Checks out a connection in one poll.
    #[track_caller]
    pub(crate) fn get(&self, operation: &str) -> TestGuard {
        self.checkout(operation).poll().expect("a connection is available").expect("backend succeeds")
    }

    /// Checks out `count` connections for `operation`.
    #[track_caller]
    pub(crate) fn get_many(&self, operation: &str, count: usize) -> Vec<TestGuard> {
        (0..count).map(|_| self.get(operation)).collect()
    }

    /// Returns a snapshot after checking all invariants, also against the backend.
    #[track_caller]
    pub(crate) fn snapshot(&self) -> PoolSnapshot {
        let snapshot = self.pool.snapshot();
        invariants::check_resized(&snapshot, self.live.load(SeqCst));
        self.live.store(snapshot.connections.live(), SeqCst);
        invariants::check_quiescent(&snapshot);
        invariants::check_against_backend(&snapshot, &self.backend);
        snapshot
    }

    /// Returns how many connections were closed for `reason`.
    #[track_caller]
    pub(crate) fn closed(&self, reason: CloseReason) -> u64 {
        self.snapshot().closed[reason.index()]
    }

    /// Returns the totals of `operation`.
    #[track_caller]
    pub(crate) fn totals(&self, operation: &str) -> OperationTotals {
        totals(&self.snapshot(), operation)
    }

    /// Returns how many checkouts of `operation` had `outcome`.
    #[track_caller]
    pub(crate) fn outcomes(&self, operation: &str, outcome: Outcome) -> u64 {
        self.totals(operation).outcomes[outcome.index()]
    }

    /// Returns the time that checkouts spent in `phase`.
    #[track_caller]
    pub(crate) fn phase(&self, phase: Phase) -> Duration {
        Duration::from_nanos(self.snapshot().phase_nanos[phase.index()])
    }

    /// Checks that the pool's whole capacity can be checked out, by polling only woken futures.
    #[track_caller]
    pub(crate) fn assert_usable(&self) {
        let max = self.snapshot().limits.max();
        let mut attempts: Vec<_> = (0..max).map(|_| self.checkout("afterwards")).collect();
        let mut held = Vec::new();
        poll_woken(&mut attempts, |_, result| held.push(result.expect("backend succeeds")));
        assert_eq!(held.len(), max, "the whole capacity is available");
        let snapshot = self.snapshot();
        assert_eq!((snapshot.connections.used, snapshot.in_flight), (max, 0));
        drop(held);
        let snapshot = self.snapshot();
        assert!(snapshot.connections.idle <= snapshot.limits.pool_size, "{:?}", snapshot.connections);
        assert_eq!(snapshot.connections.live(), snapshot.connections.idle);
    }
}

/// Returns the totals of `operation`.
#[track_caller]
pub(crate) fn totals(snapshot: &PoolSnapshot, operation: &str) -> OperationTotals {
    let found = snapshot.operations.iter().find(|totals| &*totals.name == operation);
    found.unwrap_or_else(|| panic!("no operation {operation}")).clone()
}

/// Polls woken futures until none is woken, and removes those that complete.
pub(crate) fn poll_woken<T>(attempts: &mut Vec<ManualFuture<T>>, mut done: impl FnMut(Tag, T)) {
    while let Some(index) = attempts.iter().position(|attempt| attempt.is_woken()) {
        if let Some(value) = attempts[index].poll() {
            let attempt = attempts.remove(index);
            done(attempt.tag, value);
        }
    }
}

/// A flag that is set by a wake-up.
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, SeqCst);
    }
}

/// A test's own note on a future.
pub(crate) type Tag = (usize, u64);

/// A future that is polled by hand and records whether it was woken.
pub(crate) struct ManualFuture<T = CheckoutResult> {
    future: Pin<Box<dyn Future<Output = T> + Send>>,
    woken: Arc<Flag>,
    pub(crate) polls: usize,
    pub(crate) tag: Tag,
}

impl<T> ManualFuture<T> {
    pub(crate) fn new(future: impl Future<Output = T> + Send + 'static) -> Self {
        // Without tokio's cooperative budget, as all run in the one task of the test.
        let future = Box::pin(tokio::task::unconstrained(future));
        Self { future, woken: Arc::new(Flag(AtomicBool::new(true))), polls: 0, tag: (0, 0) }
    }

    /// Returns whether it was woken since the last poll; true before the first poll.
    pub(crate) fn is_woken(&self) -> bool {
        self.woken.0.load(SeqCst)
    }

    /// Polls it once.
    pub(crate) fn poll(&mut self) -> Option<T> {
        self.try_poll().unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// Polls it once with another waker.
    pub(crate) fn poll_for(&mut self, waker: &Waker) -> Option<T> {
        match self.future.as_mut().poll(&mut Context::from_waker(waker)) {
            Poll::Ready(value) => Some(value),
            Poll::Pending => None,
        }
    }

    /// Polls it once and catches panics.
    pub(crate) fn try_poll(&mut self) -> std::thread::Result<Option<T>> {
        self.polls += 1;
        self.woken.0.store(false, SeqCst);
        let waker = Waker::from(Arc::clone(&self.woken));
        let mut cx = Context::from_waker(&waker);
        catch_unwind(AssertUnwindSafe(|| match self.future.as_mut().poll(&mut cx) {
            Poll::Ready(value) => Some(value),
            Poll::Pending => None,
        }))
    }

    /// Polls it once and asserts that it is pending.
    #[track_caller]
    pub(crate) fn assert_pending(mut self) -> Self {
        assert!(self.poll().is_none(), "it is pending");
        self
    }
}
