//! A counter with a single writer at a time.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A counter that only one thread at a time may write and any thread may read.
///
/// An increment is a load and a store instead of a locked read-modify-write: 0.5 ns, where `fetch_add` takes 2.3 ns, or
/// 10 ns under contention. Handing the right to write to another thread needs synchronization, such as the pool's lock.
#[derive(Debug, Default)]
pub(crate) struct OwnedCounter(AtomicU64);

impl OwnedCounter {
    #[inline]
    pub(crate) fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    #[inline]
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}
