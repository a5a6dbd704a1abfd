//! Limits on connecting while the server refuses connections.
//!
//! Without limits, every checkout that needs a new connection would try on its own while the server is down, and all of
//! them would connect at once when it is back. The gate lets one checkout at a time probe the server after a failure,
//! and raises the number step by step after a success:
//!
//! ```text
//!       failure               attempt is due
//! Open ─────────▶ Suspended ────────────────▶ Probing ─┐ lease expired:
//!  ▲                ▲   ▲                      │   │ ▲ │ another probe
//!  │                │   └─ probe failed or ────┘   │ └─┘
//!  │ limit is the   │      was dropped             │
//!  │ pool's size    │ failure                      │
//!  └──────────── Ramping ◀──── connect succeeded ──┘
//!                 │   ▲        (also from Suspended)
//!                 └───┘ success: limit + 1
//! ```
//!
//! | state | a checkout that needs a connection |
//! |---|---|
//! | `Open` | connects |
//! | `Suspended` | is denied until the next attempt is due, then probes |
//! | `Probing` | is denied until the probe's lease expires, then probes |
//! | `Ramping` | connects if fewer than the limit are connecting, otherwise waits |
//!
//! A denied checkout fails at once or waits, depending on the setting `fail_fast`. If the server is out of connection
//! slots (`full`), a denied checkout waits for a connection that is in use or being established, if there is one.
//!
//! The pause before an attempt doubles from [`MIN_BACKOFF`] to [`MAX_BACKOFF`], or from [`MIN_CONFIGURATION_BACKOFF`] to
//! [`MAX_CONFIGURATION_BACKOFF`] if somebody has to change the configuration. Two kinds of failures are no evidence of an
//! outage. [`ConnectFailure::Transient`](crate::labels::ConnectFailure::Transient) changes no state. After
//! [`ConnectFailure::LocalResource`](crate::labels::ConnectFailure::LocalResource) the checkout tries again
//! after a pause and half as many connect at once, as in `Ramping`; connecting is suspended only if none succeeds within
//! [`SHORTAGE_TOLERANCE`].
//!
//! An attempt belongs to the checkout that began it. If that times out or is dropped, the attempt goes on in a task: its
//! end is reported here in either case, and a connection that takes longer than its caller waits is of use to the next.
//! (`crates/model` runs admissions, ends and waits in every order.)

mod permit;
mod state;
mod wait;

use std::sync::{Arc, PoisonError};
use std::time::Duration;

pub(super) use self::permit::ConnectPermit;
use self::state::{Connects, Outage, Suspension};
pub(super) use self::wait::{Waiting, wait};
use crate::error::ConnectBackoff;
use crate::labels::Phase;
use crate::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use crate::sync::{Instant, Mutex, MutexGuard, Notify};
use crate::telemetry::ledger::Recorder;

/// Bounds of the pause between two attempts, which is [`jittered`].
const MIN_BACKOFF: Duration = Duration::from_millis(50);
const MAX_BACKOFF: Duration = Duration::from_millis(800);

/// The same if somebody has to change the credentials or the configuration first. Servers lock accounts, and log each
/// attempt.
const MIN_CONFIGURATION_BACKOFF: Duration = Duration::from_secs(1);
const MAX_CONFIGURATION_BACKOFF: Duration = Duration::from_secs(10);

/// The time for which connects may fail for a shortage on this host before connecting is suspended.
const SHORTAGE_TOLERANCE: Duration = Duration::from_secs(1);

/// How long a failure is reported after the next attempt was due, if no attempt is made.
const CONNECT_FAILURE_TTL: Duration = Duration::from_secs(10);

/// How much longer than `connect_timeout` an attempt may take. Within that time its backend reports the timeout itself.
const CONNECT_TIMEOUT_MARGIN: Duration = Duration::from_secs(1);

/// Decides which checkouts may connect.
#[derive(Debug)]
pub(super) struct Gate {
    connects: Mutex<Connects>,
    /// The number of checkouts in [`wait`].
    pub(super) waiting: AtomicUsize,
    retry: Notify,
    fail_fast: bool,
    /// The time limit of an attempt, and how long other checkouts wait for those that are connecting. A checkout that is
    /// not polled would otherwise block them for ever.
    lease: Duration,
}

/// Why a checkout may not connect now.
#[derive(Debug)]
pub(crate) enum Denied {
    /// The checkout waits.
    RetryAt(RetryAt),
    /// The checkout fails.
    Unavailable(ConnectBackoff),
}

/// A wait at the gate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RetryAt {
    pub(super) phase: Phase,
    /// When the checkout tries again at the latest. A return that coincides with the beginning of the wait may miss it,
    /// because ruling that out would cost every return.
    until: Instant,
}

impl RetryAt {
    /// Returns the wait of a checkout for which there is no place, as connections that are closing keep theirs.
    pub(super) fn no_place() -> Self {
        Self { phase: Phase::Queue, until: Instant::now() + MAX_BACKOFF }
    }
}

/// Returns a random pause between half of `bound` and all of it, so that many processes do not connect at the same moment.
pub(super) fn jittered(bound: Duration) -> Duration {
    bound.mul_f64(0.5 + fastrand::f64() / 2.0)
}

impl Gate {
    /// Creates a gate for at most `max` connections, each of which is established or fails within `connect_timeout`.
    pub(super) fn new(max: usize, fail_fast: bool, connect_timeout: Duration) -> Self {
        let lease = connect_timeout.saturating_add(CONNECT_TIMEOUT_MARGIN);
        Self {
            connects: Mutex::new(Connects::new(max)),
            waiting: AtomicUsize::new(0),
            retry: Notify::new(),
            fail_fast,
            lease,
        }
    }

    fn connects(&self) -> MutexGuard<'_, Connects> {
        self.connects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the time limit of an attempt to connect that its backend does not end.
    pub(super) fn connect_limit(&self) -> Duration {
        self.lease
    }

    /// Returns a permit to connect, or why there is none. With `waits` the checkout waits where it would fail.
    /// `any_returnable` is whether there are connections that may be returned.
    pub(super) fn admit<O: AsRef<Self>>(
        owner: &Arc<O>,
        recorder: &Recorder,
        waits: bool,
        any_returnable: impl FnOnce() -> bool,
    ) -> Result<ConnectPermit<O>, Denied> {
        let gate = (**owner).as_ref();
        let mut connects = gate.connects();
        let now = Instant::now();
        if let Some(suspension) = connects.suspension(now).filter(|suspension| now < suspension.probe_at) {
            return Err(gate.denied(&suspension, waits, any_returnable));
        }
        match connects.begin(now, gate.lease) {
            Ok(attempt) => {
                drop(connects);
                Ok(ConnectPermit::new(Arc::clone(owner), recorder.clone(), attempt))
            }
            Err(until) => Err(Denied::RetryAt(RetryAt { phase: Phase::Suspended, until })),
        }
    }

    /// Returns why a checkout for which there is no place may not connect even if there were one, as connecting is
    /// suspended and no attempt is due. `waits` and `any_returnable` as in [`admit`](Self::admit).
    pub(super) fn denial(&self, waits: bool, any_returnable: impl FnOnce() -> bool) -> Option<Denied> {
        let connects = self.connects();
        let now = Instant::now();
        let suspension = connects.suspension(now).filter(|suspension| now < suspension.probe_at)?;
        Some(self.denied(&suspension, waits, any_returnable))
    }

    /// Returns whether a checkout waits or fails while connecting is suspended.
    fn denied(&self, suspension: &Suspension<'_>, waits: bool, any_returnable: impl FnOnce() -> bool) -> Denied {
        let Suspension { outage, until, any_unprobed, .. } = *suspension;
        // In this order: a connect that has left the first count was counted in the second before.
        if outage.is_full() && (any_unprobed || any_returnable()) {
            Denied::RetryAt(RetryAt { phase: Phase::Queue, until })
        } else if self.fail_fast && !waits {
            Denied::Unavailable(outage.report())
        } else {
            Denied::RetryAt(RetryAt { phase: Phase::Suspended, until })
        }
    }

    /// Returns what a new checkout waits for so that it does not overtake those that wait already; `None` if more
    /// connections are idle than those can take.
    #[cold]
    pub(super) fn wait_behind(&self, idle: usize) -> Option<RetryAt> {
        let waiting = self.waiting.load(SeqCst);
        if waiting == 0 || idle > waiting {
            return None;
        }
        let phase = if self.connects().waits_for_connection() { Phase::Queue } else { Phase::Suspended };
        // If all of them are served before it waits, it is not woken.
        Some(RetryAt { phase, until: Instant::now() + MIN_BACKOFF })
    }

    /// Returns whether connecting is known to fail.
    #[cold]
    pub(super) fn is_suspended(&self) -> bool {
        self.backoff().is_some()
    }

    /// Wakes a checkout that waits for a place, and makes an attempt due at a server that was full, as a connection to it
    /// was closed.
    pub(super) fn slot_freed(&self) {
        if !self.is_awaited() {
            return;
        }
        self.connects().slot_freed();
        self.wake_one();
    }

    /// Describes the outage, if connecting is known to fail.
    pub(super) fn backoff(&self) -> Option<ConnectBackoff> {
        let connects = self.connects();
        connects.outage().filter(|outage| outage.is_recent()).map(Outage::report)
    }

    /// Describes the last failures to connect, also if they do not suspend connecting.
    pub(super) fn last_failure(&self) -> Option<ConnectBackoff> {
        let connects = self.connects();
        connects.outage().or(connects.shortage()).filter(|outage| outage.is_recent()).map(Outage::report)
    }

    fn is_awaited(&self) -> bool {
        self.waiting.load(SeqCst) > 0
    }

    /// Wakes the first checkout that waits, as a connection was returned.
    pub(super) fn wake_one(&self) {
        if self.is_awaited() {
            self.retry.notify_one();
        }
    }

    /// Changes the maximum number of connections.
    pub(super) fn resize(&self, max: usize) {
        self.connects().resize(max);
    }

    /// Wakes every checkout that waits.
    pub(super) fn wake_all(&self) {
        self.retry.notify_waiters();
    }
}
