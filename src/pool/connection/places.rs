//! The number of deadpool's places, when the pool's maximum changes.
//!
//! deadpool's `resize` adds places exactly, but does not remove those that are vacant, so that a pool that has shrunk could
//! have more connections than its new maximum. Here, a place that is beyond the maximum is *withheld*: taken from deadpool
//! as a vacant slot, and kept until the maximum grows. A place that is in use, or vacant, is withheld when its connection
//! leaves the pool, or when a checkout is about to connect in it. Until then, it is in *excess*, and the ledger prevents
//! that a connection is opened in it: at any time, deadpool's places = the maximum + withheld + excess. (`crates/model` runs
//! changes of the maximum in every order with returns.)

use std::sync::PoisonError;

use super::super::backend::Backend;
use super::{ObjectPool, Place};
use crate::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use crate::sync::{Mutex, MutexGuard};

/// The places of one pool beyond its maximum.
#[derive(Debug)]
pub(in crate::pool) struct Places<M: Backend> {
    state: Mutex<PlacesState<M>>,
    /// Written under the lock.
    excess: AtomicUsize,
}

#[derive(Debug)]
struct PlacesState<M: Backend> {
    /// The number of deadpool's places.
    total: usize,
    withheld: Vec<Place<M>>,
}

impl<M: Backend> Places<M> {
    pub(super) fn new(max: usize) -> Self {
        let state = Mutex::new(PlacesState { total: max, withheld: Vec::new() });
        Self { state, excess: AtomicUsize::new(0) }
    }

    fn state(&self) -> MutexGuard<'_, PlacesState<M>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether a place has to be withheld.
    pub(in crate::pool) fn has_excess(&self) -> bool {
        self.excess.load(Relaxed) > 0
    }

    /// Withholds a vacant place.
    ///
    /// # Errors
    ///
    /// Returns the place if none has to be withheld.
    pub(in crate::pool) fn withhold(&self, place: Place<M>) -> Result<(), Place<M>> {
        let mut state = self.state();
        let excess = self.excess.load(Relaxed);
        if excess == 0 {
            // Dropped by the caller, without the lock.
            return Err(place);
        }
        self.excess.store(excess - 1, Relaxed);
        state.withheld.push(place);
        Ok(())
    }

    /// Calls `resize`, which changes the maximum and returns the new one, and changes the number of places of `pool` that
    /// may have connections accordingly.
    pub(in crate::pool) fn resize(&self, pool: &ObjectPool<M>, resize: impl FnOnce() -> usize) {
        let mut state = self.state();
        let wanted = resize();
        let excess = self.excess.load(Relaxed);
        let usable = state.total - state.withheld.len() - excess;
        let mut missing = wanted.saturating_sub(usable);
        let kept = missing.min(excess);
        missing -= kept;
        self.excess.store(excess - kept + usable.saturating_sub(wanted), Relaxed);
        let rest = state.withheld.len().saturating_sub(missing);
        let freed = state.withheld.split_off(rest);
        missing -= freed.len();
        if missing > 0 {
            state.total += missing;
            pool.resize(state.total);
        }
        drop(state);
        // Each wakes a checkout.
        drop(freed);
    }
}
