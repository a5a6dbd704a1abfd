//! Entries and totals that threads change without disturbing each other, and that a reader sees at one moment.
//!
//! Each thread changes them under the lock of its own *shard*, which no other thread takes except a reader: a reader takes
//! the locks of all shards, so it never sees a change that has half happened. An entry may be changed under any shard's
//! lock, by the one that has its key. A key that a thread has freed is used again by that thread, and `spare` balances
//! threads that only take keys with others that only free them.

use std::array;
use std::sync::{Arc, PoisonError};

use crate::sync::{Mutex, MutexGuard};

/// The maximum number of shards.
pub(crate) const MAX_SHARDS: usize = 32;

/// The number of entries that are allocated together.
pub(crate) const CHUNK: usize = 64;

/// How many keys a shard exchanges with `spare` at a time.
const BATCH: usize = CHUNK / 2;

type Chunk<E> = Arc<[E; CHUNK]>;

/// Entries of the type `E`, and totals of the type `T` in each shard.
#[derive(Debug)]
pub(crate) struct Sharded<E, T> {
    shards: Box<[Shard<E, T>]>,
    /// Taken last: after the locks of shards.
    store: Mutex<Store<E>>,
}

/// Aligned so that a shard shares neither a cache line nor a pair of lines with another.
#[derive(Debug)]
#[repr(align(128))]
struct Shard<E, T>(Mutex<ShardState<E, T>>);

#[derive(Debug)]
struct ShardState<E, T> {
    /// The keys of vacant entries that this shard uses next.
    vacant: Vec<usize>,
    /// The first chunks of the store.
    chunks: Vec<Chunk<E>>,
    totals: T,
}

#[derive(Debug)]
struct Store<E> {
    chunks: Vec<Chunk<E>>,
    /// The keys of vacant entries that no shard has.
    spare: Vec<usize>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic cannot leave the state inconsistent, so a poisoned lock is usable.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Completes the first chunks of the store.
fn add_missing<E>(first: &mut Vec<Chunk<E>>, all: &[Chunk<E>]) {
    first.extend(all.iter().skip(first.len()).cloned());
}

impl<E: Default, T: Default> Sharded<E, T> {
    /// Creates at least this many shards: a power of two, and at most [`MAX_SHARDS`].
    pub(crate) fn new(shards: usize) -> Self {
        let shard = || ShardState { vacant: Vec::new(), chunks: Vec::new(), totals: T::default() };
        let shards = shards.min(MAX_SHARDS).next_power_of_two();
        let shards = (0..shards).map(|_| Shard(Mutex::new(shard()))).collect();
        Self { shards, store: Mutex::new(Store { chunks: Vec::new(), spare: Vec::new() }) }
    }

    /// Locks the shard of the thread with this number.
    #[inline]
    pub(crate) fn local(&self, thread: usize) -> LocalShard<'_, E, T> {
        let shard = &self.shards[thread & (self.shards.len() - 1)];
        LocalShard { store: &self.store, state: lock(&shard.0) }
    }

    /// Locks all shards, always in the same order.
    pub(crate) fn all(&self) -> AllShards<'_, E, T> {
        let states = array::from_fn(|index| self.shards.get(index).map(|shard| lock(&shard.0)));
        AllShards { states, store: &self.store }
    }
}

/// The shard of a thread, locked.
pub(crate) struct LocalShard<'a, E, T> {
    store: &'a Mutex<Store<E>>,
    state: MutexGuard<'a, ShardState<E, T>>,
}

impl<E: Default, T> LocalShard<'_, E, T> {
    /// Returns the key of a vacant entry, which belongs to the caller until it is freed.
    #[inline]
    pub(crate) fn take_key(&mut self) -> usize {
        match self.state.vacant.pop() {
            Some(key) => key,
            None => self.refill(),
        }
    }

    /// Frees a key whose entry is vacant.
    #[inline]
    pub(crate) fn free_key(&mut self, key: usize) {
        if self.state.vacant.len() >= 2 * BATCH {
            self.spill();
        }
        self.state.vacant.push(key);
    }

    /// Other threads take more keys than they free.
    #[cold]
    fn spill(&mut self) {
        let kept = self.state.vacant.len() - BATCH;
        lock(self.store).spare.extend(self.state.vacant.drain(kept..));
    }

    /// Returns the entry with a key, unless its memory was freed, and the totals of the shard.
    #[inline]
    pub(crate) fn entry(&mut self, key: usize) -> Option<(&E, &mut T)> {
        if key / CHUNK >= self.state.chunks.len() {
            self.fetch_chunks();
        }
        let ShardState { chunks, totals, .. } = &mut *self.state;
        Some((&chunks.get(key / CHUNK)?[key % CHUNK], totals))
    }

    /// Another shard has allocated the entry.
    #[cold]
    fn fetch_chunks(&mut self) {
        add_missing(&mut self.state.chunks, &lock(self.store).chunks);
    }

    #[cold]
    fn refill(&mut self) -> usize {
        let mut store = lock(self.store);
        if store.spare.is_empty() {
            let first = store.chunks.len() * CHUNK;
            store.chunks.push(Arc::new(array::from_fn(|_| E::default())));
            // The lowest ones are used first.
            store.spare.extend((first..first + CHUNK).rev());
        }
        let left = store.spare.len().saturating_sub(BATCH);
        // Never more, so that freeing a key does not allocate here later, unless the thread only frees keys.
        self.state.vacant.reserve_exact(2 * BATCH);
        self.state.vacant.extend(store.spare.drain(left..));
        add_missing(&mut self.state.chunks, &store.chunks);
        drop(store);
        self.state.vacant.pop().unwrap_or_default()
    }
}

/// All shards, locked.
pub(crate) struct AllShards<'a, E, T> {
    states: [Option<MutexGuard<'a, ShardState<E, T>>>; MAX_SHARDS],
    store: &'a Mutex<Store<E>>,
}

impl<E, T> AllShards<'_, E, T> {
    /// Returns the totals of each shard.
    pub(crate) fn totals(&mut self) -> impl Iterator<Item = &mut T> {
        self.states.iter_mut().flatten().map(|state| &mut state.totals)
    }

    /// Makes `entries` all that were ever in use.
    pub(crate) fn read_entries(&self, entries: &mut Entries<E>) {
        add_missing(&mut entries.0, &lock(self.store).chunks);
    }

    /// Returns how many vacant entries the shards keep for themselves, at most.
    pub(crate) fn max_kept(&self) -> usize {
        self.states.iter().flatten().count() * 2 * BATCH
    }

    /// Frees the memory of all entries if there are more than `max`. Called when all are vacant.
    pub(crate) fn free_beyond(&mut self, max: usize, entries: &mut Entries<E>) {
        if entries.len() <= max {
            return;
        }
        for state in self.states.iter_mut().flatten() {
            (state.vacant, state.chunks) = (Vec::new(), Vec::new());
        }
        let mut store = lock(self.store);
        (store.chunks, store.spare) = (Vec::new(), Vec::new());
        drop(store);
        entries.0 = Vec::new();
    }
}

/// The entries of all shards, for a reader.
#[derive(Debug)]
pub(crate) struct Entries<E>(Vec<Chunk<E>>);

impl<E> Default for Entries<E> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<E> Entries<E> {
    /// Returns the number of entries, vacant or not.
    pub(crate) fn len(&self) -> usize {
        self.0.len() * CHUNK
    }

    pub(crate) fn get(&self, key: usize) -> Option<&E> {
        Some(&self.0.get(key / CHUNK)?[key % CHUNK])
    }

    /// Returns each key and its entry.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, &E)> {
        self.0.iter().flat_map(|chunk| chunk.iter()).enumerate()
    }
}
