//! How much of a pool each route may hold.

use std::sync::{Arc, OnceLock};

use tokio::sync::Semaphore;

use crate::telemetry::requests::{KindId, ROUTES};

/// So many connections for each route, whatever the method.
#[derive(Debug)]
pub(crate) struct Shares {
    connections: usize,
    /// By route, made when it first checks out.
    routes: Box<[OnceLock<Arc<Semaphore>>]>,
    closed: OnceLock<()>,
}

impl Shares {
    /// At most so many connections for each; one at least, or it would never get any.
    pub(crate) fn new(connections: usize) -> Self {
        let routes = (0..ROUTES).map(|_| OnceLock::new()).collect();
        Self { connections: connections.clamp(1, Semaphore::MAX_PERMITS), routes, closed: OnceLock::new() }
    }

    /// The places of the route that this is of.
    pub(super) fn of(&self, kind: KindId) -> Arc<Semaphore> {
        let route = &self.routes[usize::from(kind.route())];
        let places = route.get_or_init(|| Arc::new(Semaphore::new(self.connections)));
        if self.closed.get().is_some() {
            places.close();
        }
        Arc::clone(places)
    }

    /// Nobody waits for a place any more, as the pool is closed.
    pub(super) fn close(&self) {
        let _ = self.closed.set(());
        for places in self.routes.iter().filter_map(OnceLock::get) {
            places.close();
        }
    }
}
