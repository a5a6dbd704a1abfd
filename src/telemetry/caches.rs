//! What caches in front of a pool have recorded, by the name of the cache.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use super::clock::nanos;
use super::histogram::{Histogram, SharedHistogram};
use super::operations::MAX_NAME_BYTES;
use crate::labels::{CacheError, CacheResult, Direction, Outcome};
use crate::text::printable;

/// The maximum number of names of caches in front of one pool; further caches are counted as `other`.
pub const MAX_CACHES: usize = 50;

/// What the caches of one name in front of a pool have recorded.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CacheTotals {
    /// The cache's name.
    pub name: Arc<str>,
    /// Lookups begun: the sum of `results` and `in_flight`.
    pub started: u64,
    /// Lookups by what the cache answered, in the order of [`CacheResult::ALL`].
    pub results: [u64; CacheResult::COUNT],
    /// Lookups that the cache has not answered.
    pub in_flight: u64,
    /// Durations of loads, by [`Outcome::ALL`].
    pub loads: [Histogram; Outcome::COUNT],
    /// Loads that have not ended.
    pub loads_in_flight: u64,
    /// The maximum number of concurrent loads, summed over the caches of this name.
    pub max_loads: u64,
    /// The time that the loads would have taken which the cache made unnecessary, in nanoseconds.
    pub saved_nanos: u64,
    /// Errors, by [`CacheError::ALL`].
    pub errors: [u64; CacheError::COUNT],
    /// Bytes of values, written to the cache and read from it, by [`Direction::ALL`].
    pub bytes: [u64; Direction::COUNT],
}

impl CacheTotals {
    fn blank(name: Arc<str>) -> Self {
        Self {
            name,
            started: 0,
            results: [0; CacheResult::COUNT],
            in_flight: 0,
            loads: Default::default(),
            loads_in_flight: 0,
            max_loads: 0,
            saved_nanos: 0,
            errors: [0; CacheError::COUNT],
            bytes: [0; Direction::COUNT],
        }
    }
}

/// The counters of the caches of one name.
#[derive(Debug)]
pub(crate) struct CacheStats {
    name: Arc<str>,
    started: AtomicU64,
    results: [AtomicU64; CacheResult::COUNT],
    loads_started: AtomicU64,
    /// By outcome, allocated at the first load with that outcome.
    loads: [OnceLock<Box<SharedHistogram>>; Outcome::COUNT],
    max_loads: AtomicU64,
    saved_nanos: AtomicU64,
    errors: [AtomicU64; CacheError::COUNT],
    bytes: [AtomicU64; Direction::COUNT],
}

#[cfg_attr(not(feature = "redis"), allow(dead_code, reason = "only caches record"))]
impl CacheStats {
    pub(crate) fn new(name: Arc<str>) -> Self {
        Self {
            name,
            started: AtomicU64::new(0),
            results: Default::default(),
            loads_started: AtomicU64::new(0),
            loads: Default::default(),
            max_loads: AtomicU64::new(0),
            saved_nanos: AtomicU64::new(0),
            errors: Default::default(),
            bytes: Default::default(),
        }
    }

    /// Adds to the maximum number of concurrent loads, or with a negative number subtracts.
    pub(crate) fn add_max_loads(&self, loads: usize) {
        self.max_loads.fetch_add(loads as u64, Relaxed);
    }

    pub(crate) fn subtract_max_loads(&self, loads: usize) {
        self.max_loads.fetch_sub(loads as u64, Relaxed);
    }

    pub(crate) fn begin(&self) {
        self.started.fetch_add(1, Relaxed);
    }

    /// Records the answer to a lookup that has [begun](Self::begin).
    pub(crate) fn answer(&self, result: CacheResult) {
        // A reader that sees the answer must see the beginning too.
        self.results[result.index()].fetch_add(1, Release);
    }

    pub(crate) fn begin_load(&self) {
        self.loads_started.fetch_add(1, Relaxed);
    }

    /// Records the end of a load that has [begun](Self::begin_load).
    pub(crate) fn end_load(&self, outcome: Outcome, took: Duration) {
        let loads = self.loads[outcome.index()].get_or_init(Box::default);
        std::sync::atomic::fence(Release);
        loads.observe(nanos(took), None);
    }

    pub(crate) fn save(&self, time: Duration) {
        self.saved_nanos.fetch_add(nanos(time), Relaxed);
    }

    pub(crate) fn error(&self, error: CacheError) {
        self.errors[error.index()].fetch_add(1, Relaxed);
    }

    pub(crate) fn transferred(&self, direction: Direction, bytes: usize) {
        self.bytes[direction.index()].fetch_add(bytes as u64, Relaxed);
    }

    /// Returns the numbers as of now.
    #[cfg(test)]
    pub(crate) fn totals(&self) -> CacheTotals {
        let mut totals = CacheTotals::blank(Arc::clone(&self.name));
        self.read(&mut totals);
        totals
    }

    fn read(&self, totals: &mut CacheTotals) {
        let read = |counter: &AtomicU64| counter.load(Relaxed);
        // Ends are read before beginnings, so that never more have ended than begun.
        for (total, counter) in totals.results.iter_mut().zip(&self.results) {
            *total = counter.load(Acquire);
        }
        totals.started = read(&self.started);
        totals.in_flight = totals.started.saturating_sub(totals.results.iter().sum());
        for (total, loads) in totals.loads.iter_mut().zip(&self.loads) {
            match loads.get() {
                Some(loads) => loads.read_into(total),
                None => total.clear(),
            }
        }
        std::sync::atomic::fence(Acquire);
        let ended: u64 = totals.loads.iter().map(Histogram::count).sum();
        totals.loads_in_flight = read(&self.loads_started).saturating_sub(ended);
        totals.max_loads = read(&self.max_loads);
        totals.saved_nanos = read(&self.saved_nanos);
        totals.errors = std::array::from_fn(|error| read(&self.errors[error]));
        totals.bytes = std::array::from_fn(|direction| read(&self.bytes[direction]));
    }
}

/// The caches in front of one pool, by name. They stay when a cache is dropped, because a counter must never decrease.
#[derive(Debug, Default)]
pub(crate) struct Caches(Mutex<Vec<Arc<CacheStats>>>);

impl Caches {
    /// Returns the counters of this name, or those of `other` if there are too many names.
    #[cfg_attr(not(feature = "redis"), allow(dead_code, reason = "only caches record"))]
    pub(crate) fn named(&self, name: &str) -> Arc<CacheStats> {
        let mut name = &*printable(name);
        while name.len() > MAX_NAME_BYTES {
            let last = name.char_indices().next_back().map_or(0, |(at, _)| at);
            name = &name[..last];
        }
        let mut caches = self.lock();
        if caches.len() >= MAX_CACHES && caches.iter().all(|cache| *cache.name != *name) {
            name = "other";
        }
        if let Some(cache) = caches.iter().find(|cache| *cache.name == *name) {
            return Arc::clone(cache);
        }
        let cache = Arc::new(CacheStats::new(name.into()));
        caches.push(Arc::clone(&cache));
        cache
    }

    /// Reads the counters into the first elements of `totals`, adding elements as needed. Returns how many were read.
    pub(crate) fn read(&self, totals: &mut Vec<CacheTotals>) -> usize {
        let caches = self.lock();
        for (index, cache) in caches.iter().enumerate() {
            if index == totals.len() {
                totals.push(CacheTotals::blank(Arc::clone(&cache.name)));
            }
            if !Arc::ptr_eq(&totals[index].name, &cache.name) {
                totals[index].name = Arc::clone(&cache.name);
            }
            cache.read(&mut totals[index]);
        }
        caches.len()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<CacheStats>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_beyond_the_limit_are_counted_as_other() {
        let caches = Caches::default();
        let first = caches.named("products");
        assert!(Arc::ptr_eq(&first, &caches.named("products")));
        for index in 1..MAX_CACHES {
            assert_eq!(*caches.named(&format!("cache {index}")).name, *format!("cache {index}"));
        }
        assert!(["one too many", "another"].iter().all(|name| *caches.named(name).name == *"other"));
        assert!(Arc::ptr_eq(&first, &caches.named("products")));
        let mut totals = Vec::new();
        assert_eq!((caches.read(&mut totals), totals.len()), (MAX_CACHES + 1, MAX_CACHES + 1));
    }

    #[test]
    fn beginnings_are_answers_and_lookups_in_flight() {
        let stats = CacheStats::new("products".into());
        (0..5).for_each(|_| stats.begin());
        stats.answer(CacheResult::Hit);
        stats.answer(CacheResult::Miss);
        stats.begin_load();
        stats.begin_load();
        stats.end_load(Outcome::Ok, Duration::from_millis(3));
        let totals = stats.totals();
        assert_eq!((totals.started, totals.in_flight, totals.loads_in_flight), (5, 3, 1));
        assert_eq!(totals.loads[Outcome::Ok.index()].count(), 1);
    }

    #[test]
    fn names_are_printable_and_cut() {
        let caches = Caches::default();
        assert!(!caches.named("two\nlines").name.contains('\n'));
        assert!(caches.named(&"é".repeat(MAX_NAME_BYTES)).name.len() <= MAX_NAME_BYTES);
    }
}
