//! Lookups, loads and invalidations, over any store.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout, timeout_at};

use super::codec::Codec;
use super::error::{InvalidateError, LoadError};
use super::flights::{Flights, Lead, Refresh, Shared};
use super::invalidations::Invalidations;
use super::log::CacheLog;
use super::recorded::{Lookup, RecordedLoad};
use super::settings::CacheSettings;
use super::storage::{Found, Loaded, Locked, Read};
use super::store::Store;
use super::suspension::Suspension;
use crate::labels::{CacheResult, Outcome};
use crate::telemetry::caches::CacheStats;

/// The time of day in milliseconds since 1970.
pub(super) type WallClock = Box<dyn Fn() -> u64 + Send + Sync>;

/// A cache of values `V`, encoded by `C` in `S`.
pub(super) struct Core<V, C, S> {
    pub(super) name: Arc<str>,
    pub(super) store: S,
    pub(super) codec: C,
    pub(super) settings: CacheSettings,
    /// The beginning of each key in the store.
    prefix: String,
    /// The beginning of each lock's key.
    lock_prefix: String,
    pub(super) stats: Arc<CacheStats>,
    pub(super) now: WallClock,
    flights: Arc<Flights<V>>,
    loads: Semaphore,
    pub(super) suspension: Suspension,
    pub(super) invalidations: Invalidations,
    pub(super) log: CacheLog,
}

/// The result of a lookup.
pub(super) enum Looked<V, F> {
    Done(Option<V>),
    /// A stale value, which this caller is to refresh with its loader.
    Stale {
        value: Option<V>,
        refresh: Refresh<V>,
        load: F,
    },
}

impl<V, C, S> Core<V, C, S>
where
    V: Serialize + DeserializeOwned + Clone + Send + Sync + 'static,
    C: Codec,
    S: Store,
{
    pub(super) fn new(
        name: Arc<str>,
        store: S,
        codec: C,
        settings: CacheSettings,
        stats: Arc<CacheStats>,
        now: WallClock,
    ) -> Self {
        stats.add_max_loads(settings.max_loads);
        Self {
            store,
            codec,
            prefix: settings.prefix(&name),
            lock_prefix: settings.lock_prefix(&name),
            stats,
            now,
            flights: Arc::new(Flights::new()),
            loads: Semaphore::new(settings.max_loads),
            suspension: Suspension::new(),
            invalidations: Invalidations::new(millis(settings.longest_stay())),
            log: CacheLog::new(Arc::clone(&name)),
            name,
            settings,
        }
    }

    /// Returns the key in the store.
    pub(super) fn store_key(&self, key: &str) -> String {
        [&self.prefix, key].concat()
    }

    /// Returns the key of the lock of a value.
    pub(super) fn lock_key(&self, store_key: &str) -> String {
        [&self.lock_prefix, store_key.strip_prefix(&self.prefix).unwrap_or(store_key)].concat()
    }

    /// Looks up a key, and loads its value if there is none.
    pub(super) async fn look_up<E, F, L>(&self, key: &str, load: F) -> Result<Looked<V, F>, LoadError<E>>
    where
        E: Send + Sync + 'static,
        F: FnOnce() -> L,
        L: Future<Output = Result<Option<V>, E>>,
    {
        let mut lookup = Lookup::begin(&self.stats);
        loop {
            let participant = self.flights.join(key);
            let lead = match participant.turn().await {
                Ok(lead) => lead,
                Err(shared) => match shared.and_then(|shared| self.share(shared, &mut lookup)) {
                    Some(result) => return result.map(Looked::Done),
                    // The leader failed with an error of another type than this caller's.
                    None => continue,
                },
            };
            let read = self.read(key).await;
            let is_available = !matches!(read, Read::Unavailable);
            return match read {
                Read::Found(found) => Ok(self.found(found, lead, key, &mut lookup, load)),
                _ => self.load_for_all(lead, key, is_available, &mut lookup, load).await.map(Looked::Done),
            };
        }
    }

    /// Returns the result that a leader shares; `None` if it is an error of another type.
    fn share<E: Send + Sync + 'static>(
        &self,
        shared: &Shared<V>,
        lookup: &mut Lookup<'_>,
    ) -> Option<Result<Option<V>, LoadError<E>>> {
        let (result, time) = match shared {
            Shared::Stored { result, load_time, .. } => (*result, *load_time),
            Shared::Loaded { took, .. } => (CacheResult::Coalesced, *took),
            Shared::Failed(_) | Shared::TooManyLoads { .. } => (CacheResult::Coalesced, Duration::ZERO),
        };
        let shared = match shared {
            Shared::Stored { value, .. } | Shared::Loaded { value, .. } => Ok(value.clone()),
            Shared::Failed(error) => Err(LoadError::Loader(Arc::clone(error).downcast().ok()?)),
            Shared::TooManyLoads { waited } => Err(self.too_many_loads(*waited)),
        };
        lookup.answer(result);
        self.stats.save(time);
        Some(shared)
    }

    /// Ends the lookup of a key whose value was found.
    fn found<F>(
        &self,
        found: Found<V>,
        lead: Lead<'_, '_, V>,
        key: &str,
        lookup: &mut Lookup<'_>,
        load: F,
    ) -> Looked<V, F> {
        let (result, load_time) = (found.result(), found.load_time);
        lookup.answer(result);
        self.stats.save(load_time);
        lead.complete(|| Shared::Stored { value: found.value.clone(), result, load_time });
        let refresh = if found.is_fresh { None } else { self.flights.begin_refresh(key) };
        match refresh {
            Some(refresh) => Looked::Stale { value: found.value, refresh, load },
            None => Looked::Done(found.value),
        }
    }

    /// Loads the value for all callers that need it.
    async fn load_for_all<E, F, L>(
        &self,
        lead: Lead<'_, '_, V>,
        key: &str,
        is_available: bool,
        lookup: &mut Lookup<'_>,
        load: F,
    ) -> Result<Option<V>, LoadError<E>>
    where
        E: Send + Sync + 'static,
        F: FnOnce() -> L,
        L: Future<Output = Result<Option<V>, E>>,
    {
        let mut lock = None;
        if is_available && let Some(time) = self.settings.lock {
            match self.lock_or_await_value(key, time).await {
                Locked::Here(taken) => lock = taken,
                Locked::Found(found) => {
                    lookup.answer(CacheResult::Coalesced);
                    self.stats.save(found.load_time);
                    lead.complete(|| Shared::Loaded { value: found.value.clone(), took: found.load_time });
                    return Ok(found.value);
                }
            }
        }
        lookup.answer(if is_available { CacheResult::Miss } else { CacheResult::Bypassed });
        let mut recorded = RecordedLoad::begin(&self.stats);
        let Ok(Ok(permit)) = timeout(self.settings.load_wait, self.loads.acquire()).await else {
            recorded.outcome = Outcome::Shed;
            let waited = recorded.began.elapsed();
            drop(recorded);
            self.unlock(lock).await;
            lead.complete(|| Shared::TooManyLoads { waited });
            return Err(self.too_many_loads(waited));
        };
        match self.load(recorded, permit, load).await {
            Ok(loaded) => {
                lead.publish(Shared::Loaded { value: loaded.value.clone(), took: loaded.took });
                if is_available {
                    self.store(lead.flight(), key, &loaded).await;
                }
                self.unlock(lock).await;
                Ok(loaded.value)
            }
            Err(error) => {
                self.unlock(lock).await;
                let error = Arc::new(error);
                lead.complete(|| Shared::Failed(Arc::clone(&error) as Arc<dyn Any + Send + Sync>));
                Err(LoadError::Loader(error))
            }
        }
    }

    /// Refreshes a stale value, unless too many loads are running or another process refreshes it. Returns the loaded value.
    pub(super) async fn refresh<E, F, L>(&self, refresh: Refresh<V>, load: F) -> Option<Option<V>>
    where
        F: FnOnce() -> L,
        L: Future<Output = Result<Option<V>, E>>,
    {
        let key = refresh.key();
        let mut lock = None;
        if let Some(time) = self.settings.lock {
            match self.try_lock(key, time).await {
                Ok(Some(taken)) => lock = Some(taken),
                Ok(None) => return None,
                Err(_) => {}
            }
        }
        let mut recorded = RecordedLoad::begin(&self.stats);
        let Ok(permit) = self.loads.try_acquire() else {
            recorded.outcome = Outcome::Shed;
            drop(recorded);
            self.unlock(lock).await;
            return None;
        };
        let loaded = self.load(recorded, permit, load).await;
        if let Ok(loaded) = &loaded {
            self.store(refresh.flight(), key, loaded).await;
        } else {
            self.log.refresh_failed();
        }
        self.unlock(lock).await;
        loaded.ok().map(|loaded| loaded.value)
    }

    /// Calls the loader, and records how it ends.
    async fn load<E, F, L>(
        &self,
        mut recorded: RecordedLoad<'_>,
        permit: SemaphorePermit<'_>,
        load: F,
    ) -> Result<Loaded<V>, E>
    where
        F: FnOnce() -> L,
        L: Future<Output = Result<Option<V>, E>>,
    {
        // Without the wait for the permit.
        recorded.began = Instant::now();
        let began = (self.now)();
        let value = load().await;
        let took = recorded.began.elapsed();
        recorded.outcome = if value.is_ok() { Outcome::Ok } else { Outcome::Error };
        drop((recorded, permit));
        Ok(Loaded { value: value?, began, ended: (self.now)(), took })
    }

    /// Removes the value of a key, and prevents that one is stored which is being loaded.
    pub(super) async fn invalidate(&self, key: &str) -> Result<(), InvalidateError> {
        // Before the first await.
        self.invalidations.record(key, (self.now)());
        let detached = self.flights.detach(key);
        let deadline = Instant::now() + self.settings.deadline;
        for flight in detached.iter().flatten() {
            // Otherwise the value could be stored after it was removed.
            let _ = timeout_at(deadline, flight.stored()).await;
        }
        self.within_deadline(self.store.delete(key)).await.map_err(|error| {
            self.count(error);
            self.log.failed(error);
            InvalidateError::new(&self.name, error)
        })
    }

    fn too_many_loads<E>(&self, waited: Duration) -> LoadError<E> {
        LoadError::TooManyLoads { cache: Arc::clone(&self.name), max: self.settings.max_loads, waited }
    }
}

#[cfg(test)]
impl<V, C, S> Core<V, C, S> {
    pub(super) fn stats(&self) -> &CacheStats {
        &self.stats
    }

    pub(super) fn is_idle(&self) -> bool {
        self.flights.is_empty() && self.loads.available_permits() == self.settings.max_loads
    }
}

impl<V, C, S> Drop for Core<V, C, S> {
    fn drop(&mut self) {
        self.stats.subtract_max_loads(self.settings.max_loads);
    }
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
