//! What the parts of one pool share.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};

use super::clean::cleaners;
use super::gate::Gate;
use super::share::RouteLimits;
use crate::telemetry::clock::Nanos;
use crate::telemetry::ledger::{BackoffSource, Recorder};

/// How a pool treats its connections. In the order in which it is declared: what every checkout asks for stands first.
#[derive(Clone, Debug)]
#[repr(C)]
pub(crate) struct Policy {
    pub(crate) pool_size: usize,
    /// In nanoseconds, as it is compared at each checkout.
    pub(crate) pre_ping_idle: u64,
    pub(crate) pre_ping: bool,
    pub(crate) reset_session: bool,
    pub(crate) checkout_timeout: Duration,
    pub(crate) recycle_after: Option<Duration>,
    pub(crate) ping_timeout: Duration,
    pub(crate) clean_timeout: Duration,
    pub(crate) read_wire: bool,
    pub(crate) trace_query_text: bool,
    pub(crate) fail_fast: bool,
    pub(crate) connect_timeout: Duration,
}

/// How soon after a server was found to be no primary the connections are closed once more.
const BETWEEN_DEMOTIONS: Duration = Duration::from_secs(1);

/// Shared by the pool, its manager, its checkouts and its connections. Read at each checkout, written rarely.
///
/// In the order in which it is declared: what every checkout reads is on one cache line, which a query in between may have
/// pushed out.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Shared {
    pub(crate) recorder: Recorder,
    /// Connections made before this are not to be handed out.
    invalid_before: AtomicU64,
    /// What was cached of statements before this is not to be used.
    stale_before: AtomicU64,
    closing: AtomicBool,
    pub(crate) policy: Policy,
    /// Who may connect.
    pub(super) gate: Gate,
    /// Who may clean a connection.
    pub(super) cleaners: Arc<Semaphore>,
    /// What routes may hold, of each layer that limits it.
    shares: Mutex<Vec<Weak<RouteLimits>>>,
    /// When a server was last found to be no primary any more.
    demoted_at: AtomicU64,
    /// Told when the pool begins to close, and of each thing that ends from then on.
    ended: Notify,
}

impl AsRef<Gate> for Shared {
    fn as_ref(&self) -> &Gate {
        &self.gate
    }
}

impl BackoffSource for Shared {
    fn suspended_for(&self) -> Option<Duration> {
        self.gate.backoff().map(|backoff| backoff.failing_for)
    }
}

impl Shared {
    pub(super) fn new(recorder: Recorder, policy: Policy) -> Self {
        let max = recorder.ledger().limits().max();
        let cleaners = Arc::new(Semaphore::new(cleaners(max)));
        Self {
            recorder,
            gate: Gate::new(max, policy.fail_fast, policy.connect_timeout),
            policy,
            cleaners,
            shares: Mutex::default(),
            invalid_before: AtomicU64::new(0),
            stale_before: AtomicU64::new(0),
            demoted_at: AtomicU64::new(0),
            closing: AtomicBool::new(false),
            ended: Notify::new(),
        }
    }

    #[inline]
    pub(super) fn invalid_before(&self) -> Nanos {
        Nanos::from_nanos(self.invalid_before.load(Ordering::Relaxed))
    }

    /// Lets no connection be handed out that was made before `at`.
    pub(super) fn invalidate_before(&self, at: Nanos) {
        self.invalid_before.fetch_max(at.as_nanos(), Ordering::Relaxed);
    }

    /// Lets the connections to a server that is no primary any more not be handed out. At most once in
    /// [`BETWEEN_DEMOTIONS`]: until there is another primary, new connections lead to the old one.
    pub(super) fn demote(&self, at: Nanos) {
        let last = self.demoted_at.load(Ordering::Relaxed);
        let due = last == 0 || at.duration_since(Nanos::from_nanos(last)) >= BETWEEN_DEMOTIONS;
        if due && self.demoted_at.compare_exchange(last, at.as_nanos(), Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.invalidate_before(at);
        }
    }

    #[inline]
    pub(super) fn stale_before(&self) -> Nanos {
        Nanos::from_nanos(self.stale_before.load(Ordering::Relaxed))
    }

    /// Has each connection forget the statements that it cached before `at`, when it is handed out next.
    pub(super) fn forget_statements_before(&self, at: Nanos) {
        self.stale_before.fetch_max(at.as_nanos(), Ordering::Relaxed);
    }

    #[inline]
    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Begins closing; answers whether it had not begun before.
    pub(super) fn begin_closing(&self) -> bool {
        let begins = !self.closing.swap(true, Ordering::AcqRel);
        self.ended.notify_waiters();
        begins
    }

    /// Has nobody wait for a share any more once the pool is closed.
    #[cfg_attr(not(feature = "middleware"), allow(dead_code, reason = "nobody serves requests"))]
    pub(super) fn add_shares(&self, shares: &Arc<RouteLimits>) {
        let mut all = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|others| others.strong_count() > 0);
        all.push(Arc::downgrade(shares));
        if self.is_closing() {
            shares.close();
        }
    }

    pub(super) fn close_shares(&self) {
        let all = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().filter_map(Weak::upgrade).for_each(|shares| shares.close());
    }

    pub(super) fn notify_if_closing(&self) {
        if self.is_closing() {
            self.ended.notify_waiters();
        }
    }

    /// Waits until no connection lives and no checkout is in flight.
    pub(super) async fn drained(&self) {
        self.until(|| self.recorder.ledger().is_drained()).await;
    }

    /// Waits until the pool begins to close, or its last handle is gone.
    pub(super) async fn closing(&self) {
        self.until(|| self.is_closing()).await;
    }

    /// Waits until it is so: which can come to be only when the pool begins to close, and when something ends then.
    async fn until(&self, is_so: impl Fn() -> bool) {
        loop {
            let ended = self.ended.notified();
            tokio::pin!(ended);
            // Registered before looking, so that what ends in between is not missed.
            ended.as_mut().enable();
            if is_so() {
                return;
            }
            ended.await;
        }
    }
}
