//! Random sequences of steps against a model.
//!
//! The model uses only what callers and the backend observe. The clock is paused between steps, so the model predicts
//! every counter to the nanosecond.
//!
//! `PROPTEST_CASES` sets the number of sequences. A failing test prints its seed, with which `PROPTEST_RNG_SEED` repeats
//! it.

use std::sync::Arc;
use std::time::Duration;

use poolscope::Settings;
use poolscope::error::CheckoutError;
use poolscope::labels::{CloseReason, ErrorPhase, Outcome, Phase};
use poolscope::pool::Pool;
use poolscope::telemetry::PoolSnapshot;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use tokio::time::Instant;

use super::backend::{Behavior, Completion, ScriptedBackend};
use super::harness::{CheckoutResult, ManualFuture, TestGuard, TestPool, ms, settings, totals};
use super::invariants;

const OPERATIONS: [&str; 3] = ["list", "add", "remove"];
const DEFAULT_CASES: u32 = 600;

/// The number of connections that `idle_timeout` leaves open.
const MIN_IDLE: usize = 1;

#[derive(Clone, Copy, Debug)]
enum Step {
    Start {
        operation: usize,
    },
    Poll {
        which: usize,
    },
    /// Polls woken futures until none is woken.
    PollWoken,
    Drop {
        which: usize,
    },
    Return {
        which: usize,
        elsewhere: bool,
    },
    Discard {
        which: usize,
    },
    /// Discards a connection for which the server executes.
    DiscardExecuting {
        which: usize,
    },
    Advance {
        time: Duration,
    },
    SetConnect {
        behavior: Behavior,
    },
    SetPing {
        behavior: Behavior,
    },
    SetEnd {
        behavior: Behavior,
    },
    Release {
        which: usize,
        end: Completion,
    },
    Break {
        which: usize,
    },
    BreakHeld {
        which: usize,
    },
    /// Changes the maximum.
    Resize {
        pool_size: usize,
        max_overflow: usize,
    },
    /// Reads the pool as a scrape does, which closes connections that have been idle for too long.
    Scrape,
    Close,
}

/// The kinds of connect failures in a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failures {
    /// Failures of one attempt, which do not affect the next. Every counter is exact to the nanosecond.
    Transient,
    /// Also failures that suspend connecting: the server is down or full. Which checkout connects then, and in which
    /// phase the others wait, is not modelled; everything else is exact.
    Outages,
}

fn end(failures: Failures) -> impl Strategy<Value = Completion> {
    let failed = match failures {
        Failures::Transient => Just(Completion::Error).boxed(),
        Failures::Outages => prop_oneof![
            1 => Just(Completion::Error),
            2 => Just(Completion::Down),
            2 => Just(Completion::Full),
            2 => Just(Completion::Short),
        ]
        .boxed(),
    };
    prop_oneof![4 => Just(Completion::Ok), 3 => failed, 1 => Just(Completion::Panic)]
}

fn behavior(failures: Failures) -> impl Strategy<Value = Behavior> {
    let failed = match failures {
        Failures::Transient => Just(Behavior::Error).boxed(),
        Failures::Outages => prop_oneof![
            1 => Just(Behavior::Error),
            3 => Just(Behavior::Down),
            3 => Just(Behavior::Full),
            3 => Just(Behavior::Short),
        ]
        .boxed(),
    };
    prop_oneof![
        6 => Just(Behavior::Ok),
        3 => failed,
        1 => Just(Behavior::Panic),
        2 => end(failures).prop_map(Behavior::Slow),
        2 => (1..1500u64, end(failures)).prop_map(|(millis, end)| Behavior::After(ms(millis), end)),
        4 => Just(Behavior::Blocked),
    ]
}

fn step(failures: Failures) -> impl Strategy<Value = Step> {
    let which = 0..8usize;
    prop_oneof![
        12 => (0..OPERATIONS.len()).prop_map(|operation| Step::Start { operation }),
        12 => which.clone().prop_map(|which| Step::Poll { which }),
        6 => Just(Step::PollWoken),
        5 => which.clone().prop_map(|which| Step::Drop { which }),
        10 => (which.clone(), any::<bool>()).prop_map(|(which, elsewhere)| Step::Return { which, elsewhere }),
        3 => which.clone().prop_map(|which| Step::Discard { which }),
        4 => which.clone().prop_map(|which| Step::DiscardExecuting { which }),
        8 => prop_oneof![Just(1), Just(25), Just(50), Just(120), Just(310), Just(500), Just(1001), Just(9_300), Just(10_000)]
            .prop_map(|millis| Step::Advance { time: ms(millis) }),
        3 => behavior(failures).prop_map(|behavior| Step::SetConnect { behavior }),
        3 => behavior(failures).prop_map(|behavior| Step::SetPing { behavior }),
        3 => behavior(failures).prop_map(|behavior| Step::SetEnd { behavior }),
        6 => (which.clone(), end(failures)).prop_map(|(which, end)| Step::Release { which, end }),
        2 => which.clone().prop_map(|which| Step::Break { which }),
        2 => which.prop_map(|which| Step::BreakHeld { which }),
        3 => (1..=4usize, 0..=2usize).prop_map(|(pool_size, max_overflow)| Step::Resize { pool_size, max_overflow }),
        3 => Just(Step::Scrape),
    ]
}

/// Most sequences leave the pool open; some close it.
fn steps(failures: Failures) -> impl Strategy<Value = Vec<Step>> {
    let open = move || prop::collection::vec(step(failures), 1..80);
    let closed = (open(), prop::collection::vec(step(failures), 0..20)).prop_map(|(mut steps, after)| {
        steps.push(Step::Close);
        steps.extend(after);
        steps
    });
    prop_oneof![4 => open(), 1 => closed]
}

/// The expected counters.
#[derive(Default)]
struct Model {
    started: [u64; OPERATIONS.len()],
    outcomes: [[u64; Outcome::COUNT]; OPERATIONS.len()],
    in_flight: [u64; OPERATIONS.len()],
    wait: [u64; OPERATIONS.len()],
    used: [u64; OPERATIONS.len()],
    returned: [u64; OPERATIONS.len()],
    phases: [u64; Phase::COUNT],
    saturated: u64,
    discarded: u64,
    overflow: u64,
    /// Checkouts that failed without an attempt to connect.
    unavailable: u64,
    /// Failed attempts to connect whose checkouts had ended.
    detached_failures: u64,
    closing: bool,
}

struct PendingCheckout {
    future: ManualFuture,
    operation: usize,
    /// The time of the first poll, on both clocks.
    started: Option<(u64, Instant)>,
}

struct HeldConnection {
    guard: TestGuard,
    operation: usize,
    since: u64,
}

struct Runner {
    test: TestPool,
    failures: Failures,
    model: Model,
    pending: Vec<PendingCheckout>,
    held_connections: Vec<HeldConnection>,
    closing: Option<ManualFuture<()>>,
}

impl Runner {
    fn new(settings: &Settings, failures: Failures) -> Self {
        let test = TestPool::with(settings);
        for operation in OPERATIONS {
            let _ = test.pool.operation(operation);
        }
        Self {
            test,
            failures,
            model: Model::default(),
            pending: Vec::new(),
            held_connections: Vec::new(),
            closing: None,
        }
    }

    async fn apply(&mut self, step: Step) {
        match step {
            Step::Start { operation } => {
                if self.pending.len() < 8 {
                    let future = self.test.checkout(OPERATIONS[operation]);
                    self.pending.push(PendingCheckout { future, operation, started: None });
                }
            }
            Step::Poll { which } => {
                if which < self.pending.len() {
                    self.poll(which);
                }
            }
            Step::PollWoken => self.poll_woken(),
            Step::Drop { which } => {
                if which < self.pending.len() {
                    let checkout = self.pending.remove(which);
                    self.drop_checkout(checkout);
                }
            }
            Step::Return { which, elsewhere } => {
                if which < self.held_connections.len() {
                    let connection = self.held_connections.remove(which);
                    self.return_connection(connection, elsewhere);
                }
            }
            Step::Discard { which } => {
                if which < self.held_connections.len() {
                    let connection = self.held_connections.remove(which);
                    self.count_use(&connection);
                    self.model.discarded += 1;
                    connection.guard.discard();
                }
            }
            Step::DiscardExecuting { which } => {
                if which < self.held_connections.len() {
                    let connection = self.held_connections.remove(which);
                    self.count_use(&connection);
                    self.model.discarded += 1;
                    connection.guard.mark_executing();
                    connection.guard.discard();
                }
            }
            Step::Advance { time } => self.advance(time).await,
            Step::SetConnect { behavior } => self.test.backend.set_connect(behavior),
            Step::SetPing { behavior } => self.test.backend.set_ping(behavior),
            Step::SetEnd { behavior } => self.test.backend.set_end(behavior),
            Step::Release { which, end } => self.test.backend.release(which, end),
            Step::Break { which } => drop(self.test.backend.break_connection(which)),
            Step::BreakHeld { which } => {
                if let Some(connection) = self.held_connections.get(which) {
                    connection.guard.mark_broken();
                }
            }
            Step::Resize { pool_size, max_overflow } => self.resize(pool_size, max_overflow),
            Step::Scrape => self.scrape(),
            Step::Close => {
                let pool: Pool<ScriptedBackend> = self.test.pool.clone();
                let mut closing = ManualFuture::new(async move { pool.close().await });
                self.model.closing = true;
                if closing.poll().is_none() {
                    self.closing = Some(closing);
                }
            }
        }
    }

    fn resize(&mut self, pool_size: usize, max_overflow: usize) {
        let before = self.test.pool.snapshot();
        self.test.resize(pool_size, max_overflow).unwrap();
        let after = self.test.pool.snapshot();
        if self.model.closing {
            assert_eq!(after.limits, before.limits);
            return;
        }
        assert_eq!((after.limits.pool_size, after.limits.max_overflow), (pool_size, max_overflow));
        let (idle, live) = (after.connections.idle, after.connections.live());
        assert!(idle == 0 || live <= after.limits.max(), "{:?}", after.connections);
        assert!(idle <= pool_size + after.queued + suspended(&after), "{:?}", after.connections);
        let closed = |reason: CloseReason| after.closed[reason.index()] - before.closed[reason.index()];
        let gone = closed(CloseReason::Resized) + closed(CloseReason::Overflow);
        assert_eq!(before.connections.live() - live, gone as usize, "only idle connections are closed");
        self.model.overflow += closed(CloseReason::Overflow);
    }

    fn scrape(&mut self) {
        let before = self.test.pool.snapshot();
        let expired = |snapshot: &PoolSnapshot| snapshot.closed[CloseReason::IdleTimeout.index()];
        drop(self.test.collector.snapshots());
        let after = self.test.pool.snapshot();
        let closed = (expired(&after) - expired(&before)) as usize;
        assert_eq!(before.connections.idle - after.connections.idle, closed);
        assert!(closed == 0 || after.connections.idle >= MIN_IDLE, "{:?}", after.connections);
    }

    async fn advance(&mut self, time: Duration) {
        let creating = connecting(&self.test.pool.snapshot()) as u64;
        let pinging = self.test.backend.pings().running() as u64;
        let in_flight: u64 = self.model.in_flight.iter().sum();
        let queued = in_flight - creating - pinging;
        let nanos = u64::try_from(time.as_nanos()).unwrap();
        self.model.phases[Phase::Connect.index()] += creating * nanos;
        self.model.phases[Phase::Ping.index()] += pinging * nanos;
        self.model.phases[Phase::Queue.index()] += queued * nanos;
        self.model.saturated += u64::from(queued > 0) * nanos;
        for (wait, in_flight) in self.model.wait.iter_mut().zip(self.model.in_flight) {
            *wait += in_flight * nanos;
        }
        let failed = self.test.backend.creates().failed();
        self.test.advance(time).await;
        // Lets the tasks end whose timers have fired.
        for _ in 0..4 {
            tokio::task::yield_now().await;
        }
        // No checkout was polled meanwhile.
        self.model.detached_failures += (self.test.backend.creates().failed() - failed) as u64;
    }

    fn poll(&mut self, which: usize) {
        let now = self.test.now();
        let checkout = &mut self.pending[which];
        let operation = checkout.operation;
        if checkout.started.is_none() {
            checkout.started = Some((now, Instant::now()));
            self.model.started[operation] += 1;
            self.model.in_flight[operation] += 1;
        }
        let waited = checkout.started.unwrap().1.elapsed();
        match checkout.future.try_poll() {
            Ok(None) => assert!(waited < ms(1002), "its deadline has passed: {waited:?}"),
            Ok(Some(result)) => {
                self.pending.remove(which);
                self.finish(operation, result, waited);
            }
            Err(_) => {
                let checkout = self.pending.remove(which);
                self.drop_checkout(checkout);
            }
        }
    }

    fn finish(&mut self, operation: usize, result: CheckoutResult, waited: Duration) {
        let outcome = result.as_ref().map_or_else(|error| error.outcome(), |_| Outcome::Ok);
        self.model.unavailable += u64::from(matches!(result, Err(CheckoutError::Unavailable { .. })));
        match outcome {
            Outcome::Timeout => assert!(waited >= ms(1000), "timed out after {waited:?}"),
            Outcome::Closed => assert!(self.model.closing, "the pool is open"),
            Outcome::Ok => assert!(!self.model.closing, "a closed pool returned a connection"),
            _ => {}
        }
        self.model.in_flight[operation] -= 1;
        self.model.outcomes[operation][outcome.index()] += 1;
        if let Ok(guard) = result {
            assert!(
                !self.held_connections.iter().any(|connection| connection.guard.id() == guard.id()),
                "given out twice"
            );
            self.held_connections.push(HeldConnection { guard, operation, since: self.test.now() });
        }
    }

    fn drop_checkout(&mut self, checkout: PendingCheckout) {
        if checkout.started.is_some() {
            self.model.in_flight[checkout.operation] -= 1;
            self.model.outcomes[checkout.operation][Outcome::Cancelled.index()] += 1;
        }
        drop(checkout);
    }

    fn count_use(&mut self, connection: &HeldConnection) {
        self.model.returned[connection.operation] += 1;
        self.model.used[connection.operation] += self.test.now() - connection.since;
    }

    fn return_connection(&mut self, connection: HeldConnection, elsewhere: bool) {
        self.count_use(&connection);
        let before = self.test.pool.snapshot();
        let broken = {
            use poolscope::pool::Backend;
            ScriptedBackend::is_broken(&connection.guard)
        };
        let waiting = before.queued + suspended(&before);
        let has_shrunk = before.connections.live() > before.limits.max();
        let room = before.connections.idle < before.limits.pool_size + waiting && !has_shrunk;
        self.model.overflow += u64::from(!self.model.closing && !broken && !room && !has_shrunk);
        if elsewhere {
            std::thread::spawn(|| drop(connection.guard)).join().unwrap();
        } else {
            drop(connection.guard);
        }
        let after = self.test.pool.snapshot();
        let stays = !self.model.closing && !broken && room;
        assert_eq!(after.connections.idle, before.connections.idle + usize::from(stays), "idle after the return");
    }

    /// Polls woken futures, and checks that then no checkout waits while a connection is idle.
    fn poll_woken(&mut self) {
        while let Some(which) = self.pending.iter().position(|checkout| checkout.future.is_woken()) {
            self.poll(which);
        }
        let snapshot = self.test.pool.snapshot();
        let waiting = snapshot.queued + suspended(&snapshot);
        if waiting > 0 {
            let connections = snapshot.connections;
            let taken = connections.used + connections.creating + connections.closing;
            if self.failures == Failures::Transient {
                assert!(
                    taken >= snapshot.limits.max(),
                    "{waiting} wait although there is capacity: {:?}",
                    snapshot.connections
                );
            }
            assert_eq!(snapshot.connections.idle, 0, "{waiting} wait although a connection is idle");
            assert!(!self.model.closing, "{waiting} wait for a closed pool");
        }
    }

    fn check(&mut self) {
        let snapshot = self.test.snapshot();
        let Self { test, model, held_connections, .. } = self;
        for (index, name) in OPERATIONS.iter().enumerate() {
            let counted = totals(&snapshot, name);
            assert_eq!(counted.started, model.started[index], "{name}: started");
            assert_eq!(counted.outcomes, model.outcomes[index], "{name}: outcomes");
            assert_eq!(counted.in_flight, model.in_flight[index], "{name}: in flight");
            assert_eq!(counted.wait_nanos, model.wait[index], "{name}: wait");
            assert_eq!(counted.use_nanos, model.used[index], "{name}: use");
            assert_eq!(counted.returned, model.returned[index], "{name}: returned");
        }
        let mut phases = snapshot.phase_nanos;
        if self.failures == Failures::Transient {
            assert_eq!(snapshot.saturated_nanos, model.saturated, "saturated");
        } else {
            phases[Phase::Queue.index()] += std::mem::take(&mut phases[Phase::Suspended.index()]);
        }
        assert_eq!(phases, model.phases, "phases");
        let (creates, pings) = (test.backend.creates(), test.backend.pings());
        assert_eq!(snapshot.connections.used, held_connections.len() + pings.running(), "used");
        check_close_reasons(&snapshot, model, test);
        let sum = |outcome: Outcome| model.outcomes.iter().map(|outcomes| outcomes[outcome.index()]).sum::<u64>();
        let (errors, failed) = (sum(Outcome::Error), creates.failed() as u64);
        if self.failures == Failures::Transient {
            let returned = failed - model.detached_failures;
            assert_eq!((errors, model.unavailable), (returned, 0), "every other connect failure is returned");
        } else {
            // Some checkouts waited instead of failing.
            assert!(errors - model.unavailable <= failed, "{errors} errors of {failed} failures");
        }

        if let Some(closing) = &mut self.closing {
            let drained = snapshot.connections.live() == 0 && snapshot.in_flight == 0;
            assert!(closing.is_woken() || !drained, "closing completed without waking its waiter");
            let done = closing.poll().is_some();
            assert_eq!(done, drained, "closing completes when all connections are returned");
            if done {
                self.closing = None;
            }
        }
    }

    async fn drain(mut self) {
        self.test.backend.recover();
        while self.test.backend.blocked() > 0 {
            self.test.backend.release(0, Completion::Ok);
        }
        // Every slow call completes within this time, and every deadline has passed afterwards.
        for _ in 0..4 {
            self.poll_woken();
            self.check();
            while let Some(connection) = self.held_connections.pop() {
                self.return_connection(connection, false);
                self.check();
            }
            self.poll_woken();
            self.advance(ms(400)).await;
            self.check();
        }
        self.poll_woken();
        while let Some(connection) = self.held_connections.pop() {
            self.return_connection(connection, false);
        }
        if self.failures == Failures::Outages {
            // The next attempt to connect is due by then, also if the last one failed only now.
            self.advance(ms(1000)).await;
        }
        self.check();
        assert!(self.pending.is_empty(), "no checkout is left waiting");
        assert!(self.closing.is_none(), "closing has completed");
        let snapshot = self.test.snapshot();
        assert_eq!(
            (snapshot.in_flight, snapshot.queued, snapshot.connections.used, snapshot.connections.creating),
            (0, 0, 0, 0)
        );
        if self.model.closing {
            assert_eq!((snapshot.connections.live(), self.test.backend.live()), (0, 0));
        } else {
            assert!(snapshot.connections.idle <= snapshot.limits.pool_size, "{:?}", snapshot.connections);
            self.test.assert_usable();
        }
        let backend = self.test.backend.clone();
        let collector = self.test.collector.clone();
        drop(self);
        assert_eq!(backend.live(), 0, "a dropped pool leaves no connections");
        assert!(collector.snapshots().is_empty());
    }
}

/// Checks that the close reasons agree with the backend's counts.
fn check_close_reasons(snapshot: &PoolSnapshot, model: &Model, test: &TestPool) {
    let (creates, pings) = (test.backend.creates(), test.backend.pings());
    let closed = |reason: CloseReason| snapshot.closed[reason.index()];
    assert_eq!(closed(CloseReason::ConnectFailed), creates.failed() as u64, "connect_failed");
    assert_eq!(closed(CloseReason::ConnectAbandoned), creates.abandoned() as u64, "connect_abandoned");
    assert_eq!(closed(CloseReason::Discarded) + snapshot.connections.closing as u64, model.discarded, "discarded");
    let errors = |phase: ErrorPhase, code: &str| {
        let mut found = snapshot.errors.iter().filter(|errors| errors.phase == phase && errors.code.as_str() == code);
        found.next().map_or(0, |errors| errors.count)
    };
    assert_eq!(errors(ErrorPhase::Connect, "57P03"), creates.failed() as u64, "connect errors");
    assert_eq!(errors(ErrorPhase::Ping, "57P03"), pings.failed() as u64, "ping errors");
    let overdue = errors(ErrorPhase::Ping, "timeout");
    assert_eq!(closed(CloseReason::PingFailed), pings.failed() as u64 + overdue, "ping_failed");
    assert_eq!(closed(CloseReason::PingAbandoned), pings.abandoned() as u64 - overdue, "ping_abandoned");
    // Besides returns to a full pool, these are connections that were kept for a waiter that left.
    assert!(closed(CloseReason::Overflow) >= model.overflow, "overflow");
    assert!(model.closing || closed(CloseReason::Shutdown) == 0, "shutdown of an open pool");
    assert_eq!(
        snapshot.create_time.count(),
        (creates.started() - creates.failed() - creates.abandoned() - creates.running()) as u64
    );
}

#[allow(clippy::print_stdout, reason = "shown if the test fails")]
fn config() -> ProptestConfig {
    let mut config = ProptestConfig::default();
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = DEFAULT_CASES;
    }
    // Not persisted: a failing sequence should become a test.
    config.failure_persistence = None;
    if config.rng_seed == RngSeed::Random {
        config.rng_seed = RngSeed::Fixed(fastrand::u64(..));
    }
    if let RngSeed::Fixed(seed) = config.rng_seed {
        println!("PROPTEST_RNG_SEED={seed}");
    }
    config
}

/// Returns how many checkouts are connecting.
fn connecting(snapshot: &PoolSnapshot) -> usize {
    snapshot.waiters.iter().filter(|waiter| waiter.phase == Phase::Connect).count()
}

/// Returns how many checkouts wait for a connect permit.
fn suspended(snapshot: &PoolSnapshot) -> usize {
    snapshot.waiters.iter().filter(|waiter| waiter.phase == Phase::Suspended).count()
}

async fn run_sequence(settings: Settings, failures: Failures, steps: Arc<[Step]>) {
    let mut runner = Runner::new(&settings, failures);
    let mut before = runner.test.pool.snapshot();
    for step in steps.iter() {
        runner.apply(*step).await;
        runner.check();
        let after = runner.test.pool.snapshot();
        invariants::check_monotonic(&before, &after);
        before = after;
    }
    runner.drain().await;
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn counters_are_exact_after_every_step(
        pool_size in 1..=3usize,
        max_overflow in 0..=2usize,
        idle_timeout in prop::option::of(Just(ms(600))),
        steps in steps(Failures::Transient),
    ) {
        let mut settings = settings(pool_size, max_overflow);
        (settings.idle_timeout, settings.min_idle) = (idle_timeout, MIN_IDLE);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(run_sequence(settings, Failures::Transient, steps.into()));
    }

    #[test]
    fn counters_are_right_during_outages(
        pool_size in 1..=3usize,
        max_overflow in 0..=2usize,
        fail_fast in any::<bool>(),
        steps in steps(Failures::Outages),
    ) {
        let mut settings = settings(pool_size, max_overflow);
        settings.fail_fast = fail_fast;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(run_sequence(settings, Failures::Outages, steps.into()));
    }
}

/// A probe that ends only after the last step: the capacity is available once the next attempt is due.
#[tokio::test(start_paused = true)]
async fn probe_ends_after_the_last_step() {
    let start = || [Step::Start { operation: 0 }, Step::Poll { which: 0 }];
    let mut steps = Vec::from(start());
    steps.push(Step::SetConnect { behavior: Behavior::Down });
    steps.extend(start());
    // The pauses grow to their maximum.
    for _ in 0..8 {
        steps.extend([Step::Advance { time: ms(500) }, Step::PollWoken]);
        steps.extend(start());
    }
    steps.extend([Step::Drop { which: 0 }; 8]);
    steps.push(Step::SetConnect { behavior: Behavior::After(ms(1_400), Completion::Down) });
    steps.push(Step::Advance { time: ms(1_001) });
    steps.extend(start());
    let mut settings = settings(3, 1);
    settings.fail_fast = false;
    run_sequence(settings, Failures::Outages, steps.into()).await;
}
