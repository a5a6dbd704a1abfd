//! Which request the code that runs is working for.
//!
//! A checkout is asked for by code that knows nothing of the request it serves. So the middleware puts what is known of
//! that into a thread-local while it polls the request's futures, and takes it back after; whoever spawns tasks hands
//! it on to them. Layers of several pools may stand around each other, so there may be several of these at once.

use std::cell::{Cell, RefCell};
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use super::backend::Backend;
use super::pool::Pool;
use super::share::RouteLimits;
use super::visit::RequestCheckout;
use crate::telemetry::clock::nanos;
use crate::telemetry::ledger::{Ledger, Recorder};
use crate::telemetry::operations::{OperationId, SiteId};
use crate::telemetry::requests::{Request, RouteKey, UNKNOWN_ROUTE};

/// What all requests have in common that one layer serves.
#[derive(Debug)]
pub(crate) struct LayerConfig {
    pub(crate) recorder: Recorder,
    /// Whether what is done without a name is named after the route.
    pub(crate) names_operations: bool,
    /// For how long a connection may be held while the server has nothing to do for it, in nanoseconds.
    pub(crate) idle_limit: u64,
    /// How much of the pool each route may hold, if that is limited.
    pub(crate) shares: Option<Arc<RouteLimits>>,
    /// Where the layer was made.
    pub(crate) call_site: &'static Location<'static>,
}

impl LayerConfig {
    /// Those of a layer for requests to this pool; each route may hold so many connections, if that is limited.
    pub(crate) fn new<M: Backend>(
        pool: &Pool<M>,
        names_operations: bool,
        idle_limit: Duration,
        share: Option<usize>,
        call_site: &'static Location<'static>,
    ) -> Self {
        let shares = share.map(|connections| Arc::new(RouteLimits::new(connections)));
        if let Some(shares) = &shares {
            pool.shared().add_shares(shares);
        }
        let recorder = pool.shared().recorder.clone();
        Self { recorder, names_operations, idle_limit: nanos(idle_limit), shares, call_site }
    }
}

/// A request that is being served.
#[derive(Clone, Debug)]
pub(crate) struct ActiveRequest {
    terms: Arc<LayerConfig>,
    kind: RouteKey,
    /// Its account, once it has checked out.
    request: Option<Arc<Request>>,
}

impl ActiveRequest {
    pub(crate) fn new(terms: Arc<LayerConfig>, kind: RouteKey) -> Self {
        Self { terms, kind, request: None }
    }

    pub(crate) fn kind(&self) -> RouteKey {
        self.kind
    }

    pub(crate) fn terms(&self) -> &LayerConfig {
        &self.terms
    }

    /// Its account, if it has checked out.
    pub(crate) fn request(&self) -> Option<&Arc<Request>> {
        self.request.as_ref()
    }

    fn account(&mut self) -> &Arc<Request> {
        let Self { terms, kind, request } = self;
        request.get_or_insert_with(|| Arc::new(Request::new(terms.recorder.clone(), *kind, terms.idle_limit)))
    }

    /// Its route, which may not be known.
    pub(crate) fn route(&self) -> &str {
        self.terms.recorder.ledger().requests().route(self.kind)
    }

    /// Whether what it does without naming it is named after its route.
    fn names_operations(&self) -> bool {
        self.terms.names_operations && self.route() != UNKNOWN_ROUTE
    }

    /// The operation that is named after its method and route, if one is by now.
    pub(crate) fn named(&self) -> Option<OperationId> {
        self.terms.recorder.ledger().requests().named(self.kind)
    }

    fn is_of(&self, ledger: &Arc<Ledger>) -> bool {
        Arc::ptr_eq(self.terms.recorder.ledger(), ledger)
    }
}

thread_local! {
    /// The innermost last.
    static SERVED: RefCell<Vec<ActiveRequest>> = const { RefCell::new(Vec::new()) };
    /// How many there are. Every checkout looks here, and at memory that has to be given back only where there are some.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

/// Has the code that runs work for a request, until it is dropped, also by a panic.
pub(crate) struct ScopeGuard<'a> {
    place: &'a mut Option<ActiveRequest>,
    entered: bool,
}

impl<'a> ScopeGuard<'a> {
    #[inline]
    pub(crate) fn new(place: &'a mut Option<ActiveRequest>) -> Self {
        let entered = place.is_some();
        if let Some(serving) = place.take() {
            SERVED.with_borrow_mut(|served| served.push(serving));
            DEPTH.set(DEPTH.get() + 1);
        }
        Self { place, entered }
    }
}

impl Drop for ScopeGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.entered {
            // Whoever entered after this has left before it.
            *self.place = SERVED.with_borrow_mut(Vec::pop);
            DEPTH.set(DEPTH.get() - 1);
        }
    }
}

/// What the code which runs works for, to be handed on: of each pool the innermost request, which has an account from now
/// on.
pub(crate) fn handed_on() -> Vec<ActiveRequest> {
    SERVED.with_borrow_mut(|served| {
        let mut handed_on: Vec<ActiveRequest> = Vec::new();
        for serving in served.iter_mut().rev() {
            if !handed_on.iter().any(|inner| inner.is_of(serving.terms.recorder.ledger())) {
                serving.account();
                handed_on.push(serving.clone());
            }
        }
        handed_on
    })
}

/// Whether the code that runs works for any request, of whichever pool.
#[inline(always)]
pub(super) fn is_any() -> bool {
    cfg!(feature = "middleware") && DEPTH.get() != 0
}

/// Asks the innermost request of this pool that the code which runs works for.
fn innermost<T>(ledger: &Arc<Ledger>, ask: impl FnOnce(&mut ActiveRequest) -> T) -> Option<T> {
    // A thread at its end has no such memory any more, and works for nobody.
    let asked =
        SERVED.try_with(|served| served.borrow_mut().iter_mut().rev().find(|serving| serving.is_of(ledger)).map(ask));
    asked.ok().flatten()
}

/// The operation for what is done without a name, if it is done for a request whose route names it.
#[cold]
pub(super) fn operation(ledger: &Arc<Ledger>) -> Option<OperationId> {
    let named = innermost(ledger, |serving| {
        serving.names_operations().then(|| serving.named().ok_or_else(|| (Arc::clone(&serving.terms), serving.kind)))
    });
    match named.flatten()? {
        Ok(operation) => Some(operation),
        // To name it may be told to the log, and whoever reads that may have a pool.
        Err((terms, kind)) => {
            let recorder = &terms.recorder;
            Some(recorder.ledger().requests().operation(kind, |name| recorder.operation(name)))
        }
    }
}

/// Whether a request of this pool is being served already.
#[cfg(feature = "middleware")]
pub(crate) fn is_served(ledger: &Arc<Ledger>) -> bool {
    is_any() && innermost(ledger, |_| ()).is_some()
}

/// Counts a checkout that begins for the request that is being served, if one is.
#[cold]
pub(super) fn request_checkout(ledger: &Arc<Ledger>, site: SiteId) -> Option<RequestCheckout> {
    innermost(ledger, |serving| {
        let share = serving.terms.shares.as_ref().map(|shares| shares.of(serving.kind));
        RequestCheckout::begin(Arc::clone(serving.account()), site, share)
    })
}

/// Counts a retry for the request that is being served, if one is.
pub(crate) fn retried(ledger: &Arc<Ledger>) {
    if !is_any() {
        return;
    }
    innermost(ledger, |serving| {
        if let Some(request) = serving.request() {
            request.count_retry();
        }
    });
}
