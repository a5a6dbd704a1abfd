//! Every answer at every step of a checkout, and every way to end one early, at each of its polls.

use std::fmt;

use poolscope::labels::{CloseReason, Outcome, Phase};
use poolscope::telemetry::PoolSnapshot;

use super::backend::{Answer, End};
use super::harness::{Attempt, Got, Held, Rig, ms, settings, settle, totals};

/// Whether the checkout finds a free place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Queue {
    /// It does.
    Free,
    /// After this many polls of the checkout.
    Slow(usize),
    /// It does not.
    Never,
}

/// What the checkout finds in that place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Nothing: it has to connect.
    Empty,
    /// A connection that has to be pinged.
    Stale,
    /// One that is too old.
    Aged,
    /// One that broke while it was idle.
    Broken,
}

/// What ends the checkout, unless it is done before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Drop,
    DropElsewhere,
    Deadline,
    Close,
}

#[derive(Clone, Copy)]
struct Case {
    queue: Queue,
    place: Place,
    ping: Answer,
    connect: Answer,
    ending: Ending,
    /// The ending comes after this many polls.
    polls: usize,
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { queue, place, ping, connect, ending, polls } = self;
        write!(f, "{queue:?} {place:?}, ping {ping:?}, connect {connect:?}, {ending:?} after {polls} polls")
    }
}

const ANSWERS: [Answer; 7] = [
    Answer::Ok,
    Answer::Error,
    Answer::Panic,
    Answer::Slow(End::Ok),
    Answer::Slow(End::Error),
    Answer::Slow(End::Panic),
    Answer::Held,
];
const QUEUES: [Queue; 4] = [Queue::Free, Queue::Slow(1), Queue::Slow(2), Queue::Never];
const PLACES: [Place; 4] = [Place::Empty, Place::Stale, Place::Aged, Place::Broken];
const ENDINGS: [Ending; 4] = [Ending::Drop, Ending::DropElsewhere, Ending::Deadline, Ending::Close];
/// No checkout takes more: two in the queue, two of a slow ping, two of slow connecting, and the last.
const MOST_POLLS: usize = 8;

fn cases() -> impl Iterator<Item = Case> {
    let pings = |place| if place == Place::Stale { &ANSWERS[..] } else { &ANSWERS[..1] };
    QUEUES.into_iter().flat_map(move |queue| {
        let places = if queue == Queue::Never { &PLACES[..1] } else { &PLACES[..] };
        places.iter().flat_map(move |place| {
            pings(*place).iter().flat_map(move |ping| {
                ANSWERS.into_iter().flat_map(move |connect| {
                    ENDINGS.into_iter().map(move |ending| Case {
                        queue,
                        place: *place,
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

/// A pool of two places, one of which a bystander holds throughout.
struct Scene {
    rig: Rig,
    case: Case,
    bystander: Held,
    /// Who keeps the subject in the queue.
    holder: Option<Held>,
    /// Waits behind the subject, if there is nothing left when that has begun.
    successor: Option<Attempt>,
    /// What the subject's outcome was, once it has one.
    outcome: Option<Outcome>,
}

impl Scene {
    async fn set(case: Case) -> Self {
        let mut settings = settings(1, 1);
        let queued = case.queue != Queue::Free;
        if queued {
            // A connection that was just returned is stale only so.
            settings.pre_ping_idle = ms(if case.place == Place::Stale { 0 } else { 500 });
        }
        let rig = Rig::with(&settings);
        let bystander = rig.take("bystander");
        let mut holder = None;
        if queued || case.place != Place::Empty {
            let held = rig.take("holder");
            if queued { holder = Some(held) } else { drop(held) }
        }
        match case.place {
            Place::Empty | Place::Broken => {}
            Place::Stale => rig.advance(ms(500)).await,
            Place::Aged => rig.advance(ms(10_000)).await,
        }
        if !queued && case.place == Place::Broken {
            rig.backend.break_one(1);
        }
        rig.backend.connects(case.connect);
        rig.backend.answers_pings(case.ping);
        Self { rig, case, bystander, holder, successor: None, outcome: None }
    }

    /// The place becomes free, as a connection that is returned or a connection that is not.
    fn free_the_place(&mut self) {
        let Some(held) = self.holder.take() else { return };
        if self.case.place == Place::Empty {
            held.discard();
        } else {
            drop(held);
            if self.case.place == Place::Broken {
                // Broken after it came back: while it was held, it would be closed at its return.
                self.rig.backend.break_one(1);
            }
        }
    }

    /// Checks everything, and that the subject is in the accounts exactly once.
    fn check(&self, begun: bool) -> PoolSnapshot {
        let snapshot = self.rig.snapshot();
        let subject = totals(&snapshot, "subject");
        assert_eq!(subject.started, u64::from(begun), "started");
        assert_eq!(subject.in_flight, u64::from(begun && self.outcome.is_none()), "in flight");
        for outcome in Outcome::ALL {
            assert_eq!(subject.outcomes[outcome.index()], u64::from(self.outcome == Some(*outcome)), "{outcome:?}");
        }
        snapshot
    }

    /// Polls the subject so many times or until it is done; answers with the connection it got, if it did.
    fn run(&mut self, subject: &mut Attempt) -> Option<Held> {
        for poll in 0..self.case.polls {
            if self.case.queue == Queue::Slow(poll) {
                self.free_the_place();
            }
            match subject.try_poll() {
                Ok(None) => {}
                Ok(Some(got)) => return self.ended(got),
                // The panic goes to whoever polls, and unwinds the checkout.
                Err(_) => {
                    self.outcome = Some(Outcome::Cancelled);
                    self.check(true);
                    return None;
                }
            }
            self.check(true);
            if self.successor.is_none() {
                let connects = self.rig.backend.creates().begun();
                self.successor = Some(self.rig.checkout("successor").stays());
                assert_eq!(self.rig.backend.creates().begun(), connects, "the successor waits for a place");
            }
        }
        None
    }

    fn ended(&mut self, got: Got) -> Option<Held> {
        self.outcome = Some(got.as_ref().map_or_else(|error| error.outcome(), |_| Outcome::Ok));
        self.check(true);
        got.ok()
    }

    /// Drops the subject, and checks that what it was busy with is closed for the right reason.
    fn drop_it(&mut self, subject: &mut Attempt) {
        let before = self.rig.snapshot();
        let phase = before.waiters.iter().find(|waiter| &*waiter.operation == "subject").map(|waiter| waiter.phase);
        let gone = Attempt::new(std::future::pending());
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
        // What has panicked is gone already.
        let busy = |phase: Phase| before.waiters.iter().any(|waiter| waiter.phase == phase);
        let alive = before.connections.live() - after.connections.live();
        let closed = |reason: CloseReason| after.closed[reason.index()] - before.closed[reason.index()];
        let connect = before.connections.creating as u64;
        assert_eq!(closed(CloseReason::ConnectAbandoned), connect, "abandoned while connecting");
        if alive > 0 && busy(Phase::Ping) {
            assert_eq!(closed(CloseReason::PingAbandoned), 1, "abandoned while pinging");
        }
    }

    async fn end(&mut self, mut subject: Attempt, held: Option<Held>) {
        if held.is_some() || self.outcome.is_some() {
            drop(held);
            if self.case.ending == Ending::Close {
                self.close(None).await;
            }
            return;
        }
        match self.case.ending {
            Ending::Drop | Ending::DropElsewhere => self.drop_it(&mut subject),
            Ending::Deadline => {
                if subject.polls == 0 {
                    return self.drop_it(&mut subject);
                }
                // The successor would meet its own: it gives up before.
                self.successor = None;
                self.rig.backend.answers_pings(Answer::Held);
                self.rig.backend.connects(Answer::Held);
                self.rig.advance(ms(1001)).await;
                assert!(subject.is_woken(), "the deadline wakes it");
                match subject.try_poll() {
                    Ok(Some(got)) => {
                        let held = self.ended(got);
                        assert!(held.is_some() || self.outcome != Some(Outcome::Closed));
                    }
                    Ok(None) => panic!("the deadline has passed"),
                    Err(_) => self.outcome = Some(Outcome::Cancelled),
                }
            }
            Ending::Close => self.close(Some(subject)).await,
        }
    }

    /// Closes the pool: who waits is told so, and it is done when everything has come back.
    async fn close(&mut self, subject: Option<Attempt>) {
        let core = self.rig.core.clone();
        let mut closing = Attempt::new(async move { core.close().await }).stays();
        self.rig.backend.recovers();
        let mut waiting: Vec<_> = self.successor.take().into_iter().collect();
        for waiter in &waiting {
            assert!(waiter.is_woken(), "who waits for a place is told");
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
                // It is held by the backend: only dropping it ends it.
                self.drop_it(&mut subject);
            }
        }
        let mut done = Vec::new();
        while let Some(place) = waiting.iter().position(Attempt::is_woken) {
            let polled = waiting[place].try_poll();
            let tag = waiting[place].tag;
            match polled {
                Ok(None) => continue,
                Ok(Some(got)) => done.push((tag, Some(got))),
                Err(_) => done.push((tag, None)),
            }
            drop(waiting.remove(place));
        }
        assert!(waiting.is_empty(), "nobody waits for a pool that is closed");
        for (tag, got) in done {
            let outcome =
                got.map_or(Outcome::Cancelled, |got| got.map_or_else(|error| error.outcome(), |_| Outcome::Ok));
            assert_ne!(outcome, Outcome::Ok, "a closed pool gives nothing");
            if tag == (1, 0) {
                self.outcome = Some(outcome);
            } else {
                assert_eq!(outcome, Outcome::Closed);
            }
        }
        assert!(closing.poll().is_none(), "the bystander still holds one");
    }

    /// Afterwards the successor is served, without further help, and the pool is whole.
    async fn afterwards(mut self) {
        self.rig.backend.recovers();
        let closed = self.rig.core.is_closed();
        drop(self.holder.take());
        if let Some(mut successor) = self.successor.take() {
            // It may have begun to work for itself meanwhile, by polls that were due to it.
            assert!(!closed);
            assert!(successor.is_woken(), "its turn has come");
            let got = successor.poll().expect("the backend is well");
            drop(got.expect("the backend is well"));
        }
        if closed {
            drop(self.bystander);
            let core = self.rig.core.clone();
            assert!(Attempt::new(async move { core.close().await }).poll().is_some(), "all have come back");
            let snapshot = self.rig.snapshot();
            assert_eq!((snapshot.connections.live(), snapshot.in_flight, self.rig.backend.living()), (0, 0, 0));
        } else {
            drop(self.bystander);
            let snapshot = self.rig.snapshot();
            assert_eq!((snapshot.in_flight, snapshot.queued, snapshot.connections.used), (0, 0, 0));
            self.rig.works();
        }
    }
}

/// Says which case failed.
struct Naming(Case);

impl Drop for Naming {
    #[allow(clippy::print_stderr, reason = "the harness shows it beside the panic")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the case: {:?}", self.0);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn every_checkout_has_one_outcome_and_leaks_nothing_wherever_it_ends() {
    let mut ran = 0;
    for mut case in cases() {
        for polls in 0..=MOST_POLLS {
            case.polls = polls;
            let _naming = Naming(case);
            let mut scene = Scene::set(case).await;
            let mut subject = scene.rig.checkout("subject");
            let held = scene.run(&mut subject);
            let early = scene.outcome.is_some();
            scene.end(subject, held).await;
            scene.afterwards().await;
            ran += 1;
            // It was done by itself: further polls change nothing.
            if early {
                break;
            }
        }
    }
    assert!(ran > 4000, "{ran} cases");
}

#[tokio::test(start_paused = true)]
async fn a_wake_up_that_was_due_to_a_dropped_waiter_goes_to_the_next() {
    for waiters in 2..5 {
        let rig = Rig::new(1, 0);
        let held = rig.take("holder");
        let mut queue: Vec<_> = (0..waiters).map(|_| rig.checkout("waiter").stays()).collect();
        drop(held);
        // One after another is woken, and leaves without a look.
        while queue.len() > 1 {
            assert!(queue[0].is_woken());
            queue.remove(0);
            rig.snapshot();
        }
        let mut served = 0;
        settle(&mut queue, |_, got| served += usize::from(got.is_ok()));
        assert_eq!(served, 1);
        rig.works();
    }
}

#[tokio::test(start_paused = true)]
async fn a_guard_that_is_dropped_on_another_thread_comes_back() {
    let rig = Rig::new(1, 1);
    let held = rig.take_many("holder", 2);
    let mut waiting = vec![rig.checkout("waiter").stays()];
    std::thread::spawn(|| drop(held)).join().unwrap();
    settle(&mut waiting, |_, got| drop(got.unwrap()));
    assert!(waiting.is_empty());
    assert_eq!(rig.totals("holder").returned, 2);
    rig.works();
}

#[tokio::test(start_paused = true)]
async fn a_panic_while_a_connection_is_held_returns_it() {
    let rig = Rig::new(1, 0);
    let core = rig.core.clone();
    let mut attempt = Attempt::new(async move {
        let _held = core.operation("panics").get().await.unwrap();
        std::panic::resume_unwind(Box::new("scripted"))
    });
    let polled: std::thread::Result<Option<()>> = attempt.try_poll();
    assert!(polled.is_err());
    assert_eq!(rig.totals("panics").returned, 1);
    assert_eq!(rig.snapshot().connections.idle, 1);
    rig.works();
}

#[tokio::test(start_paused = true)]
async fn a_panic_before_there_was_anything_to_wait_for_is_a_checkout_too() {
    let rig = Rig::new(1, 0);
    drop(rig.take("first"));
    rig.backend.panics_when_looked_at(true);
    assert!(rig.checkout("panics").try_poll().is_err());
    rig.backend.panics_when_looked_at(false);
    assert_eq!((rig.totals("panics").started, rig.outcomes("panics", Outcome::Cancelled)), (1, 1));
    rig.works();
}

#[tokio::test(start_paused = true)]
async fn a_checkout_that_is_polled_again_after_it_failed_is_not_counted_again() {
    let rig = Rig::new(1, 0);
    rig.backend.next_connect(Answer::Error);
    let mut attempt = rig.checkout("fails");
    assert!(attempt.poll().unwrap().is_err());
    assert_eq!(rig.outcomes("fails", Outcome::Error), 1);
    drop(attempt);
    assert_eq!(rig.totals("fails").started, 1);
    rig.works();
}

#[tokio::test(start_paused = true)]
async fn a_future_that_is_never_polled_is_no_checkout() {
    let rig = Rig::new(1, 0);
    drop(rig.checkout("never"));
    assert_eq!(rig.totals("never").started, 0);
    rig.works();
}
