//! The cancellation matrix: every backend behavior at every step of a checkout, and every way to end the checkout
//! early,
//! at each of its polls.

use std::fmt;

use poolscope::labels::{CloseReason, Outcome, Phase};
use poolscope::telemetry::PoolSnapshot;

use super::backend::{Behavior, Completion};
use super::harness::{CheckoutResult, ManualFuture, TestGuard, TestPool, ms, poll_woken, settings, totals};

/// When the checkout gets a slot of the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SlotWait {
    /// At once.
    Free,
    /// After this many polls of the checkout.
    Slow(usize),
    /// Never.
    Never,
}

/// What the slot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SlotState {
    /// No connection: the checkout has to connect.
    Empty,
    /// A connection that has to be pinged.
    Stale,
    /// A connection past its age limit.
    Aged,
    /// A connection that broke while it was idle.
    Broken,
}

/// How the checkout is ended, unless it completes before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Drop,
    DropElsewhere,
    Deadline,
    Close,
}

#[derive(Clone, Copy)]
struct Case {
    wait: SlotWait,
    slot: SlotState,
    ping: Behavior,
    connect: Behavior,
    ending: Ending,
    /// Number of polls before the ending.
    polls: usize,
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { wait, slot, ping, connect, ending, polls } = self;
        write!(f, "{wait:?} {slot:?}, ping {ping:?}, connect {connect:?}, {ending:?} after {polls} polls")
    }
}

const BEHAVIORS: [Behavior; 7] = [
    Behavior::Ok,
    Behavior::Error,
    Behavior::Panic,
    Behavior::Slow(Completion::Ok),
    Behavior::Slow(Completion::Error),
    Behavior::Slow(Completion::Panic),
    Behavior::Blocked,
];
const SLOT_WAITS: [SlotWait; 4] = [SlotWait::Free, SlotWait::Slow(1), SlotWait::Slow(2), SlotWait::Never];
const SLOT_STATES: [SlotState; 4] = [SlotState::Empty, SlotState::Stale, SlotState::Aged, SlotState::Broken];
const ENDINGS: [Ending; 4] = [Ending::Drop, Ending::DropElsewhere, Ending::Deadline, Ending::Close];
/// No checkout needs more: two in the queue, two of a slow ping, two of a slow connect, and a last one.
const MAX_POLLS: usize = 8;

fn cases() -> impl Iterator<Item = Case> {
    let pings = |slot| if slot == SlotState::Stale { &BEHAVIORS[..] } else { &BEHAVIORS[..1] };
    SLOT_WAITS.into_iter().flat_map(move |wait| {
        let slots = if wait == SlotWait::Never { &SLOT_STATES[..1] } else { &SLOT_STATES[..] };
        slots.iter().flat_map(move |slot| {
            pings(*slot).iter().flat_map(move |ping| {
                BEHAVIORS.into_iter().flat_map(move |connect| {
                    ENDINGS.into_iter().map(move |ending| Case {
                        wait,
                        slot: *slot,
                        ping: *ping,
                        connect,
                        ending,
                        polls: 0,
                    })
                })
            })
        })
    })
}

/// A pool of two slots, one of which a bystander holds throughout.
struct Fixture {
    test: TestPool,
    case: Case,
    bystander: TestGuard,
    /// The guard that keeps the subject in the queue.
    holder: Option<TestGuard>,
    /// Waits behind the subject, if no slot is left when the subject has started.
    successor: Option<ManualFuture>,
    /// The subject's outcome, once it has one.
    outcome: Option<Outcome>,
}

impl Fixture {
    async fn new(case: Case) -> Self {
        let mut settings = settings(1, 1);
        let queued = case.wait != SlotWait::Free;
        if queued {
            // A connection that was just returned is stale only with zero.
            settings.pre_ping_idle = ms(if case.slot == SlotState::Stale { 0 } else { 500 });
        }
        let test = TestPool::with(&settings);
        let bystander = test.get("bystander");
        let mut holder = None;
        if queued || case.slot != SlotState::Empty {
            let held = test.get("holder");
            if queued { holder = Some(held) } else { drop(held) }
        }
        match case.slot {
            SlotState::Empty | SlotState::Broken => {}
            SlotState::Stale => test.advance(ms(500)).await,
            SlotState::Aged => test.advance(ms(10_000)).await,
        }
        if !queued && case.slot == SlotState::Broken {
            test.backend.break_connection(1);
        }
        test.backend.set_connect(case.connect);
        test.backend.set_ping(case.ping);
        Self { test, case, bystander, holder, successor: None, outcome: None }
    }

    /// Frees the slot, with or without a connection in it.
    fn free_slot(&mut self) {
        let Some(held) = self.holder.take() else { return };
        if self.case.slot == SlotState::Empty {
            held.discard();
        } else {
            drop(held);
            if self.case.slot == SlotState::Broken {
                // Broken after its return: a connection that breaks while held is closed on return.
                self.test.backend.break_connection(1);
            }
        }
    }

    /// Checks all invariants, and that the subject is counted exactly once.
    fn check(&self, started: bool) -> PoolSnapshot {
        let snapshot = self.test.snapshot();
        let subject = totals(&snapshot, "subject");
        assert_eq!(subject.started, u64::from(started), "started");
        assert_eq!(subject.in_flight, u64::from(started && self.outcome.is_none()), "in flight");
        for outcome in Outcome::ALL {
            assert_eq!(subject.outcomes[outcome.index()], u64::from(self.outcome == Some(*outcome)), "{outcome:?}");
        }
        snapshot
    }

    /// Polls the subject at most `case.polls` times. Returns its connection if it got one.
    fn run(&mut self, subject: &mut ManualFuture) -> Option<TestGuard> {
        for poll in 0..self.case.polls {
            if self.case.wait == SlotWait::Slow(poll) {
                self.free_slot();
            }
            match subject.try_poll() {
                Ok(None) => {}
                Ok(Some(result)) => return self.finish(result),
                // The panic propagates to the poller and unwinds the checkout.
                Err(_) => {
                    self.outcome = Some(Outcome::Cancelled);
                    self.check(true);
                    return None;
                }
            }
            self.check(true);
            if self.successor.is_none() {
                let connects = self.test.backend.creates().started();
                self.successor = Some(self.test.checkout("successor").assert_pending());
                assert_eq!(self.test.backend.creates().started(), connects, "the successor waits for a slot");
            }
        }
        None
    }

    fn finish(&mut self, result: CheckoutResult) -> Option<TestGuard> {
        self.outcome = Some(result.as_ref().map_or_else(|error| error.outcome(), |_| Outcome::Ok));
        self.check(true);
        result.ok()
    }

    /// Drops the subject, and checks that its connection is closed with the right reason.
    fn drop_subject(&mut self, subject: &mut ManualFuture) {
        let before = self.test.snapshot();
        let phase = before.waiters.iter().find(|waiter| &*waiter.operation == "subject").map(|waiter| waiter.phase);
        let gone = ManualFuture::new(std::future::pending());
        let subject = std::mem::replace(subject, gone);
        if self.case.ending == Ending::DropElsewhere {
            std::thread::spawn(|| drop(subject)).join().unwrap();
        } else {
            drop(subject);
        }
        if phase.is_some() {
            self.outcome = Some(Outcome::Cancelled);
        }
        let after = self.check(phase.is_some());
        // A checkout that panicked is already gone.
        let busy = |phase: Phase| before.waiters.iter().any(|waiter| waiter.phase == phase);
        let alive = before.connections.live() - after.connections.live();
        let closed = |reason: CloseReason| after.closed[reason.index()] - before.closed[reason.index()];
        // An attempt to connect goes on, unless the pool is closed.
        let going_on = if self.test.pool.is_closed() { 0 } else { before.connections.creating };
        assert_eq!(after.connections.creating, going_on, "an attempt to connect");
        assert_eq!(closed(CloseReason::ConnectAbandoned), (before.connections.creating - going_on) as u64);
        if alive > 0 && busy(Phase::Ping) {
            assert_eq!(closed(CloseReason::PingAbandoned), 1, "abandoned while pinging");
        }
    }

    async fn end(&mut self, mut subject: ManualFuture, held: Option<TestGuard>) {
        if held.is_some() || self.outcome.is_some() {
            drop(held);
            if self.case.ending == Ending::Close {
                self.close(None).await;
            }
            return;
        }
        match self.case.ending {
            Ending::Drop | Ending::DropElsewhere => self.drop_subject(&mut subject),
            Ending::Deadline => {
                if subject.polls == 0 {
                    return self.drop_subject(&mut subject);
                }
                // Its own deadline would pass as well.
                self.successor = None;
                self.test.backend.set_ping(Behavior::Blocked);
                self.test.backend.set_connect(Behavior::Blocked);
                self.test.advance(ms(1001)).await;
                assert!(subject.is_woken(), "woken by its deadline");
                match subject.try_poll() {
                    Ok(Some(result)) => {
                        let held = self.finish(result);
                        assert!(held.is_some() || self.outcome != Some(Outcome::Closed));
                    }
                    Ok(None) => panic!("the deadline has passed"),
                    Err(_) => self.outcome = Some(Outcome::Cancelled),
                }
            }
            Ending::Close => self.close(Some(subject)).await,
        }
    }

    /// Closes the pool: waiters fail, and closing completes when all connections have been returned.
    async fn close(&mut self, subject: Option<ManualFuture>) {
        let pool = self.test.pool.clone();
        let mut closing = ManualFuture::new(async move { pool.close().await }).assert_pending();
        self.test.backend.recover();
        let mut waiting: Vec<_> = self.successor.take().into_iter().collect();
        for waiter in &waiting {
            assert!(waiter.is_woken(), "waiters are woken");
        }
        if let Some(mut subject) = subject {
            if subject.polls == 0 {
                assert_eq!(subject.poll().unwrap().unwrap_err().outcome(), Outcome::Closed);
                self.outcome = Some(Outcome::Closed);
                self.check(true);
            } else if subject.is_woken() {
                subject.tag = (1, 0);
                waiting.push(subject);
            } else {
                // The backend blocks it, so only dropping it ends it.
                self.drop_subject(&mut subject);
            }
        }
        let mut done = Vec::new();
        while let Some(index) = waiting.iter().position(ManualFuture::is_woken) {
            let polled = waiting[index].try_poll();
            let tag = waiting[index].tag;
            match polled {
                Ok(None) => continue,
                Ok(Some(result)) => done.push((tag, Some(result))),
                Err(_) => done.push((tag, None)),
            }
            drop(waiting.remove(index));
        }
        assert!(waiting.is_empty(), "no checkout waits for a closed pool");
        for (tag, result) in done {
            let outcome = result
                .map_or(Outcome::Cancelled, |result| result.map_or_else(|error| error.outcome(), |_| Outcome::Ok));
            assert_ne!(outcome, Outcome::Ok, "a closed pool returns no connection");
            if tag == (1, 0) {
                self.outcome = Some(outcome);
            } else {
                assert_eq!(outcome, Outcome::Closed);
            }
        }
        assert!(closing.poll().is_none(), "the bystander still holds a connection");
    }

    /// Checks that the successor is served without further help, and that the pool is fully usable.
    async fn check_afterwards(mut self) {
        self.test.backend.recover();
        let closed = self.test.pool.is_closed();
        self.test.release_all(Completion::Ok).await;
        drop(self.holder.take());
        if let Some(mut successor) = self.successor.take() {
            // It may have begun to connect or ping meanwhile, in polls of its own.
            assert!(!closed);
            assert!(successor.is_woken(), "it is woken");
            let result = successor.poll().expect("backend succeeds");
            drop(result.expect("backend succeeds"));
        }
        if closed {
            drop(self.bystander);
            let pool = self.test.pool.clone();
            assert!(
                ManualFuture::new(async move { pool.close().await }).poll().is_some(),
                "all connections are returned"
            );
            let snapshot = self.test.snapshot();
            assert_eq!((snapshot.connections.live(), snapshot.in_flight, self.test.backend.live()), (0, 0, 0));
        } else {
            drop(self.bystander);
            let snapshot = self.test.snapshot();
            assert_eq!((snapshot.in_flight, snapshot.queued, snapshot.connections.used), (0, 0, 0));
            self.test.assert_usable();
        }
    }
}

/// Prints the failing case.
struct PrintCaseOnPanic(Case);

impl Drop for PrintCaseOnPanic {
    #[allow(clippy::print_stderr, reason = "shown beside the panic")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failing case: {:?}", self.0);
        }
    }
}

/// Ends a checkout at every step, in every way: it has exactly one outcome, and nothing leaks.
#[tokio::test(start_paused = true)]
async fn every_checkout_has_exactly_one_outcome() {
    let mut ran = 0;
    for mut case in cases() {
        for polls in 0..=MAX_POLLS {
            case.polls = polls;
            let _print_case = PrintCaseOnPanic(case);
            let mut fixture = Fixture::new(case).await;
            let mut subject = fixture.test.checkout("subject");
            let held = fixture.run(&mut subject);
            let early = fixture.outcome.is_some();
            fixture.end(subject, held).await;
            fixture.check_afterwards().await;
            ran += 1;
            // The checkout completed: further polls change nothing.
            if early {
                break;
            }
        }
    }
    assert!(ran > 4000, "{ran} cases");
}

#[tokio::test(start_paused = true)]
async fn wakeup_of_dropped_waiter_goes_to_the_next() {
    for waiters in 2..5 {
        let test = TestPool::new(1, 0);
        let held = test.get("holder");
        let mut queue: Vec<_> = (0..waiters).map(|_| test.checkout("waiter").assert_pending()).collect();
        drop(held);
        // Each is woken in turn, and is dropped without being polled.
        while queue.len() > 1 {
            assert!(queue[0].is_woken());
            queue.remove(0);
            test.snapshot();
        }
        let mut served = 0;
        poll_woken(&mut queue, |_, result| served += usize::from(result.is_ok()));
        assert_eq!(served, 1);
        test.assert_usable();
    }
}

#[tokio::test(start_paused = true)]
async fn guard_dropped_on_another_thread_is_returned() {
    let test = TestPool::new(1, 1);
    let held = test.get_many("holder", 2);
    let mut waiting = vec![test.checkout("waiter").assert_pending()];
    std::thread::spawn(|| drop(held)).join().unwrap();
    poll_woken(&mut waiting, |_, result| drop(result.unwrap()));
    assert!(waiting.is_empty());
    assert_eq!(test.totals("holder").returned, 2);
    test.assert_usable();
}

#[tokio::test(start_paused = true)]
async fn panic_while_holding_returns_the_connection() {
    let test = TestPool::new(1, 0);
    let pool = test.pool.clone();
    let mut attempt = ManualFuture::new(async move {
        let _held = pool.operation("panics").get().await.unwrap();
        std::panic::resume_unwind(Box::new("scripted"))
    });
    let polled: std::thread::Result<Option<()>> = attempt.try_poll();
    assert!(polled.is_err());
    assert_eq!(test.totals("panics").returned, 1);
    assert_eq!(test.snapshot().connections.idle, 1);
    test.assert_usable();
}

#[tokio::test(start_paused = true)]
async fn panic_before_first_wait_counts_as_cancelled() {
    let test = TestPool::new(1, 0);
    drop(test.get("first"));
    test.backend.panic_in_is_broken(true);
    assert!(test.checkout("panics").try_poll().is_err());
    test.backend.panic_in_is_broken(false);
    assert_eq!((test.totals("panics").started, test.outcomes("panics", Outcome::Cancelled)), (1, 1));
    test.assert_usable();
}

#[tokio::test(start_paused = true)]
async fn failed_checkout_is_counted_once() {
    let test = TestPool::new(1, 0);
    test.backend.push_connect(Behavior::Error);
    let mut attempt = test.checkout("fails");
    assert!(attempt.poll().unwrap().is_err());
    assert_eq!(test.outcomes("fails", Outcome::Error), 1);
    drop(attempt);
    assert_eq!(test.totals("fails").started, 1);
    test.assert_usable();
}

#[tokio::test(start_paused = true)]
async fn unpolled_future_is_not_counted() {
    let test = TestPool::new(1, 0);
    drop(test.checkout("never"));
    assert_eq!(test.totals("never").started, 0);
    test.assert_usable();
}
