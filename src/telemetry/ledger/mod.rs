//! The accounts of one pool, and the reader of events that keeps them.
//!
//! What every checkout needs is counted on the connection it got ([`ConnectionStats`](super::seat::Seat)): no lock, no shared
//! cache line. Everything else (a checkout that waits or fails, a connection that is made or closed) takes one lock,
//! the `LedgerState`, which costs nothing beside what it is taken for. A snapshot holds that lock, so that whatever moved
//! from one account to another is seen in exactly one of them:
//!
//! - checkouts started = the sum of outcomes + in flight, for each operation;
//! - connections idle + used + creating = live, because each live seat is in exactly one state;
//! - connections created = the sum of closed by reason + live.

#[cfg_attr(not(feature = "middleware"), allow(dead_code, reason = "nobody serves requests"))]
mod backlog;
mod books;
mod deferred;
mod failures;
mod history;
mod holders;
mod reading;
mod record;
mod recorder;
mod retries;
mod situation;
mod snapshot;
mod unpooled;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

#[cfg(feature = "middleware")]
pub(crate) use self::backlog::{Backlog, Line};
use self::books::LedgerState;
pub(crate) use self::books::Ticket;
pub(crate) use self::holders::Suspicion;
pub use self::holders::{Holder, OwnHold, Waiter};
#[cfg(feature = "exporter")]
pub(crate) use self::reading::Reading;
pub(crate) use self::recorder::Recorder;
pub use self::situation::{Holding, PoolUsage, Status};
pub use self::snapshot::{
    ConnectionErrors, Connections, DirtyReturns, OperationTotals, PoolSnapshot, QueryDurations, QueryErrors, Retries,
    RetriesExhausted,
};
pub(crate) use self::unpooled::UnpooledPlace;
pub use self::unpooled::UnpooledTotals;
use super::budget::{Budget, Terms};
use super::clock::{Clock, Nanos};
use super::exemplar::Exemplars;
use super::histogram::{Histogram, SharedHistogram};
use super::log::{Limiters, Log};
use super::names::{IDS, Names};
use super::operations::{OPERATION_IDS, OperationId, Operations};
use super::queries::QueryId;
use super::requests::Requests;
use super::server::ServerAccount;
use super::trace;
use crate::labels::{Outcome, Phase};

/// What a pool may hold, as its settings say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// How many connections may be idle.
    pub pool_size: usize,
    /// How many more there may be at once.
    pub max_overflow: usize,
    /// The mean wait that the recommended size aims at.
    pub wait_target: Duration,
    /// How long a connection is held and silent before it is a suspected leak; `None` for never.
    pub leak_threshold: Option<Duration>,
    /// How many retries a second there may always be.
    pub retry_floor: usize,
    /// How many retries there may be for each hundred operations.
    pub retry_percent: usize,
}

impl Limits {
    /// For a snapshot of no pool yet.
    const NONE: Self = Self {
        pool_size: 0,
        max_overflow: 0,
        wait_target: Duration::ZERO,
        leak_threshold: None,
        retry_floor: 0,
        retry_percent: 0,
    };

    /// Some, for who has to do with nothing but a ledger.
    #[cfg(test)]
    pub(crate) const fn of_one() -> Self {
        let (pool_size, max_overflow, wait_target) = (1, 0, Duration::from_millis(1));
        Self { pool_size, max_overflow, wait_target, leak_threshold: None, retry_floor: 0, retry_percent: 0 }
    }

    /// How many connections there may be at once.
    #[must_use]
    pub fn max(&self) -> usize {
        self.pool_size.saturating_add(self.max_overflow)
    }
}

/// The longest summary of a query, in bytes.
pub(crate) const MAX_SUMMARY_BYTES: usize = 255;

/// Made for each outcome when it first comes: most operations know two.
type Durations = [OnceLock<Box<SharedHistogram>>; Outcome::COUNT];

/// What keeps a pool's connect backoff.
pub(crate) trait BackoffSource: std::fmt::Debug + Send + Sync {
    /// Returns for how long connecting has been suspended, if it is.
    fn suspended_for(&self) -> Option<Duration>;
}

/// The accounts of one pool.
#[derive(Debug)]
pub(crate) struct Ledger {
    name: Arc<str>,
    limits: Limits,
    clock: Clock,
    operations: Operations,
    /// Summaries of queries.
    queries: Names,
    /// Named operations' durations by outcome, made when the first one ends.
    durations: Box<[OnceLock<Box<Durations>>]>,
    /// Of uses; the connections keep none, as most have none.
    use_exemplars: Exemplars,
    /// Of queries that succeeded, by what they are; of those that failed the books keep them.
    query_exemplars: Box<[Exemplars]>,
    /// What requests cost, made when the first layer serves some.
    requests: OnceLock<Box<Requests>>,
    /// What the server says of itself, if it is asked.
    server: ServerAccount,
    /// The pool's connect backoff.
    backoff: OnceLock<Weak<dyn BackoffSource>>,
    hints: Hints,
    busy: Busy,
    budget: Budget,
    limiters: Limiters,
}

/// What is written while a pool is under load. Aligned so that it shares no cache line, nor a pair of lines, with what
/// every checkout reads, such as the clock.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Busy {
    books: Mutex<LedgerState>,
}

/// What every checkout and every return reads of the books without their lock. Written under that lock, and only when it
/// changes: under load that is hardly ever, so that all threads have it in their caches.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Hints {
    /// How many seats the books list.
    live: AtomicUsize,
    /// Whether checkouts queue.
    queued: AtomicBool,
}

impl Hints {
    fn update(&self, books: &LedgerState) {
        let (live, queued) = (books.seats.len(), books.queued > 0);
        if self.live.load(Relaxed) != live {
            self.live.store(live, Relaxed);
        }
        if self.queued.load(Relaxed) != queued {
            self.queued.store(queued, Relaxed);
        }
    }
}

impl Ledger {
    pub(crate) fn new(name: Arc<str>, limits: Limits, clock: Clock) -> Self {
        Self {
            name,
            limits,
            clock,
            operations: Operations::new(),
            queries: Names::new(MAX_SUMMARY_BYTES),
            durations: (0..OPERATION_IDS).map(|_| OnceLock::new()).collect(),
            use_exemplars: Exemplars::default(),
            query_exemplars: (0..IDS).map(|_| Exemplars::default()).collect(),
            requests: OnceLock::new(),
            server: ServerAccount::default(),
            backoff: OnceLock::new(),
            hints: Hints::default(),
            busy: Busy::default(),
            budget: Budget::new(Terms { floor: limits.retry_floor, percent: limits.retry_percent }),
            limiters: Limiters::default(),
        }
    }

    /// The pool's name, as in the `db_client_connection_pool_name` label.
    #[must_use]
    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// What the pool may hold.
    #[must_use]
    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Returns the pool's log.
    pub(crate) fn log(&self) -> Log<'_> {
        Log::new(&self.name, &self.limiters, &self.clock)
    }

    /// What retries are paid from.
    pub(crate) fn budget(&self) -> &Budget {
        &self.budget
    }

    /// The summary of a query; `None` if it is one of the many that are not told apart.
    pub(crate) fn summary(&self, query: QueryId) -> Option<&str> {
        (query != QueryId::OTHER).then(|| self.queries.name(query.as_u16()))
    }

    pub(crate) fn operations(&self) -> &Operations {
        &self.operations
    }

    /// What requests cost, by the route that serves them.
    pub(crate) fn requests(&self) -> &Requests {
        self.requests.get_or_init(|| Box::new(Requests::new()))
    }

    /// What the server says of itself.
    pub(crate) fn server(&self) -> &ServerAccount {
        &self.server
    }

    /// Sets the source of [`PoolSnapshot::connecting_suspended`]. A second call has no effect.
    pub(crate) fn set_backoff_source(&self, source: Weak<dyn BackoffSource>) {
        let _ = self.backoff.set(source);
    }

    /// Returns for how long connecting has been suspended, or zero.
    fn connecting_suspended(&self) -> Duration {
        let source = self.backoff.get().and_then(Weak::upgrade);
        source.and_then(|source| source.suspended_for()).unwrap_or_default()
    }

    /// How many connections are live, at some moment not long ago.
    #[inline]
    pub(crate) fn live_hint(&self) -> usize {
        self.hints.live.load(Relaxed)
    }

    /// Whether checkouts queue, at some moment not long ago.
    #[inline]
    pub(crate) fn queue_hint(&self) -> bool {
        self.hints.queued.load(Relaxed)
    }

    /// Whether nothing is left: no connection lives and no checkout is in flight.
    pub(crate) fn is_drained(&self) -> bool {
        let books = self.books();
        books.seats.is_empty() && books.in_flight.is_empty()
    }

    /// What a checkout in flight waits for, and what its own task held when it began to.
    pub(crate) fn wait_of(&self, ticket: Ticket) -> (Phase, Option<OwnHold>) {
        let now = self.clock.now();
        let mut books = self.books();
        (books.phase_of(ticket), books.own_hold(ticket, self, now))
    }

    /// Whether more connections are idle than `pool_size` and those in the queue account for.
    pub(crate) fn has_surplus(&self) -> bool {
        let books = self.books();
        Connections::of(books.standings()).idle > books.idle_places(self.limits.pool_size)
    }

    /// How many wait for capacity, and for how long one more would. Costs one look where nobody waits.
    #[cfg(feature = "middleware")]
    pub(crate) fn backlog(&self) -> Backlog {
        if self.queue_hint() { self.books().backlog(&self.limits, self.clock.now()) } else { Backlog::default() }
    }

    /// How many connections there are, and how many are asked for.
    pub(crate) fn status(&self) -> Status {
        self.books().status(&self.limits)
    }

    /// What the pool holds and for whom. Costs no more the more wait: those who time out together all ask for it.
    pub(crate) fn usage(&self) -> PoolUsage {
        let now = self.clock.now();
        let (usage, changes) = {
            let mut books = self.books();
            (books.usage(self, now), books.review(self, now))
        };
        self.report(&changes);
        usage
    }

    /// Who holds a connection, oldest first.
    pub(crate) fn holders(&self) -> Vec<Holder> {
        let now = self.clock.now();
        let (holders, changes) = {
            let books = self.books();
            (books.holders(self, now), books.review(self, now))
        };
        self.report(&changes);
        holders
    }

    /// Who waits for one, oldest first.
    pub(crate) fn waiters(&self) -> Vec<Waiter> {
        let now = self.clock.now();
        self.books().waiters(self, now)
    }

    /// Everything this pool has counted, as of one moment.
    #[must_use]
    pub(crate) fn snapshot(&self) -> PoolSnapshot {
        let now = self.clock.now();
        let (snapshot, changes) = {
            let mut books = self.books();
            let changes = books.review(self, now);
            (books.snapshot(self, now), changes)
        };
        self.report(&changes);
        snapshot.with_what_others_keep(self)
    }

    /// Tells the log, and the spans of those concerned.
    fn report(&self, changes: &[Suspicion]) {
        for suspicion in changes {
            let Suspicion { suspected, operation, site, age, .. } = suspicion;
            let (operation, call_site) = (self.operations.name(*operation), self.operations.location(*site));
            if *suspected {
                self.log().leak_suspected(operation, call_site, *age);
            } else {
                self.log().suspect_used(operation, call_site, *age);
            }
            trace::leaking(self, suspicion);
        }
    }

    /// The same without those who hold and who wait, into memory that was used before.
    #[cfg(feature = "exporter")]
    pub(crate) fn read(&self, reading: &mut Reading) {
        let now = self.clock.now();
        let changes = {
            let mut books = self.books();
            let changes = books.review(self, now);
            books.read(self, now, reading);
            changes
        };
        self.report(&changes);
        // Not of the same moment, so not under the lock either.
        reading.read_what_others_keep(self);
    }

    fn books(&self) -> MutexGuard<'_, LedgerState> {
        // The books are consistent between any two lines that could panic, so a poisoned lock tells nothing.
        self.busy.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_durations(&self, operation: OperationId, histograms: &mut [Histogram; Outcome::COUNT]) {
        match self.durations[operation.index()].get() {
            Some(durations) => {
                for (duration, histogram) in durations.iter().zip(histograms) {
                    match duration.get() {
                        Some(duration) => duration.read_into(histogram),
                        None => histogram.clear(),
                    }
                }
            }
            None => histograms.iter_mut().for_each(Histogram::clear),
        }
    }
}
