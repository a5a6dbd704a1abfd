//! The gate's state machine.

use std::sync::Arc;
use std::time::Duration;

use super::{
    CONNECT_FAILURE_TTL, MAX_BACKOFF, MAX_CONFIGURATION_BACKOFF, MIN_BACKOFF, MIN_CONFIGURATION_BACKOFF,
    SHORTAGE_TOLERANCE, jittered,
};
use crate::error::ConnectBackoff;
use crate::labels::{ConnectFailure, ErrorCode};
use crate::sync::Instant;

/// The number of checkouts that may connect at once. See the diagram in the [parent module](super).
#[derive(Debug, Default)]
enum State {
    /// Any number.
    #[default]
    Open,
    /// No checkout, until the next attempt is due.
    Suspended(Outage),
    /// One checkout on behalf of all, until its lease expires.
    Probing { outage: Outage, probe: u64, lease_end: Instant },
    /// At most `limit`, after connecting has succeeded again.
    Ramping { limit: usize },
}

/// A time during which connecting fails.
#[derive(Debug)]
pub(super) struct Outage {
    /// The kind of the last failure that was evidence of an outage.
    pub(super) failure: ConnectFailure,
    pub(super) since: Instant,
    pub(super) code: ErrorCode,
    pub(super) message: Arc<str>,
    /// When the next attempt is due, or was when the current probe began.
    pub(super) due: Instant,
    pause: Duration,
}

impl Outage {
    fn new(failure: ConnectFailure, code: ErrorCode, message: Arc<str>, now: Instant) -> Self {
        let pause = pause_bounds(failure).0;
        let mut outage = Self { failure, since: now, code, message, due: now, pause };
        outage.schedule(now);
        outage
    }

    /// Returns whether the server is out of connection slots, rather than down.
    pub(super) fn is_full(&self) -> bool {
        self.failure == ConnectFailure::TooManyConnections
    }

    /// Returns whether an attempt was due within [`CONNECT_FAILURE_TTL`].
    pub(super) fn is_recent(&self) -> bool {
        self.due.elapsed() < CONNECT_FAILURE_TTL
    }

    fn schedule(&mut self, now: Instant) {
        self.due = now + jittered(self.pause);
    }

    /// Schedules the next attempt after a longer pause.
    fn back_off(&mut self, now: Instant) {
        let (min, max) = pause_bounds(self.failure);
        self.pause = (self.pause * 2).clamp(min, max);
        self.schedule(now);
    }

    pub(super) fn report(&self) -> ConnectBackoff {
        let Self { failure, since, code, .. } = *self;
        ConnectBackoff {
            failing_for: since.elapsed(),
            failure,
            code,
            message: Arc::clone(&self.message),
            attempted: false,
        }
    }
}

/// Returns the bounds of the pause before an attempt after failures of this kind.
fn pause_bounds(failure: ConnectFailure) -> (Duration, Duration) {
    match failure {
        ConnectFailure::Configuration => (MIN_CONFIGURATION_BACKOFF, MAX_CONFIGURATION_BACKOFF),
        _ => (MIN_BACKOFF, MAX_BACKOFF),
    }
}

/// The effect of a failed connect on the others, and on its checkout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// None.
    Unchanged,
    /// Connecting is suspended, and was not before.
    Suspends,
    /// The checkout tries again at this time. The others may have to wait as well, since fewer connect at once.
    TryAgain(Instant),
}

/// The state of suspended connecting.
pub(super) struct Suspension<'a> {
    pub(super) outage: &'a Outage,
    /// When another checkout may probe.
    pub(super) probe_at: Instant,
    /// When a waiting checkout tries again, unless it is woken before.
    pub(super) until: Instant,
    /// Whether any checkout is connecting that is not a probe.
    pub(super) any_unprobed: bool,
}

/// A connect that has begun.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attempt {
    /// The number of the probe, if it is one.
    probe: Option<u64>,
}

/// The checkouts that are connecting, and the state that follows from how the last connects ended.
#[derive(Debug)]
pub(super) struct Connects {
    state: State,
    /// The largest number of connections of the pool.
    max: usize,
    /// The number of connecting checkouts.
    running: usize,
    /// The number of connecting checkouts that are not probes.
    unprobed: usize,
    /// When a connect last began or ended.
    changed: Instant,
    /// The number of probes that have begun so far.
    probes: u64,
    /// Failures for a shortage on this host since the last success, while they do not suspend connecting.
    shortage: Option<Outage>,
}

impl Connects {
    pub(super) fn new(max: usize) -> Self {
        Self { state: State::Open, max, running: 0, unprobed: 0, changed: Instant::now(), probes: 0, shortage: None }
    }

    /// Changes the largest number of connections of the pool.
    pub(super) fn resize(&mut self, max: usize) {
        self.max = max;
        if matches!(self.state, State::Ramping { limit } if limit >= max) {
            self.state = State::Open;
        }
    }

    /// Returns whether a checkout that waits does so for a connection, as the number that may connect is no limit or the
    /// server is full.
    pub(super) fn waits_for_connection(&self) -> bool {
        match &self.state {
            State::Open => true,
            State::Suspended(outage) | State::Probing { outage, .. } => outage.is_full(),
            State::Ramping { .. } => false,
        }
    }

    pub(super) fn outage(&self) -> Option<&Outage> {
        match &self.state {
            State::Suspended(outage) | State::Probing { outage, .. } => Some(outage),
            State::Open | State::Ramping { .. } => None,
        }
    }

    /// Returns the failures for a shortage on this host that do not suspend connecting.
    pub(super) fn shortage(&self) -> Option<&Outage> {
        self.shortage.as_ref()
    }

    pub(super) fn suspension(&self, now: Instant) -> Option<Suspension<'_>> {
        let (outage, probe_at, until) = match &self.state {
            State::Suspended(outage) => (outage, outage.due, outage.due),
            State::Probing { outage, lease_end, .. } => (outage, *lease_end, now + MAX_BACKOFF),
            State::Open | State::Ramping { .. } => return None,
        };
        Some(Suspension { outage, probe_at, until, any_unprobed: self.unprobed > 0 })
    }

    /// Makes an attempt due at a server that was full.
    pub(super) fn slot_freed(&mut self) {
        if let State::Suspended(outage) | State::Probing { outage, .. } = &mut self.state
            && outage.is_full()
        {
            outage.due = Instant::now();
        }
    }

    /// Begins a connect: a probe, if connecting is suspended.
    ///
    /// # Errors
    ///
    /// Returns when to ask again, unless woken before, if as many as the limit are connecting and one of them began or
    /// ended within `lease`, or if this host was short of something just now.
    pub(super) fn begin(&mut self, now: Instant, lease: Duration) -> Result<Attempt, Instant> {
        let probe = match std::mem::take(&mut self.state) {
            State::Open => None,
            State::Ramping { limit } => {
                self.state = State::Ramping { limit };
                if self.running >= limit && now < self.changed + lease {
                    return Err(now + MAX_BACKOFF);
                }
                if let Some(shortage) = &self.shortage
                    && now < shortage.due
                {
                    return Err(shortage.due);
                }
                None
            }
            State::Suspended(outage) | State::Probing { outage, .. } => {
                self.probes += 1;
                self.state = State::Probing { outage, probe: self.probes, lease_end: now + lease };
                Some(self.probes)
            }
        };
        self.running += 1;
        self.unprobed += usize::from(probe.is_none());
        self.changed = now;
        Ok(Attempt { probe })
    }

    fn end(&mut self, attempt: Attempt) {
        self.running -= 1;
        self.unprobed -= usize::from(attempt.probe.is_none());
        self.changed = Instant::now();
    }

    /// Ends a connect that succeeded. Returns for how long connecting was suspended, if it was.
    pub(super) fn succeeded(&mut self, attempt: Attempt) -> Option<Duration> {
        self.end(attempt);
        self.shortage = None;
        let (limit, suspended_for) = match std::mem::take(&mut self.state) {
            State::Open => return None,
            State::Ramping { limit } => (limit + 1, None),
            State::Suspended(outage) | State::Probing { outage, .. } => (2, Some(outage.since.elapsed())),
        };
        if limit < self.max {
            self.state = State::Ramping { limit };
        }
        suspended_for
    }

    /// Ends a connect that failed.
    pub(super) fn failed(
        &mut self,
        attempt: Attempt,
        failure: ConnectFailure,
        code: ErrorCode,
        message: Arc<str>,
        now: Instant,
    ) -> Effect {
        self.end(attempt);
        match &mut self.state {
            State::Open | State::Ramping { .. } => {
                return match failure {
                    ConnectFailure::Transient => Effect::Unchanged,
                    ConnectFailure::LocalResource => self.run_short(code, message, now),
                    _ => {
                        self.state = State::Suspended(Outage::new(failure, code, message, now));
                        Effect::Suspends
                    }
                };
            }
            State::Suspended(outage) | State::Probing { outage, .. } => match failure {
                // This is no evidence about the server.
                ConnectFailure::LocalResource => {}
                ConnectFailure::Transient => (outage.code, outage.message) = (code, message),
                _ => (outage.failure, outage.code, outage.message) = (failure, code, message),
            },
        }
        self.end_probe(attempt, |outage| outage.back_off(now));
        Effect::Unchanged
    }

    /// Ends a connect that failed for a shortage on this host: half as many may connect at once, after a pause. If no
    /// connect has succeeded for [`SHORTAGE_TOLERANCE`], connecting is suspended.
    fn run_short(&mut self, code: ErrorCode, message: Arc<str>, now: Instant) -> Effect {
        let recent = self.shortage.take().filter(|shortage| now < shortage.due + SHORTAGE_TOLERANCE);
        let mut shortage = Outage::new(ConnectFailure::LocalResource, code, message, now);
        if let Some(recent) = recent {
            shortage.since = recent.since;
        }
        if now >= shortage.since + SHORTAGE_TOLERANCE {
            self.state = State::Suspended(shortage);
            return Effect::Suspends;
        }
        let limit = match self.state {
            State::Ramping { limit } => limit.min(self.running + 1),
            _ => self.running + 1,
        };
        self.state = State::Ramping { limit: (limit / 2).max(1) };
        let due = shortage.due;
        self.shortage = Some(shortage);
        Effect::TryAgain(due)
    }

    /// Ends a connect that was dropped, and proves nothing: the next checkout may probe at once.
    pub(super) fn dropped(&mut self, attempt: Attempt) {
        self.end(attempt);
        self.end_probe(attempt, |outage| outage.due = Instant::now());
    }

    /// Suspends connecting again, if this attempt was the probe.
    fn end_probe(&mut self, attempt: Attempt, schedule: impl FnOnce(&mut Outage)) {
        self.state = match std::mem::take(&mut self.state) {
            State::Probing { mut outage, probe, .. } if attempt.probe == Some(probe) => {
                schedule(&mut outage);
                State::Suspended(outage)
            }
            state => state,
        };
    }
}
