//! Limits on the connections that each route may hold.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};

use crate::telemetry::clock::Nanos;
use crate::telemetry::ledger::Recorder;
use crate::telemetry::ledger::backlog::{Backlog, QueueTracker};
use crate::telemetry::requests::RouteKey;

/// The same limit for every route, whatever the method.
#[derive(Debug)]
pub(crate) struct RouteLimits {
    connections: usize,
    /// By route, made at the route's first checkout.
    routes: Box<[OnceLock<Arc<RoutePermits>>]>,
    closed: AtomicBool,
}

impl RouteLimits {
    /// Limits each route to so many connections; zero counts as one.
    pub(crate) fn new(connections: usize) -> Self {
        let routes = (0..RouteKey::ROUTE_IDS).map(|_| OnceLock::new()).collect();
        Self { connections: connections.clamp(1, Semaphore::MAX_PERMITS), routes, closed: AtomicBool::new(false) }
    }

    /// Returns the number of connections that each route may hold.
    pub(crate) fn connections(&self) -> usize {
        self.connections
    }

    /// Returns the permits of a route.
    pub(super) fn permits(&self, key: RouteKey) -> Arc<RoutePermits> {
        let route = &self.routes[usize::from(key.route())];
        let permits = route.get_or_init(|| Arc::new(RoutePermits::new(self.connections)));
        if self.closed.load(Ordering::SeqCst) {
            permits.semaphore.close();
        }
        Arc::clone(permits)
    }

    /// Returns how many checkouts wait for a permit of a route, and how long.
    pub(crate) fn backlog(&self, key: RouteKey, now: Nanos) -> Backlog {
        let permits = self.routes[usize::from(key.route())].get();
        permits.map_or_else(Backlog::default, |permits| permits.line().backlog(now))
    }

    /// Ends all waits for permits, as the pool is closed.
    fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        for permits in self.routes.iter().filter_map(OnceLock::get) {
            permits.semaphore.close();
        }
    }
}

/// The permits of one route, one for each connection that it may hold.
#[derive(Debug)]
pub(in crate::pool) struct RoutePermits {
    semaphore: Arc<Semaphore>,
    line: Mutex<QueueTracker>,
}

impl RoutePermits {
    fn new(connections: usize) -> Self {
        Self { semaphore: Arc::new(Semaphore::new(connections)), line: Mutex::default() }
    }

    fn line(&self) -> MutexGuard<'_, QueueTracker> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn try_acquire(&self) -> Result<OwnedSemaphorePermit, TryAcquireError> {
        Arc::clone(&self.semaphore).try_acquire_owned()
    }

    /// Waits for a permit, first come, first served. Returns `None` if the pool is closed.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up the place in the line.
    pub(in crate::pool) async fn wait(self: Arc<Self>, recorder: Recorder) -> Option<OwnedSemaphorePermit> {
        /// Leaves the line when dropped.
        struct InLine<'a> {
            permits: &'a RoutePermits,
            recorder: &'a Recorder,
            served: bool,
        }

        impl Drop for InLine<'_> {
            fn drop(&mut self) {
                self.permits.line().leave(self.served, self.recorder.now());
            }
        }

        self.line().join(recorder.now());
        let mut in_line = InLine { permits: &self, recorder: &recorder, served: false };
        let permit = Arc::clone(&self.semaphore).acquire_owned().await.ok();
        in_line.served = permit.is_some();
        drop(in_line);
        permit
    }
}

/// The route limits of the layers over one pool.
#[derive(Debug, Default)]
pub(crate) struct LayerLimits(Mutex<Vec<Weak<RouteLimits>>>);

impl LayerLimits {
    fn all(&self) -> MutexGuard<'_, Vec<Weak<RouteLimits>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds the limits of a layer. They are closed with the pool, which may be closing already.
    pub(crate) fn add(&self, limits: &Arc<RouteLimits>, is_closing: impl FnOnce() -> bool) {
        let mut all = self.all();
        all.retain(|others| others.strong_count() > 0);
        all.push(Arc::downgrade(limits));
        if is_closing() {
            limits.close();
        }
    }

    pub(in crate::pool) fn close(&self) {
        self.all().iter().filter_map(Weak::upgrade).for_each(|limits| limits.close());
    }
}
