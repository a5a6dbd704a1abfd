//! The request that the current thread works for.
//!
//! Code that checks out a connection has no reference to the request that it serves. The middleware therefore puts the
//! request into a thread-local while it polls the request's futures, and removes it afterwards; a spawned task receives
//! it through its scope. Layers of several pools may be nested, so there may be several requests at once.

use std::cell::RefCell;
use std::panic::Location;
use std::sync::Arc;

use super::super::checkout::context::{count_request_scopes, in_request_scope};
use super::checkout::RequestCheckout;
use super::route_limits::RouteLimits;
use crate::telemetry::ledger::{Ledger, Recorder};
use crate::telemetry::operations::{OperationId, SiteId};
use crate::telemetry::request_usage::RequestUsage;
use crate::telemetry::requests::{RouteKey, UNKNOWN_ROUTE};

/// The configuration that all requests of one layer share.
#[derive(Debug)]
pub(crate) struct LayerConfig {
    pub(crate) recorder: Recorder,
    /// Whether operations without a name are named after the request's route.
    pub(crate) names_operations: bool,
    /// How long a connection may be held while the server has nothing to do for it, in nanoseconds.
    pub(crate) idle_limit: u64,
    /// The limit of connections for each route, if there is one.
    pub(crate) route_limits: Option<Arc<RouteLimits>>,
    /// Where the layer was made.
    pub(crate) call_site: &'static Location<'static>,
}

/// A request that is being served.
#[derive(Clone, Debug)]
pub(crate) struct ActiveRequest {
    config: Arc<LayerConfig>,
    route: RouteKey,
    /// Its account, from its first checkout.
    account: Option<Arc<RequestUsage>>,
}

impl ActiveRequest {
    pub(crate) fn new(config: Arc<LayerConfig>, route: RouteKey) -> Self {
        Self { config, route, account: None }
    }

    pub(crate) fn route_key(&self) -> RouteKey {
        self.route
    }

    pub(crate) fn config(&self) -> &LayerConfig {
        &self.config
    }

    /// Returns its account, if it has checked out.
    pub(crate) fn account(&self) -> Option<&Arc<RequestUsage>> {
        self.account.as_ref()
    }

    fn account_or_new(&mut self) -> &Arc<RequestUsage> {
        let Self { config, route, account } = self;
        account.get_or_insert_with(|| Arc::new(RequestUsage::new(config.recorder.clone(), *route, config.idle_limit)))
    }

    /// Returns its route, which may be [`UNKNOWN_ROUTE`].
    pub(crate) fn route(&self) -> &str {
        self.config.recorder.ledger().routes().route(self.route)
    }

    fn names_operations(&self) -> bool {
        self.config.names_operations && self.route() != UNKNOWN_ROUTE
    }

    /// Returns the operation that is named after its method and route, if there is one by now.
    pub(crate) fn named_operation(&self) -> Option<OperationId> {
        self.config.recorder.ledger().routes().existing_operation(self.route)
    }

    fn is_of(&self, ledger: &Arc<Ledger>) -> bool {
        Arc::ptr_eq(self.config.recorder.ledger(), ledger)
    }
}

/// The requests that a thread works for. There is rarely more than one, so that it is kept apart from the others.
#[derive(Debug)]
struct ActiveRequests {
    innermost: Option<ActiveRequest>,
    /// The others, the outermost first. Empty if there is no innermost one.
    outer: Vec<ActiveRequest>,
}

impl ActiveRequests {
    #[inline]
    fn enter(&mut self, request: ActiveRequest) {
        if let Some(outer) = self.innermost.replace(request) {
            self.outer.push(outer);
        }
    }

    /// Leaves the innermost request.
    #[inline]
    fn leave(&mut self) -> Option<ActiveRequest> {
        let left = self.innermost.take();
        if !self.outer.is_empty() {
            self.innermost = self.outer.pop();
        }
        left
    }

    /// Returns the requests, innermost first.
    #[inline]
    fn iter_mut(&mut self) -> impl Iterator<Item = &mut ActiveRequest> {
        self.innermost.iter_mut().chain(self.outer.iter_mut().rev())
    }
}

thread_local! {
    static ACTIVE: RefCell<ActiveRequests> =
        const { RefCell::new(ActiveRequests { innermost: None, outer: Vec::new() }) };
}

/// Makes the thread work for a request until dropped, also by a panic.
pub(crate) struct ScopeGuard<'a> {
    request: &'a mut Option<ActiveRequest>,
    entered: bool,
}

impl<'a> ScopeGuard<'a> {
    /// Enters the scope of `request`, if it is `Some`; it is `None` until the guard is dropped.
    #[inline]
    pub(crate) fn enter(request: &'a mut Option<ActiveRequest>) -> Self {
        let entered = request.is_some();
        if let Some(request) = request.take() {
            ACTIVE.with_borrow_mut(|active| active.enter(request));
            count_request_scopes(1);
        }
        Self { request, entered }
    }
}

impl Drop for ScopeGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.entered {
            // Scopes that were entered after this one have been left before.
            *self.request = ACTIVE.with_borrow_mut(ActiveRequests::leave);
            count_request_scopes(-1);
        }
    }
}

/// Returns the innermost request of each pool, for another task to work for; each has an account from now on.
pub(crate) fn current() -> Vec<ActiveRequest> {
    ACTIVE.with_borrow_mut(|active| {
        let mut current: Vec<ActiveRequest> = Vec::new();
        for request in active.iter_mut() {
            if !current.iter().any(|inner| inner.is_of(request.config.recorder.ledger())) {
                request.account_or_new();
                current.push(request.clone());
            }
        }
        current
    })
}

/// Calls `f` with the innermost request of the pool with this ledger.
fn with_innermost<T>(ledger: &Arc<Ledger>, f: impl FnOnce(&mut ActiveRequest) -> T) -> Option<T> {
    // A thread that is being destroyed has no thread-locals any more, and serves no request.
    let result = ACTIVE.try_with(|active| active.borrow_mut().iter_mut().find(|request| request.is_of(ledger)).map(f));
    result.ok().flatten()
}

/// Returns whether the thread works for a request of the pool with this ledger.
pub(crate) fn is_active(ledger: &Arc<Ledger>) -> bool {
    in_request_scope() && with_innermost(ledger, |_| ()).is_some()
}

/// Returns the operation for work without a name, if the current request's route names it.
#[cold]
pub(in crate::pool) fn operation(ledger: &Arc<Ledger>) -> Option<OperationId> {
    let named = with_innermost(ledger, |request| {
        request
            .names_operations()
            .then(|| request.named_operation().ok_or_else(|| (Arc::clone(&request.config), request.route)))
    });
    match named.flatten()? {
        Ok(operation) => Some(operation),
        // Outside of the borrow: a new name may be logged, and the subscriber may use a pool.
        Err((config, route)) => {
            let recorder = &config.recorder;
            Some(recorder.ledger().routes().operation(route, |name| recorder.operation(name)))
        }
    }
}

/// Returns the route and method of the current request, if there is one.
#[cold]
pub(in crate::pool) fn route_key(ledger: &Arc<Ledger>) -> Option<RouteKey> {
    with_innermost(ledger, |request| request.route)
}

/// Counts a checkout for the current request, if there is one.
#[cold]
pub(in crate::pool) fn begin_checkout(ledger: &Arc<Ledger>, site: SiteId) -> Option<RequestCheckout> {
    with_innermost(ledger, |request| {
        let permits = request.config.route_limits.as_ref().map(|limits| limits.permits(request.route));
        RequestCheckout::begin(Arc::clone(request.account_or_new()), site, permits)
    })
}

/// Counts a retry for the current request, if there is one that has checked out.
pub(crate) fn count_retry(ledger: &Arc<Ledger>) {
    if !in_request_scope() {
        return;
    }
    with_innermost(ledger, |request| {
        if let Some(account) = request.account() {
            account.count_retry();
        }
    });
}
