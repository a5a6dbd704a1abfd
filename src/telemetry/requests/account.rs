//! What one request cost.

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::RouteKey;
use crate::labels::Activity;
use crate::telemetry::ledger::{Ledger, Recorder};
use crate::telemetry::operations::SiteId;

/// Time for which a connection was held, by what it did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct UseBreakdown {
    pub(crate) executing: u64,
    pub(crate) in_transaction: u64,
    pub(crate) idle: u64,
}

impl UseBreakdown {
    /// By [`Activity::ALL`].
    pub(crate) fn by_activity(self) -> [u64; Activity::COUNT] {
        let mut nanos = [0; Activity::COUNT];
        nanos[Activity::Executing.index()] = self.executing;
        nanos[Activity::IdleInTransaction.index()] = self.in_transaction;
        nanos[Activity::Idle.index()] = self.idle;
        nanos
    }

    /// While the server had nothing to do for it.
    pub(crate) fn not_executing(self) -> u64 {
        self.in_transaction.saturating_add(self.idle)
    }
}

/// What one request has cost its pool so far. Made at its first checkout: most requests make none.
#[derive(Debug)]
pub(crate) struct Request {
    recorder: Recorder,
    kind: RouteKey,
    checkouts: AtomicU64,
    wait_nanos: AtomicU64,
    use_nanos: [AtomicU64; Activity::COUNT],
    retries: AtomicU64,
    sites: Mutex<CallSites>,
    /// For how long it may hold a connection while the server has nothing to do for it; in nanoseconds.
    idle_limit: u64,
}

impl Request {
    pub(crate) fn new(recorder: Recorder, kind: RouteKey, idle_limit: u64) -> Self {
        Self {
            recorder,
            kind,
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

    /// A checkout began at this place.
    pub(crate) fn begin_checkout(&self, site: SiteId) {
        self.checkouts.fetch_add(1, Relaxed);
        self.sites.lock().unwrap_or_else(PoisonError::into_inner).count(site);
        self.ledger().requests().count_checkout(self.kind);
    }

    /// A checkout ended that had to wait for so long.
    pub(crate) fn end_wait(&self, nanos: u64) {
        self.wait_nanos.fetch_add(nanos, Relaxed);
        self.ledger().requests().count_wait(self.kind, nanos);
    }

    /// A connection was returned that had been held for so long.
    pub(crate) fn end_use(&self, spent: UseBreakdown) {
        for (total, nanos) in self.use_nanos.iter().zip(spent.by_activity()) {
            total.fetch_add(nanos, Relaxed);
        }
        self.ledger().requests().count_use(self.kind, spent);
    }

    /// Warns of a hold, by who had checked out at `site`, in which nothing was asked for too long.
    pub(crate) fn warn_of_hold(&self, site: SiteId, spent: UseBreakdown) {
        if spent.not_executing() >= self.idle_limit {
            self.recorder.request_held(self.kind, site, spent);
        }
    }

    /// An operation is tried again.
    pub(crate) fn count_retry(&self) {
        self.retries.fetch_add(1, Relaxed);
        self.ledger().requests().count_retry(self.kind);
    }

    /// Warns of it if it made more checkouts than that.
    pub(crate) fn warn_of_many(&self, limit: u64) {
        let checkouts = self.checkouts();
        if checkouts > limit {
            let sites = *self.sites.lock().unwrap_or_else(PoisonError::into_inner);
            self.recorder.request_many_checkouts(self.kind, checkouts, sites);
        }
    }

    pub(crate) fn checkouts(&self) -> u64 {
        self.checkouts.load(Relaxed)
    }

    pub(crate) fn retries(&self) -> u64 {
        self.retries.load(Relaxed)
    }

    /// How long it has waited, in checkouts that have ended.
    pub(crate) fn waited(&self) -> Duration {
        Duration::from_nanos(self.wait_nanos.load(Relaxed))
    }

    /// For how long it held connections that it has returned, doing this.
    pub(crate) fn used(&self, activity: Activity) -> Duration {
        Duration::from_nanos(self.use_nanos[activity.index()].load(Relaxed))
    }
}

/// Where a request checked out, and how often: of the first few places.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CallSites {
    places: [(SiteId, u64); 4],
    elsewhere: u64,
}

impl Default for CallSites {
    fn default() -> Self {
        Self { places: [(SiteId::NONE, 0); 4], elsewhere: 0 }
    }
}

impl CallSites {
    fn count(&mut self, site: SiteId) {
        let place = self.places.iter_mut().find(|(place, times)| *place == site || *times == 0);
        match place {
            Some(place) => *place = (site, place.1 + 1),
            None => self.elsewhere += 1,
        }
    }

    /// For the log: `src/orders.rs:42 ×12, src/cart.rs:7 ×3`.
    pub(crate) fn named(self, ledger: &Ledger) -> impl fmt::Display {
        struct Named<'a>(CallSites, &'a Ledger);

        impl fmt::Display for Named<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let known = self.0.places.iter().filter(|(_, times)| *times > 0);
                for (place, (site, times)) in known.enumerate() {
                    let comma = if place == 0 { "" } else { ", " };
                    match self.1.operations().location(*site) {
                        Some(at) => write!(f, "{comma}{}:{} ×{times}", at.file(), at.line())?,
                        None => write!(f, "{comma}a place not told apart ×{times}")?,
                    }
                }
                match self.0.elsewhere {
                    0 => Ok(()),
                    times => write!(f, ", elsewhere ×{times}"),
                }
            }
        }

        Named(self, ledger)
    }
}
