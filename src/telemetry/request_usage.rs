//! What a single request has used of its pool.

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::ledger::{Ledger, Recorder};
use super::operations::{Operations, SiteId};
use super::requests::{RouteKey, UseBreakdown};
use crate::labels::{Activity, RequestMethod, RequestWarning};

/// What a request has used of its pool so far. Created at its first checkout, because most requests make none.
#[derive(Debug)]
pub(crate) struct RequestUsage {
    recorder: Recorder,
    route: RouteKey,
    checkouts: AtomicU64,
    wait_nanos: AtomicU64,
    use_nanos: [AtomicU64; Activity::COUNT],
    retries: AtomicU64,
    sites: Mutex<CallSites>,
    /// How long it may hold a connection without executing a query before it is warned of, in nanoseconds.
    idle_limit: u64,
}

impl RequestUsage {
    pub(crate) fn new(recorder: Recorder, route: RouteKey, idle_limit: u64) -> Self {
        Self {
            recorder,
            route,
            checkouts: AtomicU64::new(0),
            wait_nanos: AtomicU64::new(0),
            use_nanos: Default::default(),
            retries: AtomicU64::new(0),
            sites: Mutex::default(),
            idle_limit,
        }
    }

    fn ledger(&self) -> &Ledger {
        self.recorder.ledger()
    }

    /// Records that a checkout began at this call site.
    pub(crate) fn begin_checkout(&self, site: SiteId) {
        self.checkouts.fetch_add(1, Relaxed);
        self.sites.lock().unwrap_or_else(PoisonError::into_inner).count(site);
        self.ledger().routes().count_checkout(self.route);
    }

    /// Records that a checkout ended after waiting for `nanos`.
    pub(crate) fn end_wait(&self, nanos: u64) {
        self.wait_nanos.fetch_add(nanos, Relaxed);
        self.ledger().routes().count_wait(self.route, nanos);
    }

    /// Records that a connection was returned after it had been held for this time.
    pub(crate) fn end_use(&self, time: UseBreakdown) {
        for (total, nanos) in self.use_nanos.iter().zip(time.by_activity()) {
            total.fetch_add(nanos, Relaxed);
        }
        self.ledger().routes().count_use(self.route, time);
    }

    /// Warns if a connection that was checked out at `site` was held without executing for too long, apart from the time
    /// `own_wait` for which its task waited for another connection of the pool: that is a self-deadlock.
    pub(crate) fn warn_of_idle_hold(&self, site: SiteId, time: UseBreakdown, own_wait: u64) {
        let elsewhere = time.not_executing().saturating_sub(own_wait);
        if elsewhere >= self.idle_limit {
            let (ledger, warning) = (self.ledger(), RequestWarning::HeldElsewhere);
            ledger.routes().count_warning(self.route, warning);
            let (limiter, call_site) = (ledger.routes().limiter(warning), ledger.operations().location(site));
            let times = (elsewhere, time.executing);
            ledger.log().request_held_idle(limiter, self.route(), call_site, times);
        }
    }

    /// Records that an operation is retried.
    pub(crate) fn count_retry(&self) {
        self.retries.fetch_add(1, Relaxed);
        self.ledger().routes().count_retry(self.route);
    }

    /// Warns if the request made more than `limit` checkouts.
    pub(crate) fn warn_of_many_checkouts(&self, limit: u64) {
        let checkouts = self.checkouts();
        if checkouts > limit {
            let sites = *self.sites.lock().unwrap_or_else(PoisonError::into_inner);
            let (ledger, warning) = (self.ledger(), RequestWarning::ManyCheckouts);
            ledger.routes().count_warning(self.route, warning);
            let (limiter, call_sites) = (ledger.routes().limiter(warning), sites.display(ledger.operations()));
            ledger.log().request_many_checkouts(limiter, self.route(), checkouts, &call_sites);
        }
    }

    fn route(&self) -> (&str, RequestMethod) {
        (self.ledger().routes().route(self.route), self.route.method())
    }

    pub(crate) fn route_key(&self) -> RouteKey {
        self.route
    }

    /// Returns the method and route, as in `GET /orders/{id}`.
    pub(crate) fn route_text(&self) -> Arc<str> {
        self.ledger().routes().text(self.route)
    }

    /// Returns the number of checkouts.
    pub(crate) fn checkouts(&self) -> u64 {
        self.checkouts.load(Relaxed)
    }

    /// Returns the number of retries.
    pub(crate) fn retries(&self) -> u64 {
        self.retries.load(Relaxed)
    }

    /// Returns the time spent waiting in checkouts that have ended.
    pub(crate) fn waited(&self) -> Duration {
        Duration::from_nanos(self.wait_nanos.load(Relaxed))
    }

    /// Returns the time for which returned connections had this activity.
    pub(crate) fn used(&self, activity: Activity) -> Duration {
        Duration::from_nanos(self.use_nanos[activity.index()].load(Relaxed))
    }
}

/// The call sites of a request's checkouts, with the number of checkouts of each. Only the first few are kept apart.
#[derive(Clone, Copy, Debug)]
struct CallSites {
    sites: [(SiteId, u64); 4],
    others: u64,
}

impl Default for CallSites {
    fn default() -> Self {
        Self { sites: [(SiteId::NONE, 0); 4], others: 0 }
    }
}

impl CallSites {
    fn count(&mut self, site: SiteId) {
        match self.sites.iter_mut().find(|(known, count)| *known == site || *count == 0) {
            Some(entry) => *entry = (site, entry.1 + 1),
            None => self.others += 1,
        }
    }

    /// Returns the call sites as they are logged: `src/orders.rs:42 ×12, src/cart.rs:7 ×3`.
    fn display(self, operations: &Operations) -> impl fmt::Display {
        struct Listed<'a>(CallSites, &'a Operations);

        impl fmt::Display for Listed<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let known = self.0.sites.iter().filter(|(_, count)| *count > 0);
                for (index, (site, count)) in known.enumerate() {
                    let comma = if index == 0 { "" } else { ", " };
                    match self.1.location(*site) {
                        Some(location) => write!(f, "{comma}{}:{} ×{count}", location.file(), location.line())?,
                        None => write!(f, "{comma}unknown ×{count}")?,
                    }
                }
                match self.0.others {
                    0 => Ok(()),
                    count => write!(f, ", others ×{count}"),
                }
            }
        }

        Listed(self, operations)
    }
}
