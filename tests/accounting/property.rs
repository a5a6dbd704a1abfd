//! Random sequences of steps against a model.
//!
//! The model knows only what a caller and the backend can see, and is exact: with a clock that stands still between
//! steps, every counter has one right value, to the nanosecond.
//!
//! `PROPTEST_CASES` sets the number of sequences.

use std::sync::Arc;
use std::time::Duration;

use poolscope::Settings;
use poolscope::error::CheckoutError;
use poolscope::labels::{CloseReason, ErrorPhase, Outcome, Phase};
use poolscope::pool::Pool;
use poolscope::telemetry::PoolSnapshot;
use proptest::prelude::*;
use tokio::time::Instant;

use super::backend::{Answer, End, Scripted};
use super::harness::{Attempt, Got, Held, Rig, ms, settings, totals};
use super::invariants;

const OPERATIONS: [&str; 3] = ["list", "add", "remove"];
const SEQUENCES: u32 = 600;

#[derive(Clone, Copy, Debug)]
enum Step {
    Start {
        operation: usize,
    },
    Poll {
        which: usize,
    },
    /// Polls those that were woken, until nobody is.
    Settle,
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
    Advance {
        time: Duration,
    },
    Connects {
        answer: Answer,
    },
    Pings {
        answer: Answer,
    },
    Release {
        which: usize,
        end: End,
    },
    Break {
        which: usize,
    },
    BreakHeld {
        which: usize,
    },
    Close,
}

/// What failures say of the connections that are made next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failures {
    /// Nothing: what is counted is known to the nanosecond.
    Single,
    /// That they will fail as well, or that there are too many: who then connects, and who waits for what, is not
    /// modelled. All else is as exact.
    Outages,
}

fn end(failures: Failures) -> impl Strategy<Value = End> {
    let failed = match failures {
        Failures::Single => Just(End::Error).boxed(),
        Failures::Outages => prop_oneof![1 => Just(End::Error), 2 => Just(End::Down), 2 => Just(End::Full)].boxed(),
    };
    prop_oneof![4 => Just(End::Ok), 3 => failed, 1 => Just(End::Panic)]
}

fn answer(failures: Failures) -> impl Strategy<Value = Answer> {
    let failed = match failures {
        Failures::Single => Just(Answer::Error).boxed(),
        Failures::Outages => {
            prop_oneof![1 => Just(Answer::Error), 3 => Just(Answer::Down), 3 => Just(Answer::Full)].boxed()
        }
    };
    prop_oneof![
        6 => Just(Answer::Ok),
        3 => failed,
        1 => Just(Answer::Panic),
        2 => end(failures).prop_map(Answer::Slow),
        2 => (1..1500u64, end(failures)).prop_map(|(millis, end)| Answer::After(ms(millis), end)),
        4 => Just(Answer::Held),
    ]
}

fn step(failures: Failures) -> impl Strategy<Value = Step> {
    let which = 0..8usize;
    prop_oneof![
        12 => (0..OPERATIONS.len()).prop_map(|operation| Step::Start { operation }),
        12 => which.clone().prop_map(|which| Step::Poll { which }),
        6 => Just(Step::Settle),
        5 => which.clone().prop_map(|which| Step::Drop { which }),
        10 => (which.clone(), any::<bool>()).prop_map(|(which, elsewhere)| Step::Return { which, elsewhere }),
        3 => which.clone().prop_map(|which| Step::Discard { which }),
        8 => prop_oneof![Just(1), Just(25), Just(50), Just(120), Just(310), Just(500), Just(1001), Just(9_300), Just(10_000)]
            .prop_map(|millis| Step::Advance { time: ms(millis) }),
        3 => answer(failures).prop_map(|answer| Step::Connects { answer }),
        3 => answer(failures).prop_map(|answer| Step::Pings { answer }),
        6 => (which.clone(), end(failures)).prop_map(|(which, end)| Step::Release { which, end }),
        2 => which.clone().prop_map(|which| Step::Break { which }),
        2 => which.prop_map(|which| Step::BreakHeld { which }),
    ]
}

/// Most sequences leave the pool open; some close it at some point.
fn steps(failures: Failures) -> impl Strategy<Value = Vec<Step>> {
    let open = move || prop::collection::vec(step(failures), 1..80);
    let closed = (open(), prop::collection::vec(step(failures), 0..20)).prop_map(|(mut steps, after)| {
        steps.push(Step::Close);
        steps.extend(after);
        steps
    });
    prop_oneof![4 => open(), 1 => closed]
}

/// What the counters must say.
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
    /// Checkouts that failed because others had.
    unavailable: u64,
    closing: bool,
}

struct InFlight {
    attempt: Attempt,
    operation: usize,
    /// When it was first polled, on both clocks.
    started: Option<(u64, Instant)>,
}

struct Loan {
    held: Held,
    operation: usize,
    since: u64,
}

struct World {
    rig: Rig,
    failures: Failures,
    model: Model,
    attempts: Vec<InFlight>,
    loans: Vec<Loan>,
    closing: Option<Attempt<()>>,
}

impl World {
    fn new(settings: &Settings, failures: Failures) -> Self {
        let rig = Rig::with(settings);
        for operation in OPERATIONS {
            let _ = rig.core.operation(operation);
        }
        Self { rig, failures, model: Model::default(), attempts: Vec::new(), loans: Vec::new(), closing: None }
    }

    async fn take(&mut self, step: Step) {
        match step {
            Step::Start { operation } => {
                if self.attempts.len() < 8 {
                    let attempt = self.rig.checkout(OPERATIONS[operation]);
                    self.attempts.push(InFlight { attempt, operation, started: None });
                }
            }
            Step::Poll { which } => {
                if which < self.attempts.len() {
                    self.poll(which);
                }
            }
            Step::Settle => self.settle(),
            Step::Drop { which } => {
                if which < self.attempts.len() {
                    let attempt = self.attempts.remove(which);
                    self.drop_it(attempt);
                }
            }
            Step::Return { which, elsewhere } => {
                if which < self.loans.len() {
                    let loan = self.loans.remove(which);
                    self.give_back(loan, elsewhere);
                }
            }
            Step::Discard { which } => {
                if which < self.loans.len() {
                    let loan = self.loans.remove(which);
                    self.count_use(&loan);
                    self.model.discarded += 1;
                    loan.held.discard();
                }
            }
            Step::Advance { time } => self.advance(time).await,
            Step::Connects { answer } => self.rig.backend.connects(answer),
            Step::Pings { answer } => self.rig.backend.answers_pings(answer),
            Step::Release { which, end } => self.rig.backend.release(which, end),
            Step::Break { which } => drop(self.rig.backend.break_one(which)),
            Step::BreakHeld { which } => {
                if let Some(loan) = self.loans.get(which) {
                    loan.held.break_it();
                }
            }
            Step::Close => {
                let core: Pool<Scripted> = self.rig.core.clone();
                let mut closing = Attempt::new(async move { core.close().await });
                self.model.closing = true;
                if closing.poll().is_none() {
                    self.closing = Some(closing);
                }
            }
        }
    }

    async fn advance(&mut self, time: Duration) {
        let creating = self.rig.backend.creates().running() as u64;
        let pinging = self.rig.backend.pings().running() as u64;
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
        self.rig.advance(time).await;
    }

    fn poll(&mut self, which: usize) {
        let now = self.rig.now();
        let attempt = &mut self.attempts[which];
        let operation = attempt.operation;
        if attempt.started.is_none() {
            attempt.started = Some((now, Instant::now()));
            self.model.started[operation] += 1;
            self.model.in_flight[operation] += 1;
        }
        let waited = attempt.started.unwrap().1.elapsed();
        match attempt.attempt.try_poll() {
            Ok(None) => assert!(waited < ms(1002), "its deadline has passed: {waited:?}"),
            Ok(Some(got)) => {
                self.attempts.remove(which);
                self.ended(operation, got, waited);
            }
            Err(_) => {
                let attempt = self.attempts.remove(which);
                self.drop_it(attempt);
            }
        }
    }

    fn ended(&mut self, operation: usize, got: Got, waited: Duration) {
        let outcome = got.as_ref().map_or_else(|error| error.outcome(), |_| Outcome::Ok);
        self.model.unavailable += u64::from(matches!(got, Err(CheckoutError::Unavailable { .. })));
        match outcome {
            Outcome::Timeout => assert!(waited >= ms(1000), "timed out after {waited:?}"),
            Outcome::Closed => assert!(self.model.closing, "nobody closed the pool"),
            Outcome::Ok => assert!(!self.model.closing, "a closed pool gave a connection"),
            _ => {}
        }
        self.model.in_flight[operation] -= 1;
        self.model.outcomes[operation][outcome.index()] += 1;
        if let Ok(held) = got {
            assert!(!self.loans.iter().any(|loan| loan.held.id() == held.id()), "given out twice");
            self.loans.push(Loan { held, operation, since: self.rig.now() });
        }
    }

    fn drop_it(&mut self, attempt: InFlight) {
        if attempt.started.is_some() {
            self.model.in_flight[attempt.operation] -= 1;
            self.model.outcomes[attempt.operation][Outcome::Cancelled.index()] += 1;
        }
        drop(attempt);
    }

    fn count_use(&mut self, loan: &Loan) {
        self.model.returned[loan.operation] += 1;
        self.model.used[loan.operation] += self.rig.now() - loan.since;
    }

    fn give_back(&mut self, loan: Loan, elsewhere: bool) {
        self.count_use(&loan);
        let before = self.rig.core.snapshot();
        let broken = {
            use poolscope::pool::Backend;
            Scripted::is_broken(&loan.held)
        };
        let waiting = before.queued + suspended(&before);
        let room = before.connections.idle < before.limits.pool_size + waiting;
        self.model.overflow += u64::from(!self.model.closing && !broken && !room);
        if elsewhere {
            std::thread::spawn(|| drop(loan.held)).join().unwrap();
        } else {
            drop(loan.held);
        }
        let after = self.rig.core.snapshot();
        let stays = !self.model.closing && !broken && room;
        assert_eq!(after.connections.idle, before.connections.idle + usize::from(stays), "where it went");
    }

    /// Polls those that were woken, and afterwards nobody waits for what is there.
    fn settle(&mut self) {
        while let Some(which) = self.attempts.iter().position(|attempt| attempt.attempt.is_woken()) {
            self.poll(which);
        }
        let pool = self.rig.core.snapshot();
        let waiting = pool.queued + suspended(&pool);
        if waiting > 0 {
            let taken = pool.connections.used + pool.connections.creating;
            if self.failures == Failures::Single {
                assert_eq!(taken, pool.limits.max(), "{waiting} wait while there is room: {:?}", pool.connections);
            }
            assert_eq!(pool.connections.idle, 0, "{waiting} wait while there is an idle connection");
            assert!(!self.model.closing, "{waiting} wait for a pool that is closed");
        }
    }

    fn check(&mut self) {
        let pool = self.rig.snapshot();
        let Self { rig, model, loans, .. } = self;
        for (place, name) in OPERATIONS.iter().enumerate() {
            let counted = totals(&pool, name);
            assert_eq!(counted.started, model.started[place], "{name}: started");
            assert_eq!(counted.outcomes, model.outcomes[place], "{name}: outcomes");
            assert_eq!(counted.in_flight, model.in_flight[place], "{name}: in flight");
            assert_eq!(counted.wait_nanos, model.wait[place], "{name}: wait");
            assert_eq!(counted.use_nanos, model.used[place], "{name}: use");
            assert_eq!(counted.returned, model.returned[place], "{name}: returned");
        }
        let mut phases = pool.phase_nanos;
        if self.failures == Failures::Single {
            assert_eq!(pool.saturated_nanos, model.saturated, "saturated");
        } else {
            phases[Phase::Queue.index()] += std::mem::take(&mut phases[Phase::Suspended.index()]);
        }
        assert_eq!(phases, model.phases, "phases");
        let (creates, pings) = (rig.backend.creates(), rig.backend.pings());
        assert_eq!(pool.connections.used, loans.len() + pings.running(), "used");
        check_reasons(&pool, model, rig);
        let sum = |outcome: Outcome| model.outcomes.iter().map(|outcomes| outcomes[outcome.index()]).sum::<u64>();
        let (told, failed) = (sum(Outcome::Error), creates.failed() as u64);
        if self.failures == Failures::Single {
            assert_eq!((told, model.unavailable), (failed, 0), "who could not connect was told");
        } else {
            // Some waited instead.
            assert!(told - model.unavailable <= failed, "{told} were told of {failed} failures");
        }

        if let Some(closing) = &mut self.closing {
            let drained = pool.connections.live() == 0 && pool.in_flight == 0;
            assert!(closing.is_woken() || !drained, "it closed, and nobody told who waits for that");
            let done = closing.poll().is_some();
            assert_eq!(done, drained, "closing is done when everything has come back");
            if done {
                self.closing = None;
            }
        }
    }

    async fn drain(mut self) {
        self.rig.backend.recovers();
        while self.rig.backend.held() > 0 {
            self.rig.backend.release(0, End::Ok);
        }
        // What takes its time takes less than this, and everybody has met the deadline after.
        for _ in 0..4 {
            self.settle();
            self.check();
            while let Some(loan) = self.loans.pop() {
                self.give_back(loan, false);
                self.check();
            }
            self.settle();
            self.advance(ms(400)).await;
            self.check();
        }
        self.settle();
        while let Some(loan) = self.loans.pop() {
            self.give_back(loan, false);
        }
        self.check();
        assert!(self.attempts.is_empty(), "nobody is left waiting");
        assert!(self.closing.is_none(), "what was closed is closed");
        let pool = self.rig.snapshot();
        assert_eq!((pool.in_flight, pool.queued, pool.connections.used, pool.connections.creating), (0, 0, 0, 0));
        if self.model.closing {
            assert_eq!((pool.connections.live(), self.rig.backend.living()), (0, 0));
        } else {
            assert!(pool.connections.idle <= pool.limits.pool_size, "{:?}", pool.connections);
            self.rig.works();
        }
        let backend = self.rig.backend.clone();
        let collector = self.rig.collector.clone();
        drop(self);
        assert_eq!(backend.living(), 0, "a pool that is dropped leaves nothing behind");
        assert!(collector.snapshots().is_empty());
    }
}

/// Connections were closed for the reasons that the backend knows of.
fn check_reasons(pool: &PoolSnapshot, model: &Model, rig: &Rig) {
    let (creates, pings) = (rig.backend.creates(), rig.backend.pings());
    let closed = |reason: CloseReason| pool.closed[reason.index()];
    assert_eq!(closed(CloseReason::ConnectFailed), creates.failed() as u64, "connect_failed");
    assert_eq!(closed(CloseReason::ConnectAbandoned), creates.abandoned() as u64, "connect_abandoned");
    assert_eq!(closed(CloseReason::Discarded), model.discarded, "discarded");
    let errors = |phase: ErrorPhase, code: &str| {
        let mut found = pool.errors.iter().filter(|errors| errors.phase == phase && errors.code.as_str() == code);
        found.next().map_or(0, |errors| errors.count)
    };
    assert_eq!(errors(ErrorPhase::Connect, "57P03"), creates.failed() as u64, "errors of connecting");
    assert_eq!(errors(ErrorPhase::Ping, "57P03"), pings.failed() as u64, "errors of pings");
    let overdue = errors(ErrorPhase::Ping, "timeout");
    assert_eq!(closed(CloseReason::PingFailed), pings.failed() as u64 + overdue, "ping_failed");
    assert_eq!(closed(CloseReason::PingAbandoned), pings.abandoned() as u64 - overdue, "ping_abandoned");
    // Beside those that came back to a full pool, those that were kept for somebody who then did not come.
    assert!(closed(CloseReason::Overflow) >= model.overflow, "overflow");
    assert!(model.closing || closed(CloseReason::Shutdown) == 0, "shutdown of a pool that is open");
    assert_eq!(
        pool.create_time.count(),
        (creates.begun() - creates.failed() - creates.abandoned() - creates.running()) as u64
    );
}

fn config() -> ProptestConfig {
    let mut config = ProptestConfig::default();
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = SEQUENCES;
    }
    // A sequence that fails is worth a test of its own, in words.
    config.failure_persistence = None;
    config
}

/// How many wait for their turn to connect.
fn suspended(pool: &PoolSnapshot) -> usize {
    pool.waiters.iter().filter(|waiter| waiter.phase == Phase::Suspended).count()
}

async fn drive(settings: Settings, failures: Failures, steps: Arc<[Step]>) {
    let mut world = World::new(&settings, failures);
    let mut before = world.rig.core.snapshot();
    for step in steps.iter() {
        world.take(*step).await;
        world.check();
        let after = world.rig.core.snapshot();
        invariants::check_monotone(&before, &after);
        before = after;
    }
    world.drain().await;
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn every_counter_is_exact_after_every_step(pool_size in 1..=3usize, max_overflow in 0..=2usize, steps in steps(Failures::Single)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(drive(settings(pool_size, max_overflow), Failures::Single, steps.into()));
    }

    #[test]
    fn every_counter_is_right_while_connecting_fails_and_comes_back(
        pool_size in 1..=3usize,
        max_overflow in 0..=2usize,
        fail_fast in any::<bool>(),
        steps in steps(Failures::Outages),
    ) {
        let mut settings = settings(pool_size, max_overflow);
        settings.fail_fast = fail_fast;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(drive(settings, Failures::Outages, steps.into()));
    }
}
