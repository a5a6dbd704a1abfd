//! The state that the parts of one pool share.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::gate::Gate;
use super::release::{Background, Resets};
use super::request::LayerLimits;
use crate::config::Settings;
use crate::labels::CloseReason;
use crate::telemetry::Collector;
use crate::telemetry::Limits;
use crate::telemetry::clock::{Nanos, nanos};
use crate::telemetry::ledger::{BackoffSource, Recorder};

/// The settings that every checkout or return reads. Laid out in declaration order.
#[derive(Debug)]
#[repr(C)]
pub(super) struct HotSettings {
    pool_size: AtomicUsize,
    /// A connection is checked after this time, in nanoseconds.
    pub(super) check_idle: u64,
    /// Whether idle connections are pinged, or a hook is called with them.
    pub(super) checks: bool,
    pub(super) reset_session: bool,
}

impl HotSettings {
    fn new(settings: &Settings, has_hook: bool) -> Self {
        let Settings { pool_size, pre_ping, reset_session, .. } = *settings;
        let check_idle = if has_hook { 0 } else { nanos(settings.pre_ping_idle) };
        Self { pool_size: pool_size.into(), check_idle, checks: pre_ping || has_hook, reset_session }
    }

    #[inline]
    pub(super) fn pool_size(&self) -> usize {
        self.pool_size.load(Ordering::Relaxed)
    }

    pub(super) fn set_pool_size(&self, pool_size: usize) {
        self.pool_size.store(pool_size, Ordering::Relaxed);
    }
}

impl From<&Settings> for Limits {
    fn from(settings: &Settings) -> Self {
        let Settings { pool_size, max_overflow, wait_target, leak_threshold, retry_floor, retry_percent, .. } =
            *settings;
        let Settings { checkout_timeout, slow_checkout_threshold, slow_query_threshold, .. } = *settings;
        Self {
            pool_size,
            max_overflow,
            checkout_timeout,
            wait_target,
            leak_threshold,
            slow_checkout_threshold,
            slow_query_threshold,
            retry_floor,
            retry_percent,
        }
    }
}

/// The shortest time between two invalidations because a server is no longer the primary. Until there is another
/// primary, new connections lead to the old one.
const DEMOTION_INTERVAL: Duration = Duration::from_secs(1);

/// The shortest time between two looks of a checkout for overdue work, however short `clean_timeout` is.
const MIN_OVERDUE_INTERVAL: Duration = Duration::from_millis(50);

/// The state that the pool, its manager, its checkouts and its connections share.
///
/// Laid out in declaration order: what every checkout reads is on one cache line, which a query in between may have
/// evicted.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Shared {
    pub(crate) recorder: Recorder,
    /// Connections made before this are not handed out.
    invalid_before: AtomicU64,
    /// Statements cached before this are not used.
    stale_before: AtomicU64,
    closing: AtomicBool,
    pub(super) hot: HotSettings,
    pub(super) gate: Gate,
    pub(super) settings: Settings,
    pub(super) resets: Resets,
    /// What the pool does with returned and closed connections.
    pub(super) background: Background,
    pub(crate) route_limits: LayerLimits,
    /// When a server was last found to be no longer the primary; zero for never.
    demoted_at: AtomicU64,
    /// Knows all pools that are counted together.
    pub(super) collector: Collector,
    /// Notified when the pool begins to close, and then whenever a checkout or a connection ends.
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
    /// Creates the state of a pool. `has_hook` is whether its backend has a hook that is called at each checkout.
    pub(super) fn new(recorder: Recorder, settings: Settings, has_hook: bool, collector: Collector) -> Self {
        let max = recorder.ledger().limits().max();
        Self {
            recorder,
            invalid_before: AtomicU64::new(0),
            stale_before: AtomicU64::new(0),
            closing: AtomicBool::new(false),
            hot: HotSettings::new(&settings, has_hook),
            gate: Gate::new(max, settings.fail_fast, settings.connect_timeout),
            settings,
            resets: Resets::new(max),
            background: Background::default(),
            route_limits: LayerLimits::default(),
            demoted_at: AtomicU64::new(0),
            collector,
            ended: Notify::new(),
        }
    }

    #[inline]
    pub(super) fn invalid_before(&self) -> Nanos {
        Nanos::from_nanos(self.invalid_before.load(Ordering::Relaxed))
    }

    /// Prevents connections that were made before `at` from being handed out.
    pub(super) fn invalidate_before(&self, at: Nanos) {
        self.invalid_before.fetch_max(at.as_nanos(), Ordering::Relaxed);
    }

    /// Prevents the connections to a server that is no longer the primary from being handed out, at most once in
    /// [`DEMOTION_INTERVAL`].
    pub(super) fn demote(&self, at: Nanos) {
        let last = self.demoted_at.load(Ordering::Relaxed);
        let due = last == 0 || at.duration_since(Nanos::from_nanos(last)) >= DEMOTION_INTERVAL;
        if due && self.demoted_at.compare_exchange(last, at.as_nanos(), Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.invalidate_before(at);
        }
    }

    #[inline]
    pub(super) fn stale_before(&self) -> Nanos {
        Nanos::from_nanos(self.stale_before.load(Ordering::Relaxed))
    }

    /// Makes each connection drop the statements that it cached before `at`, at its next checkout.
    pub(super) fn forget_statements_before(&self, at: Nanos) {
        self.stale_before.fetch_max(at.as_nanos(), Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Returns whether any checkout waits at the gate.
    #[inline]
    pub(super) fn is_gate_awaited(&self) -> bool {
        self.gate.waiting.load(Ordering::SeqCst) > 0
    }

    /// Begins to close the pool. Repeated calls have no effect.
    pub(super) fn begin_closing(&self) {
        let began = !self.closing.swap(true, Ordering::AcqRel);
        self.ended.notify_waiters();
        if began {
            self.recorder.pool_closing();
        }
    }

    /// Returns whether there are connections that may be returned to the pool.
    pub(super) fn any_returnable(&self) -> bool {
        let connections = self.recorder.ledger().connections();
        connections.used + connections.idle + connections.closing > 0
    }

    /// Logs that a connection was closed, and wakes whatever waits for its end.
    pub(super) fn connection_gone(&self, reason: CloseReason) {
        self.recorder.log().connection_closed(reason);
        // A connection that the server refused had no slot.
        if reason != CloseReason::ConnectFailed {
            self.gate.slot_freed();
        }
        self.notify_if_closing();
    }

    pub(super) fn notify_if_closing(&self) {
        if self.is_closing() {
            self.ended.notify_waiters();
        }
    }

    /// Waits until there are no connections and no checkouts in flight.
    pub(super) async fn drained(&self) {
        let is_drained = || self.recorder.ledger().is_drained();
        let mut drained = pin!(self.until(is_drained));
        // Without a timer, connections of runtimes that do not run are waited for.
        while !is_drained() && Handle::try_current().is_ok() {
            if timeout(self.overdue_interval(), drained.as_mut()).await.is_ok() {
                return;
            }
            self.background.drop_overdue();
        }
        drained.await;
    }

    /// Returns how often whatever waits for a place looks for work that is overdue.
    pub(super) fn overdue_interval(&self) -> Duration {
        self.settings.clean_timeout.max(MIN_OVERDUE_INTERVAL)
    }

    /// Waits until the pool begins to close or its last handle is dropped.
    pub(super) async fn closing(&self) {
        self.until(|| self.is_closing()).await;
    }

    /// Waits for a condition that can begin to hold only when `ended` is notified.
    async fn until(&self, holds: impl Fn() -> bool) {
        loop {
            let ended = self.ended.notified();
            tokio::pin!(ended);
            // Registered before the condition is checked, so that no notification in between is missed.
            ended.as_mut().enable();
            if holds() {
                return;
            }
            ended.await;
        }
    }
}
