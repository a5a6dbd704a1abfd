//! Lookups, loads and invalidations, over any store.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::codec::Codec;
use super::entry::{Entry, HEADER_BYTES};
use super::error::{InvalidateError, LoadError};
use super::flights::{Flight, Flights, Lead, Refresh, Shared};
use super::invalidations::Invalidations;
use super::log::CacheLog;
use super::settings::CacheSettings;
use super::store::{Store, StoreError};
use super::suspension::Suspension;
use crate::labels::{CacheError, CacheResult, Direction, ErrorCode, Outcome};
use crate::telemetry::caches::CacheStats;

/// The bounds of the time between two looks for the value that another process is loading.
const LOCK_POLL: [Duration; 2] = [Duration::from_millis(10), Duration::from_millis(30)];

/// The time of day in milliseconds since 1970.
pub(super) type WallClock = Box<dyn Fn() -> u64 + Send + Sync>;

/// A cache of values `V`, encoded by `C` in `S`.
pub(super) struct Core<V, C, S> {
    pub(super) name: Arc<str>,
    store: S,
    codec: C,
    pub(super) settings: CacheSettings,
    /// The beginning of each key in the store.
    prefix: String,
    stats: Arc<CacheStats>,
    now: WallClock,
    flights: Arc<Flights<V>>,
    loads: Semaphore,
    suspension: Suspension,
    invalidations: Invalidations,
    log: CacheLog,
}

/// What the store has for a key.
enum Read<V> {
    Found(Found<V>),
    Missing,
    /// The store was not called, or did not answer.
    Unavailable,
}

struct Found<V> {
    value: Option<V>,
    is_fresh: bool,
    load_time: Duration,
}

impl<V> Found<V> {
    fn result(&self) -> CacheResult {
        match (&self.value, self.is_fresh) {
            (None, _) => CacheResult::Negative,
            (Some(_), true) => CacheResult::Hit,
            (Some(_), false) => CacheResult::Stale,
        }
    }
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

    /// Reads the store.
    async fn read(&self, key: &str) -> Read<V> {
        if !self.suspension.permits_call() {
            return Read::Unavailable;
        }
        let bytes = match self.within_deadline(self.store.get(key)).await {
            Ok(bytes) => bytes,
            Err(error) => {
                self.count(error);
                if self.suspension.failed() {
                    self.log.suspended(error);
                } else {
                    self.log.failed(error);
                }
                return Read::Unavailable;
            }
        };
        if self.suspension.succeeded() {
            self.log.resumed();
        }
        match bytes {
            Some(bytes) => self.decode(key, &bytes).map_or(Read::Missing, Read::Found),
            None => Read::Missing,
        }
    }

    /// Decodes a stored value; `None` if it must not be used.
    fn decode(&self, key: &str, bytes: &[u8]) -> Option<Found<V>> {
        let Some((entry, value)) = Entry::read(bytes) else {
            self.failed(CacheError::Decode);
            return None;
        };
        let now = (self.now)();
        if now >= entry.stale_until || self.invalidations.cover(key, entry.load_began) {
            return None;
        }
        self.stats.transferred(Direction::Received, bytes.len());
        let value = match entry.codec {
            None => Ok(None),
            Some(codec) if codec != C::ID => Err(CacheError::Decode),
            // It was stored with another setting.
            Some(_) if value.len() > self.settings.max_value_bytes => Err(CacheError::TooLarge),
            Some(_) => self.codec.decode(value).map(Some).map_err(|_| CacheError::Decode),
        };
        let value = value.map_err(|error| self.failed(error)).ok()?;
        let load_time = Duration::from_micros(entry.load_micros.into());
        Some(Found { value, is_fresh: now < entry.fresh_until, load_time })
    }

    /// Stores a loaded value, unless its key has been invalidated since the load began.
    async fn store(&self, flight: &Flight<V>, key: &str, loaded: &Loaded<V>) {
        let Some(bytes) = self.encode(loaded) else { return };
        let Some(_permit) = flight.may_store().await else { return };
        let now = (self.now)();
        let Some((entry, _)) = Entry::read(&bytes) else { return };
        let time_to_live = Duration::from_millis(entry.stale_until.saturating_sub(now));
        if time_to_live.is_zero() {
            return;
        }
        match self.within_deadline(self.store.set(key, &bytes, time_to_live)).await {
            Ok(()) => self.stats.transferred(Direction::Sent, bytes.len()),
            Err(error) => {
                self.count(error);
                self.log.failed(error);
            }
        }
    }

    /// Encodes a loaded value with its header; `None` if it is not to be stored.
    fn encode(&self, loaded: &Loaded<V>) -> Option<Vec<u8>> {
        let settings = &self.settings;
        let (fresh, stale) = match loaded.value {
            Some(_) => (settings.time_to_live, settings.stale_window),
            None => (settings.negative_time_to_live, Duration::ZERO),
        };
        if fresh.is_zero() {
            return None;
        }
        // Only shorter, so that no value becomes older than the setting.
        let jittered = fresh.mul_f64(1.0 - settings.jitter * fastrand::f64());
        let entry = Entry {
            codec: loaded.value.is_some().then_some(C::ID),
            load_began: loaded.began,
            load_micros: u32::try_from(loaded.took.as_micros()).unwrap_or(u32::MAX),
            fresh_until: loaded.ended.saturating_add(millis(jittered)),
            stale_until: loaded.ended.saturating_add(millis(jittered + stale)),
        };
        let mut bytes = Vec::new();
        entry.write(&mut bytes);
        if let Some(value) = &loaded.value
            && self.codec.encode(value, &mut bytes).is_err()
        {
            self.failed(CacheError::Encode);
            return None;
        }
        if bytes.len() - HEADER_BYTES > settings.max_value_bytes {
            self.failed(CacheError::TooLarge);
            return None;
        }
        Some(bytes)
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

    /// Takes the lock of a key, or waits for the value that another process loads. Without either within the time for which a
    /// lock is held, this process loads as well.
    async fn lock_or_await_value(&self, key: &str, time: Duration) -> Locked<V> {
        let until = Instant::now() + time;
        loop {
            match self.try_lock(key, time).await {
                Ok(Some(lock)) => return Locked::Here(Some(lock)),
                Err(_) => return Locked::Here(None),
                Ok(None) if Instant::now() >= until => return Locked::Here(None),
                Ok(None) => {}
            }
            let [min, max] = LOCK_POLL;
            sleep(min + (max - min).mul_f64(fastrand::f64())).await;
            match self.read(key).await {
                Read::Found(found) => return Locked::Found(found),
                Read::Missing => {}
                Read::Unavailable => return Locked::Here(None),
            }
        }
    }

    /// Takes the lock of a key; `None` if another process has it.
    async fn try_lock(&self, key: &str, time: Duration) -> Result<Option<HeldLock>, StoreError> {
        let lock = HeldLock { key: format!("{key}:lock"), token: format!("{:032x}", fastrand::u128(..)) };
        match self.within_deadline(self.store.lock(&lock.key, &lock.token, time)).await {
            Ok(is_taken) => Ok(is_taken.then_some(lock)),
            Err(error) => {
                self.count(error);
                self.log.failed(error);
                Err(error)
            }
        }
    }

    async fn unlock(&self, lock: Option<HeldLock>) {
        let Some(lock) = lock else { return };
        if let Err(error) = self.within_deadline(self.store.unlock(&lock.key, &lock.token)).await {
            self.count(error);
        }
    }

    async fn within_deadline<T>(&self, call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        timeout(self.settings.deadline, call).await.unwrap_or(Err(StoreError::TIMEOUT))
    }

    /// Counts and logs an error that is not the store's.
    fn failed(&self, kind: CacheError) {
        let error = StoreError { kind, code: ErrorCode::NONE };
        self.count(error);
        self.log.failed(error);
    }

    fn count(&self, error: StoreError) {
        self.stats.error(error.kind);
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

/// A lookup, whose answer is recorded once.
struct Lookup<'a> {
    stats: &'a CacheStats,
    is_answered: bool,
}

impl<'a> Lookup<'a> {
    fn begin(stats: &'a CacheStats) -> Self {
        stats.begin();
        Self { stats, is_answered: false }
    }

    fn answer(&mut self, result: CacheResult) {
        if !std::mem::replace(&mut self.is_answered, true) {
            self.stats.answer(result);
        }
    }
}

impl Drop for Lookup<'_> {
    fn drop(&mut self) {
        self.answer(CacheResult::Cancelled);
    }
}

/// A load, which is recorded when it is dropped.
struct RecordedLoad<'a> {
    stats: &'a CacheStats,
    began: Instant,
    /// Cancelled until it is known how the load ended.
    outcome: Outcome,
}

impl<'a> RecordedLoad<'a> {
    fn begin(stats: &'a CacheStats) -> Self {
        stats.begin_load();
        Self { stats, began: Instant::now(), outcome: Outcome::Cancelled }
    }
}

impl Drop for RecordedLoad<'_> {
    fn drop(&mut self) {
        let outcome = if std::thread::panicking() { Outcome::Error } else { self.outcome };
        self.stats.end_load(outcome, self.began.elapsed());
    }
}

/// A value that was loaded, or that there is none.
struct Loaded<V> {
    value: Option<V>,
    /// By the wall clock, in milliseconds.
    began: u64,
    ended: u64,
    took: Duration,
}

/// A lock that this process holds.
struct HeldLock {
    key: String,
    token: String,
}

/// Who loads.
enum Locked<V> {
    /// This process, with a lock unless the store failed or the lock of another process lasts too long.
    Here(Option<HeldLock>),
    /// Another process has loaded the value.
    Found(Found<V>),
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
