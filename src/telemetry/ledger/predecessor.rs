//! The pool that a pool has replaced under its name.

use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::{Ledger, PoolSnapshot};

/// A pool's predecessor and successor. While both exist, the series of the name are their sum; what the predecessor has
/// counted stays in it when the predecessor is gone, so that no counter decreases.
#[derive(Debug, Default)]
pub(super) struct Replacement {
    predecessor: Mutex<Predecessor>,
    successor: Mutex<Weak<Ledger>>,
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
        *replaced.replacement.successor() = Arc::downgrade(self);
        *self.replacement.predecessor() = Predecessor::Live(Arc::clone(replaced));
    }

    /// Returns whether another pool's series include those of this pool.
    pub(crate) fn is_replaced(&self) -> bool {
        self.replacement.successor().strong_count() > 0
    }

    /// Adds the predecessor to a snapshot of this pool; with `holders` also its holders and waiters.
    pub(super) fn add_predecessor(&self, snapshot: &mut PoolSnapshot, holders: bool) {
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

    /// Returns whether this pool has no predecessor that still exists.
    fn has_ended_alone(&self) -> bool {
        !matches!(&*self.replacement.predecessor(), Predecessor::Live(_))
    }
}

impl Replacement {
    fn predecessor(&self) -> MutexGuard<'_, Predecessor> {
        self.predecessor.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn successor(&self) -> MutexGuard<'_, Weak<Ledger>> {
        self.successor.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
