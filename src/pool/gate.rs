//! Whether connecting may be tried, and by how many at once.
//!
//! When a server goes away, each checkout that needs a new connection would find that out for itself, and all of them
//! at the moment it comes back. So the first failure suspends connecting: from then on one checkout at a time tries,
//! after growing pauses, while the others fail at once or wait, as `fail_fast` says. Its success lets two connect at
//! once, and each further one adds another, so that they double with each round.
//!
//! A server without slots is another matter: what it gave is still there to come back, so whoever cannot have a
//! connection of its own waits for one of those; or for what those get who began to connect before that was known.
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
use crate::error::ConnectBackoff;
use crate::labels::{ErrorCode, Phase};
use crate::telemetry::ledger::Recorder;
use crate::telemetry::log::Chain;

/// The pause after the first failure; each one after it is twice as long, up to the longest. What is waited is between
/// half of it and all, so that many processes do not try at the same moment.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(800);

/// How long after the last failure nothing is known any more, if nobody has tried since.
const MEMORY: Duration = Duration::from_secs(10);

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
    /// How long the others leave it to those who connect. Who is at it and is not polled would keep them from it for ever.
    lease: Duration,
}

#[derive(Debug)]
struct State {
    /// How many may connect at once.
    limit: usize,
    connecting: usize,
    /// How many of them do so for themselves, and not on behalf of all.
    hopeful: usize,
    /// When one last began or ended.
    moved: Instant,
    /// How many have tried on behalf of all.
    probes: u64,
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
    /// Who tries, and until when it is left to that one.
    probing: Option<(u64, Instant)>,
}

impl State {
    fn join(&mut self, probes: Option<u64>, now: Instant) {
        self.connecting += 1;
        self.hopeful += usize::from(probes.is_none());
        self.moved = now;
    }

    /// One that connects has ended.
    fn leave(&mut self, probes: Option<u64>) {
        self.connecting -= 1;
        self.hopeful -= usize::from(probes.is_none());
        self.moved = Instant::now();
    }
}

/// Why a checkout may not connect now.
#[derive(Debug)]
pub(crate) enum Denied {
    /// It is to wait for a turn.
    RetryAt(RetryAt),
    /// It is not to wait.
    Unavailable(ConnectBackoff),
}

/// What a checkout waits for that may not connect.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RetryAt {
    pub(super) phase: Phase,
    /// When to look again at the latest. A connection that comes back in the very moment in which a wait begins may call
    /// nobody: to make sure of that would cost each return.
    until: Instant,
}

/// The wait for a turn.
pub(super) type Waiting = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Gate {
    /// At most so many may connect at once; to connect should take no longer than `connect_timeout`.
    pub(super) fn new(most: usize, fail_fast: bool, connect_timeout: Duration) -> Self {
        let state = State { limit: most, connecting: 0, hopeful: 0, moved: Instant::now(), probes: 0, suspended: None };
        let lease = connect_timeout.saturating_add(PATIENCE);
        Self { state: Mutex::new(state), waiting: AtomicUsize::new(0), turns: Notify::new(), most, fail_fast, lease }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks whether to connect. `given_up` is what it means if that is given up; `any_out`, whether there are connections
    /// that may be returned meanwhile.
    pub(super) fn enter<'a>(
        &'a self,
        recorder: &'a Recorder,
        given_up: Refusal,
        any_out: impl FnOnce() -> bool,
    ) -> Result<ConnectPermit<'a>, Denied> {
        let mut guard = self.state();
        let state = &mut *guard;
        let now = Instant::now();
        let probes = match &mut state.suspended {
            Some(suspended) if now < suspended.probing.map_or(suspended.next, |(_, until)| until) => {
                return Err(self.shut(suspended, state.hopeful, now, any_out));
            }
            Some(suspended) => {
                state.probes += 1;
                suspended.probing = Some((state.probes, now + self.lease));
                Some(state.probes)
            }
            None if state.connecting >= state.limit && now < state.moved + self.lease => {
                return Err(Denied::RetryAt(RetryAt { phase: Phase::Suspended, until: now + LONGEST_PAUSE }));
            }
            None => None,
        };
        state.join(probes, now);
        Ok(ConnectPermit { gate: self, recorder, probes, given_up, began: now, ended: false })
    }

    fn shut(&self, suspended: &Suspended, hopeful: usize, now: Instant, any_out: impl FnOnce() -> bool) -> Denied {
        let until = if suspended.probing.is_some() { now + LONGEST_PAUSE } else { suspended.next };
        match suspended.refusal {
            // Asked in this order: who is no longer hopeful, and has a connection, has been counted as one that has.
            Refusal::Full if hopeful > 0 || any_out() => Denied::RetryAt(RetryAt { phase: Phase::Queue, until }),
            _ if self.fail_fast => Denied::Unavailable(suspended.report()),
            _ => Denied::RetryAt(RetryAt { phase: Phase::Suspended, until }),
        }
    }

    /// What a checkout waits for that comes when others wait, so that it does not get ahead of them; nothing if more lie
    /// idle than they can take.
    #[cold]
    pub(super) fn line(&self, idle: usize) -> Option<RetryAt> {
        let waiting = self.waiting.load(SeqCst);
        if waiting == 0 || idle > waiting {
            return None;
        }
        let full = self.state().suspended.as_ref().is_some_and(|suspended| suspended.refusal == Refusal::Full);
        let phase = if full { Phase::Queue } else { Phase::Suspended };
        // Should all of them be served before it stands in line, nobody calls it.
        Some(RetryAt { phase, until: Instant::now() + FIRST_PAUSE })
    }

    /// Whether connecting is known to fail.
    #[cold]
    pub(super) fn is_shut(&self) -> bool {
        self.backoff().is_some()
    }

    /// A connection is gone, and with it one that the server counts: if it has no slots left, it may have now.
    pub(super) fn slot_freed(&self) {
        if !self.is_awaited() {
            return;
        }
        if let Some(suspended) = self.state().suspended.as_mut().filter(|suspended| suspended.refusal == Refusal::Full)
        {
            suspended.next = Instant::now();
        }
        self.wake_one();
    }

    /// How connecting stands, if it fails.
    pub(super) fn backoff(&self) -> Option<ConnectBackoff> {
        let state = self.state();
        let known = state.suspended.as_ref().filter(|suspended| suspended.next.elapsed() < MEMORY);
        known.map(Suspended::report)
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
pub(super) fn wait_for(turn: RetryAt, shared: Arc<super::shared::Shared>) -> Waiting {
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
        // Whether it was called or not, it looks again.
        let _ = timeout_at(turn.until, called).await;
    })
}

impl Suspended {
    fn report(&self) -> ConnectBackoff {
        ConnectBackoff { failing_for: self.since.elapsed(), code: self.code, message: Arc::clone(&self.message) }
    }

    /// Whether it is this one that tries.
    fn is_probed_by(&self, probe: Option<u64>) -> bool {
        self.probing.is_some_and(|(id, _)| probe == Some(id))
    }

    /// Lets the next try wait.
    fn pause(&mut self, now: Instant) {
        self.next = now + self.pause.mul_f64(0.5 + fastrand::f64() / 2.0);
    }
}

/// The leave to connect. Dropped, it says that connecting was given up.
#[must_use]
#[derive(Debug)]
pub(super) struct ConnectPermit<'a> {
    gate: &'a Gate,
    recorder: &'a Recorder,
    /// Which of those it is that try on behalf of all, if it is one.
    probes: Option<u64>,
    given_up: Refusal,
    began: Instant,
    ended: bool,
}

#[derive(Debug, thiserror::Error)]
#[error("no connection after {0:?}, when its checkout had no more time")]
struct GivenUp(Duration);

impl ConnectPermit<'_> {
    /// It is connected.
    pub(super) fn succeeded(mut self) {
        self.ended = true;
        let mut state = self.gate.state();
        state.leave(self.probes);
        // The limit is one since then.
        let resumed = state.suspended.take().map(|suspended| {
            // Told while it is so: another may fail the next moment.
            self.recorder.ledger().connecting_resumed();
            suspended.since.elapsed()
        });
        state.limit = (state.limit + 1).min(self.gate.most);
        drop(state);
        if let Some(resumed) = resumed {
            self.recorder.log().connecting_resumed(resumed);
        }
        self.gate.wake_all();
    }

    /// It is not. Answers whether the checkout is to wait for a turn now, instead of failing.
    pub(super) fn failed(
        mut self,
        refusal: Refusal,
        code: ErrorCode,
        error: &dyn std::error::Error,
        any_out: impl FnOnce() -> bool,
    ) -> Option<RetryAt> {
        let turn = self.fail(refusal, code, error, any_out);
        self.ended = true;
        turn
    }

    fn fail(
        &self,
        refusal: Refusal,
        code: ErrorCode,
        error: &dyn std::error::Error,
        any_out: impl FnOnce() -> bool,
    ) -> Option<RetryAt> {
        let now = Instant::now();
        // Not under the lock: it is the backend's own, and may do anything.
        let message: Arc<str> = Chain(error).to_string().into();
        let mut state = self.gate.state();
        state.leave(self.probes);
        let mut told = false;
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
                (suspended.code, suspended.message) = (code, message);
                if suspended.is_probed_by(self.probes) {
                    suspended.probing = None;
                    suspended.pause = (suspended.pause * 2).min(LONGEST_PAUSE);
                    suspended.pause(now);
                }
            }
            (None, Refusal::Down | Refusal::Full) => {
                let (pause, next, probing) = (FIRST_PAUSE, now, None);
                let mut suspended = Suspended { refusal, since: now, code, message, pause, next, probing };
                suspended.pause(now);
                state.suspended = Some(suspended);
                state.limit = 1;
                self.recorder.ledger().connecting_suspended();
                told = true;
            }
        }
        let hopeful = state.hopeful;
        let shut = state.suspended.as_ref().map(|suspended| self.gate.shut(suspended, hopeful, now, any_out));
        drop(state);
        if told {
            self.recorder.log().connecting_suspended(code, error);
        }
        self.gate.wake_all();
        match shut {
            Some(Denied::RetryAt(turn)) => Some(turn),
            Some(Denied::Unavailable(_)) | None => None,
        }
    }
}

impl Drop for ConnectPermit<'_> {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let took = self.began.elapsed();
        if took >= PATIENCE {
            self.fail(self.given_up, ErrorCode::TIMEOUT, &GivenUp(took), || false);
            return;
        }
        let mut state = self.gate.state();
        state.leave(self.probes);
        if let Some(suspended) = state.suspended.as_mut().filter(|suspended| suspended.is_probed_by(self.probes)) {
            // Another one's turn.
            suspended.probing = None;
            suspended.next = Instant::now();
        }
        drop(state);
        self.gate.wake_all();
    }
}
