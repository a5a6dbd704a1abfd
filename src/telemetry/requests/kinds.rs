//! The kinds of requests that a pool tells apart, and what all requests of a kind cost it.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::{Arc, OnceLock};

use super::{RequestMethod, RequestTotals, RequestWarning, UseBreakdown};
use crate::labels::{Activity, Outcome};
use crate::telemetry::histogram::{Histogram, SharedHistogram};
use crate::telemetry::names::{IDS, Interned, Names};
use crate::telemetry::operations::{MAX_NAME_BYTES, OperationId};
use crate::telemetry::trace::TraceContext;

/// A route and a method, as an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RouteKey(u16);

impl RouteKey {
    /// The most that there are fit: 201 routes of ten methods.
    fn new(route: u16, method: RequestMethod) -> Self {
        const METHODS: u16 = RequestMethod::COUNT as u16;
        Self(route * METHODS + method as u16)
    }

    fn index(self) -> usize {
        usize::from(self.0)
    }

    /// The place of the route.
    pub(crate) fn route(self) -> u16 {
        self.0 / RequestMethod::COUNT as u16
    }

    pub(crate) fn method(self) -> RequestMethod {
        RequestMethod::ALL[self.index() % RequestMethod::COUNT]
    }
}

/// How many routes there are ids for, `other` included.
pub(crate) const ROUTES: usize = IDS;

/// All kinds of requests of one pool.
#[derive(Debug)]
pub(crate) struct Requests {
    routes: Names,
    /// By id, made when the first request of the kind comes.
    kinds: Box<[OnceLock<Box<Kind>>]>,
}

/// What the requests of one kind cost. Aligned so that two kinds that are served at once share no cache line.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Kind {
    started: AtomicU64,
    checkouts: AtomicU64,
    wait_nanos: AtomicU64,
    use_nanos: [AtomicU64; Activity::COUNT],
    retries: AtomicU64,
    warnings: [AtomicU64; RequestWarning::COUNT],
    /// By outcome, made when the first ends that way.
    durations: [OnceLock<Box<SharedHistogram>>; Outcome::COUNT],
    /// What is done for it without a name of its own.
    operation: OnceLock<OperationId>,
}

impl Requests {
    pub(crate) fn new() -> Self {
        Self {
            routes: Names::new(MAX_NAME_BYTES),
            kinds: (0..ROUTES * RequestMethod::COUNT).map(|_| OnceLock::new()).collect(),
        }
    }

    /// The kind of a request; `None` the first time that there are too many routes to tell this one apart.
    pub(crate) fn kind(&self, route: &str, method: RequestMethod) -> Option<RouteKey> {
        match self.routes.id(route) {
            Interned::Known(route) => Some(RouteKey::new(route, method)),
            Interned::Refused => None,
        }
    }

    /// The kind of all those that are not told apart.
    pub(crate) fn other(method: RequestMethod) -> RouteKey {
        RouteKey::new(0, method)
    }

    pub(crate) fn route(&self, kind: RouteKey) -> &str {
        self.routes.name(kind.route())
    }

    fn of(&self, kind: RouteKey) -> &Kind {
        self.kinds[kind.index()].get_or_init(Box::default)
    }

    pub(crate) fn start(&self, kind: RouteKey) {
        self.of(kind).started.fetch_add(1, Relaxed);
    }

    pub(crate) fn end(&self, kind: RouteKey, outcome: Outcome, nanos: u64, trace: Option<TraceContext>) {
        let durations = self.of(kind).durations[outcome.index()].get_or_init(Box::default);
        // Whoever sees that it ended sees that it began.
        std::sync::atomic::fence(Release);
        durations.observe(nanos, trace);
    }

    pub(super) fn count_checkout(&self, kind: RouteKey) {
        self.of(kind).checkouts.fetch_add(1, Relaxed);
    }

    pub(super) fn count_wait(&self, kind: RouteKey, nanos: u64) {
        self.of(kind).wait_nanos.fetch_add(nanos, Relaxed);
    }

    pub(super) fn count_use(&self, kind: RouteKey, spent: UseBreakdown) {
        for (total, nanos) in self.of(kind).use_nanos.iter().zip(spent.by_activity()) {
            total.fetch_add(nanos, Relaxed);
        }
    }

    pub(super) fn count_retry(&self, kind: RouteKey) {
        self.of(kind).retries.fetch_add(1, Relaxed);
    }

    pub(crate) fn count_warning(&self, kind: RouteKey, warning: RequestWarning) {
        self.of(kind).warnings[warning.index()].fetch_add(1, Relaxed);
    }

    /// The operation that was named after this kind, if one was.
    pub(crate) fn named(&self, kind: RouteKey) -> Option<OperationId> {
        self.of(kind).operation.get().copied()
    }

    /// The operation for what is done for this kind without a name of its own.
    pub(crate) fn operation(&self, kind: RouteKey, name: impl FnOnce(&str) -> OperationId) -> OperationId {
        *self.of(kind).operation.get_or_init(|| name(&format!("{} {}", kind.method().as_str(), self.route(kind))))
    }

    /// Reads what the kinds that there are cost into `totals`, one after the other; answers how many there are.
    pub(crate) fn read(&self, totals: &mut Vec<RequestTotals>) -> usize {
        let mut known = 0;
        for (place, kind) in self.kinds.iter().enumerate() {
            let Some(kind) = kind.get() else { continue };
            let Ok(id) = u16::try_from(place).map(RouteKey) else { continue };
            let route = self.routes.shared(id.route());
            if known == totals.len() {
                totals.push(RequestTotals::blank(Arc::clone(route)));
            }
            kind.read(&mut totals[known]);
            totals[known].set_kind(route, id.method());
            known += 1;
        }
        known
    }
}

impl Kind {
    fn read(&self, totals: &mut RequestTotals) {
        for (durations, histogram) in self.durations.iter().zip(&mut totals.durations) {
            match durations.get() {
                Some(durations) => durations.read_into(histogram),
                None => histogram.clear(),
            }
        }
        // Ended before begun, so that never more have ended than were begun.
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
    fn an_id_says_which_route_and_method_it_is_of() {
        for route in [0, 1, 200] {
            for method in RequestMethod::ALL {
                let kind = RouteKey::new(route, *method);
                assert_eq!((kind.route(), kind.method()), (route, *method));
                assert!(kind.index() < ROUTES * RequestMethod::COUNT);
            }
        }
    }

    #[test]
    fn kinds_are_counted_apart_and_those_beyond_the_bound_together() {
        let requests = Requests::new();
        let (get, post) = (RequestMethod::Get, RequestMethod::Post);
        let list = requests.kind("/orders", get).unwrap();
        assert_eq!(requests.kind("/orders", get), Some(list));
        let place = requests.kind("/orders", post).unwrap();
        for kind in [list, place, list] {
            requests.start(kind);
        }
        requests.end(list, Outcome::Ok, 5, None);
        requests.count_checkout(list);
        for route in 0..199 {
            assert_ne!(requests.kind(&format!("/{route}"), get), Some(Requests::other(get)));
        }
        assert_eq!(requests.kind("/one too many", get), None, "said once");
        assert_eq!(requests.kind("/another", get), Some(Requests::other(get)));

        let mut totals = Vec::new();
        assert_eq!(requests.read(&mut totals), 2, "those that nobody asked for are not there");
        let by_method = |method| totals.iter().find(|totals| totals.method == method).unwrap();
        let (list, place) = (by_method(get), by_method(post));
        assert_eq!((&*list.route, list.started, list.in_flight, list.checkouts), ("/orders", 2, 1, 1));
        assert_eq!((&*place.route, place.started, place.in_flight, place.checkouts), ("/orders", 1, 1, 0));
        assert_eq!(list.durations[Outcome::Ok.index()].count(), 1);
    }
}
