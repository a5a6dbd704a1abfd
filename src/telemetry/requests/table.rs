//! The counters of requests by route and method.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::{Arc, OnceLock};

use super::{RequestTotals, UseBreakdown};
use crate::labels::{Activity, Outcome, RequestMethod, RequestWarning};
use crate::telemetry::histogram::{Histogram, SharedHistogram};
use crate::telemetry::log::Limiter;
use crate::telemetry::names::{Interned, NAME_IDS, NameTable};
use crate::telemetry::operations::{MAX_NAME_BYTES, OperationId};
use crate::telemetry::trace_context::TraceContext;

/// The index of a route and method in its pool's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RouteKey(u16);

impl RouteKey {
    /// The number of route ids, including `other`.
    pub(crate) const ROUTE_IDS: usize = NAME_IDS;

    /// Returns the key as a number that is not zero.
    #[cfg_attr(not(feature = "middleware"), allow(dead_code, reason = "only the middleware serves requests"))]
    pub(crate) fn packed(self) -> u16 {
        self.0 + 1
    }

    /// Returns the key that was packed as this number; `None` for zero.
    pub(crate) fn unpacked(packed: u16) -> Option<Self> {
        packed.checked_sub(1).map(Self)
    }

    // The largest index, of 201 routes with ten methods each, fits.
    fn new(route: u16, method: RequestMethod) -> Self {
        const METHODS: u16 = RequestMethod::COUNT as u16;
        Self(route * METHODS + method as u16)
    }

    fn index(self) -> usize {
        usize::from(self.0)
    }

    /// Returns the id of the route.
    pub(crate) fn route(self) -> u16 {
        self.0 / RequestMethod::COUNT as u16
    }

    pub(crate) fn method(self) -> RequestMethod {
        RequestMethod::ALL[self.index() % RequestMethod::COUNT]
    }
}

/// The counters of one pool's requests.
#[derive(Debug)]
pub(crate) struct RouteTable {
    routes: NameTable,
    /// By [`RouteKey`], allocated at the first request of a route and method.
    counters: Box<[OnceLock<Box<RouteCounters>>]>,
    /// Limit the log lines of warnings.
    limiters: [Limiter; RequestWarning::COUNT],
}

/// The counters of one route and method. Aligned so that requests served at the same time share no cache line.
#[derive(Debug, Default)]
#[repr(align(128))]
struct RouteCounters {
    started: AtomicU64,
    checkouts: AtomicU64,
    wait_nanos: AtomicU64,
    use_nanos: [AtomicU64; Activity::COUNT],
    retries: AtomicU64,
    warnings: [AtomicU64; RequestWarning::COUNT],
    /// By outcome, allocated at the first request with that outcome.
    durations: [OnceLock<Box<SharedHistogram>>; Outcome::COUNT],
    /// The operation for checkouts that have no name of their own.
    operation: OnceLock<OperationId>,
    /// The method and route.
    text: OnceLock<Arc<str>>,
}

impl RouteTable {
    pub(crate) fn new() -> Self {
        Self {
            routes: NameTable::new(MAX_NAME_BYTES),
            counters: (0..RouteKey::ROUTE_IDS * RequestMethod::COUNT).map(|_| OnceLock::new()).collect(),
            limiters: Default::default(),
        }
    }

    /// Returns the key of a route and method, adding the route if there is room. Returns `None` for the first route
    /// that is refused; further ones get the key of [`Self::other`].
    pub(crate) fn key(&self, route: &str, method: RequestMethod) -> Option<RouteKey> {
        match self.routes.id(route) {
            Interned::Known(route) => Some(RouteKey::new(route, method)),
            Interned::Refused => None,
        }
    }

    /// Returns the key of routes beyond the limit.
    pub(crate) fn other(method: RequestMethod) -> RouteKey {
        RouteKey::new(0, method)
    }

    /// Returns the name of the key's route.
    pub(crate) fn route(&self, key: RouteKey) -> &str {
        self.routes.name(key.route())
    }

    /// Returns the method and route, as in `GET /orders/{id}`.
    pub(crate) fn text(&self, key: RouteKey) -> Arc<str> {
        let text = || format!("{} {}", key.method().as_str(), self.route(key)).into();
        Arc::clone(self.of(key).text.get_or_init(text))
    }

    fn of(&self, key: RouteKey) -> &RouteCounters {
        self.counters[key.index()].get_or_init(Box::default)
    }

    pub(crate) fn start(&self, key: RouteKey) {
        self.of(key).started.fetch_add(1, Relaxed);
    }

    pub(crate) fn end(&self, key: RouteKey, outcome: Outcome, nanos: u64, trace: Option<TraceContext>) {
        let durations = self.of(key).durations[outcome.index()].get_or_init(Box::default);
        // A reader that sees the end must see the start too.
        std::sync::atomic::fence(Release);
        durations.observe(nanos, trace);
    }

    pub(crate) fn count_checkout(&self, key: RouteKey) {
        self.of(key).checkouts.fetch_add(1, Relaxed);
    }

    pub(crate) fn count_wait(&self, key: RouteKey, nanos: u64) {
        self.of(key).wait_nanos.fetch_add(nanos, Relaxed);
    }

    pub(crate) fn count_use(&self, key: RouteKey, time: UseBreakdown) {
        for (total, nanos) in self.of(key).use_nanos.iter().zip(time.by_activity()) {
            total.fetch_add(nanos, Relaxed);
        }
    }

    pub(crate) fn count_retry(&self, key: RouteKey) {
        self.of(key).retries.fetch_add(1, Relaxed);
    }

    pub(crate) fn count_warning(&self, key: RouteKey, warning: RequestWarning) {
        self.of(key).warnings[warning.index()].fetch_add(1, Relaxed);
    }

    /// Returns the limiter of a warning's log lines.
    pub(crate) fn limiter(&self, warning: RequestWarning) -> &Limiter {
        &self.limiters[warning.index()]
    }

    /// Returns the operation named after this route and method, if it exists yet.
    pub(crate) fn existing_operation(&self, key: RouteKey) -> Option<OperationId> {
        self.of(key).operation.get().copied()
    }

    /// Returns the operation for checkouts of this route and method that have no name of their own; `name` interns its
    /// name.
    pub(crate) fn operation(&self, key: RouteKey, name: impl FnOnce(&str) -> OperationId) -> OperationId {
        *self.of(key).operation.get_or_init(|| name(&format!("{} {}", key.method().as_str(), self.route(key))))
    }

    /// Reads the counters into the first elements of `totals`, adding elements as needed. Returns how many were read.
    pub(crate) fn read(&self, totals: &mut Vec<RequestTotals>) -> usize {
        let mut count = 0;
        for (index, counters) in self.counters.iter().enumerate() {
            let Some(counters) = counters.get() else { continue };
            let Ok(key) = u16::try_from(index).map(RouteKey) else { continue };
            let route = self.routes.shared(key.route());
            if count == totals.len() {
                totals.push(RequestTotals::blank(Arc::clone(route)));
            }
            counters.read(&mut totals[count]);
            totals[count].set_key(route, key.method());
            count += 1;
        }
        count
    }
}

impl RouteCounters {
    fn read(&self, totals: &mut RequestTotals) {
        for (durations, histogram) in self.durations.iter().zip(&mut totals.durations) {
            match durations.get() {
                Some(durations) => durations.read_into(histogram),
                None => histogram.clear(),
            }
        }
        // Requests that ended are read first, so that never more have ended than were started.
        std::sync::atomic::fence(Acquire);
        totals.started = self.started.load(Relaxed);
        let ended: u64 = totals.durations.iter().map(Histogram::count).sum();
        totals.in_flight = totals.started.saturating_sub(ended);
        totals.checkouts = self.checkouts.load(Relaxed);
        totals.wait_nanos = self.wait_nanos.load(Relaxed);
        totals.use_nanos = std::array::from_fn(|activity| self.use_nanos[activity].load(Relaxed));
        totals.retries = self.retries.load(Relaxed);
        totals.warnings = std::array::from_fn(|warning| self.warnings[warning].load(Relaxed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_round_trips_route_and_method() {
        for route in [0, 1, 200] {
            for method in RequestMethod::ALL {
                let key = RouteKey::new(route, *method);
                assert_eq!((key.route(), key.method()), (route, *method));
                assert!(key.index() < RouteKey::ROUTE_IDS * RequestMethod::COUNT);
            }
        }
    }

    #[test]
    fn routes_beyond_the_limit_are_counted_as_other() {
        let requests = RouteTable::new();
        let (get, post) = (RequestMethod::Get, RequestMethod::Post);
        let list = requests.key("/orders", get).unwrap();
        assert_eq!(requests.key("/orders", get), Some(list));
        let place = requests.key("/orders", post).unwrap();
        for key in [list, place, list] {
            requests.start(key);
        }
        requests.end(list, Outcome::Ok, 5, None);
        requests.count_checkout(list);
        for route in 0..199 {
            assert_ne!(requests.key(&format!("/{route}"), get), Some(RouteTable::other(get)));
        }
        assert_eq!(requests.key("/one too many", get), None, "refused once");
        assert_eq!(requests.key("/another", get), Some(RouteTable::other(get)));

        let mut totals = Vec::new();
        assert_eq!(requests.read(&mut totals), 2, "routes without requests are omitted");
        let by_method = |method| totals.iter().find(|totals| totals.method == method).unwrap();
        let (list, place) = (by_method(get), by_method(post));
        assert_eq!((&*list.route, list.started, list.in_flight, list.checkouts), ("/orders", 2, 1, 1));
        assert_eq!((&*place.route, place.started, place.in_flight, place.checkouts), ("/orders", 1, 1, 0));
        assert_eq!(list.durations[Outcome::Ok.index()].count(), 1);
    }
}
