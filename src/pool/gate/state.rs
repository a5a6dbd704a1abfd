//! The gate's state machine.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::super::backend::ConnectFailure;
use super::{MAX_BACKOFF, MIN_BACKOFF};
use crate::error::ConnectBackoff;
use crate::labels::ErrorCode;

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
    /// Whether the server is out of connection slots, rather than down.
    pub(super) full: bool,
    pub(super) since: Instant,
    pub(super) code: ErrorCode,
    pub(super) message: Arc<str>,
    /// When the next attempt is due, or was when the current probe began.
    pub(super) due: Instant,
    pause: Duration,
}

impl Outage {
    fn new(full: bool, code: ErrorCode, message: Arc<str>, now: Instant) -> Self {
        let mut outage = Self { full, since: now, code, message, due: now, pause: MIN_BACKOFF };
        outage.schedule(now);
        outage
    }

    fn schedule(&mut self, now: Instant) {
        self.due = now + self.pause.mul_f64(0.5 + fastrand::f64() / 2.0);
    }

    pub(super) fn report(&self) -> ConnectBackoff {
        ConnectBackoff { failing_for: self.since.elapsed(), code: self.code, message: Arc::clone(&self.message) }
    }
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
    pub(super) began: Instant,
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
}

impl Connects {
    pub(super) fn new(max: usize) -> Self {
        Self { state: State::Open, max, running: 0, unprobed: 0, changed: Instant::now(), probes: 0 }
    }

    pub(super) fn outage(&self) -> Option<&Outage> {
        match &self.state {
            State::Suspended(outage) | State::Probing { outage, .. } => Some(outage),
            State::Open | State::Ramping { .. } => None,
        }
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
            && outage.full
        {
            outage.due = Instant::now();
        }
    }

    /// Begins a connect: a probe, if connecting is suspended. Returns `None` if as many as the limit are connecting and
    /// one of them began or ended within `lease`.
    pub(super) fn begin(&mut self, now: Instant, lease: Duration) -> Option<Attempt> {
        let probe = match std::mem::take(&mut self.state) {
            State::Open => None,
            State::Ramping { limit } => {
                self.state = State::Ramping { limit };
                if self.running >= limit && now < self.changed + lease {
                    return None;
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
        Some(Attempt { probe, began: now })
    }

    fn end(&mut self, attempt: Attempt) {
        self.running -= 1;
        self.unprobed -= usize::from(attempt.probe.is_none());
        self.changed = Instant::now();
    }

    /// Ends a connect that succeeded. Returns for how long connecting was suspended, if it was.
    pub(super) fn succeeded(&mut self, attempt: Attempt) -> Option<Duration> {
        self.end(attempt);
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

    /// Ends a connect that failed. Returns whether that suspends connecting, which was not suspended before.
    pub(super) fn failed(
        &mut self,
        attempt: Attempt,
        failure: ConnectFailure,
        code: ErrorCode,
        message: Arc<str>,
        now: Instant,
    ) -> bool {
        self.end(attempt);
        let full = failure == ConnectFailure::TooManyConnections;
        match &mut self.state {
            State::Open | State::Ramping { .. } => {
                if failure == ConnectFailure::Transient {
                    return false;
                }
                self.state = State::Suspended(Outage::new(full, code, message, now));
                return true;
            }
            State::Suspended(outage) | State::Probing { outage, .. } => {
                if failure != ConnectFailure::Transient {
                    outage.full = full;
                }
                (outage.code, outage.message) = (code, message);
            }
        }
        self.end_probe(attempt, |outage| {
            outage.pause = (outage.pause * 2).min(MAX_BACKOFF);
            outage.schedule(now);
        });
        false
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
