//! The request that the current thread works for.
//!
//! Code that checks out a connection has no reference to the request that it serves. The middleware therefore puts the
//! request into a thread-local while it polls the request's futures, and removes it afterwards; a spawned task receives
//! it through its scope. Layers of several pools may be nested, so there may be several requests at once.

use std::cell::RefCell;
use std::mem::ManuallyDrop;
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
#[derive(Clone, Debug)]
pub(crate) struct LayerConfig {
    pub(crate) recorder: Recorder,
    /// Where the layer was made.
    pub(crate) call_site: &'static Location<'static>,
    /// Whether operations without a name are named after the request's route.
    pub(crate) names_operations: bool,
    /// How long a connection may be held while the server has nothing to do for it, in nanoseconds.
    pub(crate) idle_limit: u64,
    /// The limit of connections for each route, if there is one.
    pub(crate) route_limits: Option<Arc<RouteLimits>>,
    /// Whether responses have a `Server-Timing` header.
    pub(crate) server_timing: bool,
    /// Whether requests outside any span get a server span.
    pub(crate) server_span: bool,
    /// The number of checkouts beyond which a request is warned of.
    pub(crate) max_checkouts: u64,
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

thread_local! {
    /// The innermost of the requests that the thread works for, `None` if it works for none. There is rarely another, so it is
    /// apart from them. Not dropped with the thread, since every scope has been left by then: a thread-local without a
    /// destructor is reached without checking whether the thread is ending.
    static INNERMOST: RefCell<Option<ManuallyDrop<ActiveRequest>>> = const { RefCell::new(None) };
    /// The others, the outermost first.
    static OUTER: RefCell<Vec<ActiveRequest>> = const { RefCell::new(Vec::new()) };
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
            if let Some(outer) = INNERMOST.replace(Some(ManuallyDrop::new(request))) {
                put_aside(outer);
            }
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
            *self.request = INNERMOST.take().map(ManuallyDrop::into_inner);
            count_request_scopes(-1);
            if in_request_scope() {
                restore();
            }
        }
    }
}

/// Keeps an outer request while an inner one is served.
#[cold]
fn put_aside(outer: ManuallyDrop<ActiveRequest>) {
    OUTER.with_borrow_mut(|others| others.push(ManuallyDrop::into_inner(outer)));
}

/// Makes the last of the outer requests the innermost one.
#[cold]
fn restore() {
    INNERMOST.set(OUTER.with_borrow_mut(Vec::pop).map(ManuallyDrop::new));
}

/// Calls `visit` with the requests that the thread works for, innermost first, until it returns `Some`.
fn find<T>(mut visit: impl FnMut(&mut ActiveRequest) -> Option<T>) -> Option<T> {
    INNERMOST.with_borrow_mut(|innermost| {
        // Without an innermost request there are no others.
        let found = visit(innermost.as_mut()?);
        // A thread that is being destroyed has no others any more.
        let of_others = || OUTER.try_with(|others| others.borrow_mut().iter_mut().rev().find_map(visit)).ok().flatten();
        found.or_else(of_others)
    })
}

/// Returns the innermost request of each pool, for another task to work for; each has an account from now on.
pub(crate) fn current() -> Vec<ActiveRequest> {
    let mut current: Vec<ActiveRequest> = Vec::new();
    find(|request| {
        if !current.iter().any(|inner| inner.is_of(request.config.recorder.ledger())) {
            request.account_or_new();
            current.push(request.clone());
        }
        None::<()>
    });
    current
}

/// Calls `f` with the innermost request of the pool with this ledger.
fn with_innermost<T>(ledger: &Arc<Ledger>, mut f: impl FnMut(&mut ActiveRequest) -> T) -> Option<T> {
    find(|request| request.is_of(ledger).then(|| f(request)))
}

/// Returns whether the thread works for a request of the pool with this ledger.
#[inline]
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
