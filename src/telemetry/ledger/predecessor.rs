//! The pool that a pool has replaced under its name.

use std::mem;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Ledger, PoolSnapshot, SnapshotBuffer};

/// A pool's predecessor and successor. While both exist, the series of the name are their sum; what the predecessor has
/// counted stays in it when the predecessor is gone, so that no counter decreases. If the successor is gone first, as
/// when a replacement is undone, the predecessor keeps what it had counted.
#[derive(Debug, Default)]
pub(super) struct Replacement {
    predecessor: Mutex<Predecessor>,
    has_successor: AtomicBool,
    /// What the successors that have ended had counted.
    ended_successors: Mutex<Option<Box<PoolSnapshot>>>,
}

#[derive(Debug, Default)]
enum Predecessor {
    #[default]
    None,
    Live(Arc<Ledger>),
    /// What it had counted at its end.
    Ended(Box<PoolSnapshot>),
}

impl Ledger {
    /// Lets the series of `self`, which is new, continue those of `replaced`.
    pub(crate) fn replace(self: &Arc<Self>, replaced: &Arc<Self>) {
        replaced.replacement.has_successor.store(true, SeqCst);
        *self.replacement.predecessor() = Predecessor::Live(Arc::clone(replaced));
    }

    /// Returns whether another pool's series include those of this pool.
    pub(crate) fn is_replaced(&self) -> bool {
        self.replacement.has_successor.load(SeqCst)
    }

    /// Adds the predecessor, and the successors that have ended, to a snapshot of this pool; with `holders` also the
    /// predecessor's holders and waiters.
    pub(super) fn add_others(&self, snapshot: &mut PoolSnapshot, holders: bool) {
        if let Some(ended) = &*self.replacement.ended_successors() {
            snapshot.add(ended);
        }
        let mut predecessor = self.replacement.predecessor();
        // Only this reference is left, so that nothing is counted any more.
        if let Predecessor::Live(ledger) = &*predecessor
            && Arc::strong_count(ledger) == 1
            && ledger.has_ended_alone()
        {
            let mut ended = ledger.collected_snapshot(false);
            ended.keep_counters();
            drop(mem::replace(&mut *predecessor, Predecessor::Ended(Box::new(ended))));
        }
        match &*predecessor {
            Predecessor::None => {}
            Predecessor::Live(ledger) => snapshot.add(&ledger.collected_snapshot(holders)),
            Predecessor::Ended(ended) => snapshot.add(ended),
        }
    }

    /// Adds what this pool has counted, which ends, to its predecessor, if that still exists.
    fn return_name(&self) {
        let Predecessor::Live(replaced) = mem::take(&mut *self.replacement.predecessor()) else { return };
        let mut buffer = SnapshotBuffer::new();
        self.read_with(&mut buffer, |_, _, _, _| {});
        let mut ended = buffer.into_snapshot();
        if let Some(before) = &*self.replacement.ended_successors() {
            ended.add(before);
        }
        ended.keep_counters();
        {
            let mut successors = replaced.replacement.ended_successors();
            match &mut *successors {
                Some(before) => before.add(&ended),
                None => *successors = Some(Box::new(ended)),
            }
        }
        // Only now, since a scrape that found the predecessor alone without these counters would see them decrease.
        replaced.replacement.has_successor.store(false, SeqCst);
    }

    /// Returns whether this pool has no predecessor that still exists.
    fn has_ended_alone(&self) -> bool {
        !matches!(&*self.replacement.predecessor(), Predecessor::Live(_))
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        self.return_name();
    }
}

impl Replacement {
    fn predecessor(&self) -> MutexGuard<'_, Predecessor> {
        self.predecessor.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ended_successors(&self) -> MutexGuard<'_, Option<Box<PoolSnapshot>>> {
        self.ended_successors.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
