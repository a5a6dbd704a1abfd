//! The keys that this process has invalidated recently.
//!
//! A stored value whose load began before its key was invalidated is not used by this process. Removing it from the store does
//! not suffice: the command that stored it may be executed after the one that removes it, if its caller was dropped or timed
//! out meanwhile, and the command that removes it may fail.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::Ordering::{Acquire, Release};
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, PoisonError};

/// The maximum number of keys. If there are more, stored values that were loaded before the oldest of these invalidations are
/// not used, whatever their key is.
const MAX_KEYS: usize = 16_384;

/// When keys were invalidated, in milliseconds since 1970.
#[derive(Debug)]
pub(super) struct Invalidations {
    /// For how long a value can remain in the store, in milliseconds.
    keep: u64,
    max_keys: usize,
    /// The number of keys. Read without the lock, since most caches have none.
    count: AtomicUsize,
    /// Values whose load began by then are not used.
    floor: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    keys: HashMap<Arc<str>, u64>,
    /// Oldest first; a key that was invalidated again occurs several times.
    order: VecDeque<(u64, Arc<str>)>,
}

impl Invalidations {
    pub(super) fn new(keep: u64) -> Self {
        Self {
            keep,
            max_keys: MAX_KEYS,
            count: AtomicUsize::new(0),
            floor: AtomicU64::new(0),
            state: Mutex::new(State::default()),
        }
    }

    /// Records that a key is invalidated now.
    pub(super) fn record(&self, key: &str, now: u64) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { keys, order } = &mut *state;
        while let Some((at, key)) = order.front() {
            let is_over = at.saturating_add(self.keep) < now;
            if !is_over && order.len() < self.max_keys {
                break;
            }
            // A key that was invalidated again is remembered by its later entry.
            if keys.get(key) == Some(at) {
                if !is_over {
                    self.floor.fetch_max(*at, Release);
                }
                keys.remove(key);
            }
            order.pop_front();
        }
        let key: Arc<str> = key.into();
        keys.insert(Arc::clone(&key), now);
        order.push_back((now, key));
        self.count.store(keys.len(), Release);
    }

    /// Returns whether a value whose load began then must not be used.
    pub(super) fn cover(&self, key: &str, load_began: u64) -> bool {
        let floor = self.floor.load(Acquire);
        if floor != 0 && load_began <= floor {
            return true;
        }
        if self.count.load(Acquire) == 0 {
            return false;
        }
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.keys.get(key).is_some_and(|at| load_began <= *at)
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.count.load(Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_loaded_before_are_covered_until_they_expire() {
        let invalidations = Invalidations::new(100);
        assert!(!invalidations.cover("a", 10));
        invalidations.record("a", 10);
        assert!(invalidations.cover("a", 9) && invalidations.cover("a", 10));
        assert!(!invalidations.cover("a", 11) && !invalidations.cover("b", 9));
        invalidations.record("a", 50);
        invalidations.record("b", 111);
        assert!(invalidations.cover("a", 50), "invalidated again");
        invalidations.record("c", 151);
        assert_eq!(invalidations.len(), 2);
        assert!(!invalidations.cover("a", 50));
    }

    #[test]
    fn key_that_is_invalidated_often_covers_no_other() {
        let invalidations = Invalidations { max_keys: 3, ..Invalidations::new(1000) };
        for at in 10..20 {
            invalidations.record("hot", at);
        }
        assert!(invalidations.cover("hot", 19) && !invalidations.cover("hot", 20) && !invalidations.cover("cold", 1));
    }

    #[test]
    fn too_many_keys_cover_all_older_values() {
        let invalidations = Invalidations { max_keys: 2, ..Invalidations::new(1000) };
        for (at, key) in [(10, "a"), (20, "b"), (30, "c")] {
            invalidations.record(key, at);
        }
        assert_eq!(invalidations.len(), 2);
        assert!(["a", "b", "c", "d"].iter().all(|key| invalidations.cover(key, 10)));
        assert!(!invalidations.cover("a", 11) && !invalidations.cover("d", 11));
        assert!(invalidations.cover("b", 20) && invalidations.cover("c", 30));
    }
}
