//! Whether connecting may be tried, and by how many at once.
//!
//! When a server goes away, each checkout that needs a new connection would find that out for itself, and all of them
//! at the moment it comes back. So the first failure suspends connecting: from then on one checkout at a time tries,
//! after growing pauses, while the others fail at once or wait, as `fail_fast` says. Its success lets two connect at
//! once, and each further one adds another, so that they double with each round.
//!
//! A server without slots is another matter: what it gave is still there to come back, so whoever cannot have a
//! connection of its own waits for one of those.
//!
//! A connect that is given up after [`PATIENCE`], because its checkout had no more time, is a failure too: a server that
//! does not answer would never be found out by those who do not wait for it.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::backend::Refusal;
use crate::error::Suspension;
use crate::event::{ErrorCode, Event, Phase};
use crate::telemetry::ledger::Watchers;
use crate::telemetry::log::Chain;

/// The pause after the first failure; each one after it is twice as long, up to the longest. What is waited is between
/// half of it and all, so that many processes do not try at the same moment.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(800);

/// How long a connect may take before it says something of the server that it was given up.
const PATIENCE: Duration = Duration::from_secs(1);

/// Lets checkouts connect.
#[derive(Debug)]
pub(super) struct Gate {
    state: Mutex<State>,
    /// How many wait for a turn.
    waiting: AtomicUsize,
    turns: Notify,
    /// How many may ever connect at once.
    most: usize,
    fail_fast: bool,
}

#[derive(Debug)]
struct State {
    /// How many may connect at once.
    limit: usize,
    connecting: usize,
    suspended: Option<Suspended>,
}

/// Connecting fails.
#[derive(Debug)]
struct Suspended {
    refusal: Refusal,
    since: Instant,
    code: ErrorCode,
    message: Arc<str>,
    pause: Duration,
    /// When it is tried next.
    next: Instant,
    /// Whether it is being tried.
    probing: bool,
}

/// Why a checkout may not connect now.
#[derive(Debug)]
pub(crate) enum Shut {
    /// It is to wait for a turn.
    Turn(Turn),
    /// It is not to wait.
    Unavailable(Suspension),
}

/// What a checkout waits for that may not connect.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn {
    pub(super) phase: Phase,
    /// When to look again at the latest.
    until: Option<Instant>,
}

/// The wait for a turn.
pub(super) type Waiting = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Gate {
    pub(super) fn new(most: usize, fail_fast: bool) -> Self {
        let state = State { limit: most, connecting: 0, suspended: None };
        Self { state: Mutex::new(state), waiting: AtomicUsize::new(0), turns: Notify::new(), most, fail_fast }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks whether to connect. `given_up` is what it means if that is given up; `may_come_back`, whether there are
    /// connections that may be returned meanwhile.
    pub(super) fn enter<'a>(
        &'a self,
        watchers: &'a Watchers,
        given_up: Refusal,
        may_come_back: bool,
    ) -> Result<Pass<'a>, Shut> {
        let mut guard = self.state();
        let state = &mut *guard;
        let probes = match &mut state.suspended {
            Some(suspended) if suspended.probing || Instant::now() < suspended.next => {
                return Err(self.shut(suspended, may_come_back));
            }
            Some(suspended) => {
                suspended.probing = true;
                true
            }
            None if state.connecting >= state.limit => {
                return Err(Shut::Turn(Turn { phase: Phase::Suspended, until: None }));
            }
            None => false,
        };
        state.connecting += 1;
        Ok(Pass { gate: self, watchers, probes, given_up, began: Instant::now(), ended: false })
    }

    fn shut(&self, suspended: &Suspended, may_come_back: bool) -> Shut {
        let until = (!suspended.probing).then_some(suspended.next);
        match suspended.refusal {
            Refusal::Full if may_come_back => Shut::Turn(Turn { phase: Phase::Queue, until }),
            _ if self.fail_fast => Shut::Unavailable(suspended.report()),
            _ => Shut::Turn(Turn { phase: Phase::Suspended, until }),
        }
    }

    /// What a checkout waits for that comes when others wait for what comes back, so that it does not get ahead of them.
    #[cold]
    pub(super) fn line(&self) -> Option<Turn> {
        if !self.is_awaited() {
            return None;
        }
        let full = self.state().suspended.as_ref().is_some_and(|suspended| suspended.refusal == Refusal::Full);
        // Should all of them be served before it stands in line, nobody calls it.
        full.then(|| Turn { phase: Phase::Queue, until: Some(Instant::now() + FIRST_PAUSE) })
    }

    /// How connecting stands, if it fails.
    pub(super) fn suspension(&self) -> Option<Suspension> {
        self.state().suspended.as_ref().map(Suspended::report)
    }

    /// Whether anybody waits for a turn.
    #[inline]
    pub(super) fn is_awaited(&self) -> bool {
        self.waiting.load(SeqCst) > 0
    }

    /// A connection came back: the first of those that wait may have it.
    pub(super) fn wake_one(&self) {
        if self.is_awaited() {
            self.turns.notify_one();
        }
    }

    /// Has everyone look again who waits for a turn.
    pub(super) fn wake_all(&self) {
        self.turns.notify_waiters();
    }
}

/// Waits for a turn; registered when it is first polled.
pub(super) fn wait_for(turn: Turn, shared: Arc<super::shared::Shared>) -> Waiting {
    /// Counted as long as it lasts.
    struct Counted<'a>(&'a Gate);
    impl Drop for Counted<'_> {
        fn drop(&mut self) {
            self.0.waiting.fetch_sub(1, SeqCst);
        }
    }
    Box::pin(async move {
        let gate = &shared.gate;
        gate.waiting.fetch_add(1, SeqCst);
        let _counted = Counted(gate);
        let called = gate.turns.notified();
        match turn.until {
            // Whether it was called or not, it looks again.
            Some(until) => drop(timeout_at(until, called).await),
            None => called.await,
        }
    })
}

impl Suspended {
    fn report(&self) -> Suspension {
        Suspension { failing_for: self.since.elapsed(), code: self.code, message: Arc::clone(&self.message) }
    }

    /// Lets the next try wait.
    fn pause(&mut self, now: Instant) {
        self.next = now + self.pause.mul_f64(0.5 + fastrand::f64() / 2.0);
    }
}

/// The leave to connect. Dropped, it says that connecting was given up.
#[must_use]
#[derive(Debug)]
pub(super) struct Pass<'a> {
    gate: &'a Gate,
    watchers: &'a Watchers,
    probes: bool,
    given_up: Refusal,
    began: Instant,
    ended: bool,
}

#[derive(Debug, thiserror::Error)]
#[error("no connection after {0:?}, when its checkout had no more time")]
struct GivenUp(Duration);

impl Pass<'_> {
    /// It is connected.
    pub(super) fn succeeded(mut self) {
        self.ended = true;
        let mut state = self.gate.state();
        state.connecting -= 1;
        // The limit is one since then.
        let resumed = state.suspended.take().map(|suspended| {
            // Told while it is so: another may fail the next moment.
            let resumed = Event::ConnectingResumed { after: suspended.since.elapsed() };
            self.watchers.ledger().record(resumed);
            resumed
        });
        state.limit = (state.limit + 1).min(self.gate.most);
        drop(state);
        if let Some(resumed) = resumed {
            self.watchers.log(resumed);
        }
        self.gate.wake_all();
    }

    /// It is not. Answers whether the checkout is to wait for a turn now, instead of failing.
    pub(super) fn failed(
        mut self,
        refusal: Refusal,
        code: ErrorCode,
        error: &dyn std::error::Error,
        may_come_back: bool,
    ) -> Option<Turn> {
        self.ended = true;
        self.fail(refusal, code, error, may_come_back)
    }

    fn fail(
        &self,
        refusal: Refusal,
        code: ErrorCode,
        error: &dyn std::error::Error,
        may_come_back: bool,
    ) -> Option<Turn> {
        let now = Instant::now();
        let mut state = self.gate.state();
        state.connecting -= 1;
        let mut told = None;
        match (&mut state.suspended, refusal) {
            (None, Refusal::Single) => {
                drop(state);
                self.gate.wake_all();
                return None;
            }
            (Some(suspended), _) => {
                if refusal != Refusal::Single {
                    suspended.refusal = refusal;
                }
                (suspended.code, suspended.message) = (code, Chain(error).to_string().into());
                if self.probes {
                    suspended.probing = false;
                    suspended.pause = (suspended.pause * 2).min(LONGEST_PAUSE);
                    suspended.pause(now);
                }
            }
            (None, Refusal::Down | Refusal::Full) => {
                let message = Chain(error).to_string().into();
                let (pause, next, probing) = (FIRST_PAUSE, now, false);
                let mut suspended = Suspended { refusal, since: now, code, message, pause, next, probing };
                suspended.pause(now);
                state.suspended = Some(suspended);
                state.limit = 1;
                let event = Event::ConnectingSuspended { code, error };
                self.watchers.ledger().record(event);
                told = Some(event);
            }
        }
        let turn = state.suspended.as_ref().and_then(|suspended| match self.gate.shut(suspended, may_come_back) {
            Shut::Turn(turn) => Some(turn),
            Shut::Unavailable(_) => None,
        });
        drop(state);
        if let Some(event) = told {
            self.watchers.log(event);
        }
        self.gate.wake_all();
        turn
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let took = self.began.elapsed();
        if took >= PATIENCE {
            self.fail(self.given_up, ErrorCode::TIMEOUT, &GivenUp(took), false);
            return;
        }
        let mut state = self.gate.state();
        state.connecting -= 1;
        if let Some(suspended) = state.suspended.as_mut().filter(|_| self.probes) {
            // Another one's turn.
            suspended.probing = false;
            suspended.next = Instant::now();
        }
        drop(state);
        self.gate.wake_all();
    }
}
