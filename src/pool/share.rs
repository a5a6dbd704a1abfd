//! How much of a pool each route may hold.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};

use crate::telemetry::clock::Nanos;
use crate::telemetry::ledger::{Backlog, Line, Recorder};
use crate::telemetry::requests::{ROUTES, RouteKey};

/// So many connections for each route, whatever the method.
#[derive(Debug)]
pub(crate) struct RouteLimits {
    connections: usize,
    /// By route, made when it first checks out.
    routes: Box<[OnceLock<Arc<RoutePermits>>]>,
    closed: AtomicBool,
}

impl RouteLimits {
    /// At most so many connections for each; one at least, or it would never get any.
    pub(crate) fn new(connections: usize) -> Self {
        let routes = (0..ROUTES).map(|_| OnceLock::new()).collect();
        Self { connections: connections.clamp(1, Semaphore::MAX_PERMITS), routes, closed: AtomicBool::new(false) }
    }

    /// The places of the route that this is of.
    pub(super) fn of(&self, kind: RouteKey) -> Arc<RoutePermits> {
        let route = &self.routes[usize::from(kind.route())];
        let places = route.get_or_init(|| Arc::new(RoutePermits::new(self.connections)));
        if self.closed.load(Ordering::SeqCst) {
            places.semaphore.close();
        }
        Arc::clone(places)
    }

    /// Who waits for a place of the route that this is of.
    pub(crate) fn backlog(&self, kind: RouteKey, now: Nanos) -> Backlog {
        let places = self.routes[usize::from(kind.route())].get();
        places.map_or_else(Backlog::default, |places| places.line().backlog(now))
    }

    /// Nobody waits for a place any more, as the pool is closed.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        for places in self.routes.iter().filter_map(OnceLock::get) {
            places.semaphore.close();
        }
    }
}

/// The places of one route.
#[derive(Debug)]
pub(super) struct RoutePermits {
    semaphore: Arc<Semaphore>,
    line: Mutex<Line>,
}

impl RoutePermits {
    fn new(connections: usize) -> Self {
        Self { semaphore: Arc::new(Semaphore::new(connections)), line: Mutex::default() }
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place, if there is one.
    pub(super) fn take(&self) -> Result<OwnedSemaphorePermit, TryAcquireError> {
        Arc::clone(&self.semaphore).try_acquire_owned()
    }

    /// Waits for a place, in the order in which others came; none comes if the pool is closed.
    pub(super) async fn wait(self: Arc<Self>, recorder: Recorder) -> Option<OwnedSemaphorePermit> {
        /// Leaves the line when dropped.
        struct InLine<'a>(&'a RoutePermits, &'a Recorder, bool);

        impl Drop for InLine<'_> {
            fn drop(&mut self) {
                let Self(places, recorder, served) = self;
                places.line().leave(*served, recorder.now());
            }
        }

        self.line().join(recorder.now());
        let mut in_line = InLine(&self, &recorder, false);
        let place = Arc::clone(&self.semaphore).acquire_owned().await.ok();
        in_line.2 = place.is_some();
        drop(in_line);
        place
    }
}
