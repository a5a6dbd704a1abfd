//! Connections outside the pool: those that live, and what the others came to.

use std::collections::BTreeMap;
use std::sync::Arc;

use slab::Slab;

use super::Ledger;
use super::books::rising;
use crate::telemetry::clock::Nanos;
use crate::telemetry::operations::OperationId;

/// The place of a connection among those that live outside the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UnpooledPlace(usize);

/// What one operation had of connections outside the pool.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct UnpooledTotals {
    /// The operation's name.
    pub operation: Arc<str>,
    /// Connections that were established.
    pub opened: u64,
    /// Those of them that are still open.
    pub active: usize,
    /// Time for which they were open, in nanoseconds, those that still are included.
    pub open_nanos: u64,
    /// Time spent connecting, in nanoseconds: without success, and by those that are at it, too.
    pub connect_nanos: u64,
}

/// A connection outside the pool, from the start of connecting until it is gone.
#[derive(Debug)]
struct Living {
    operation: OperationId,
    /// Since when it is open; until then, when connecting began.
    since: Nanos,
    open: bool,
}

/// What one operation's connections came to, without what is under way.
#[derive(Debug, Default)]
struct Totals {
    opened: u64,
    open_nanos: u64,
    connect_nanos: u64,
    /// The most that a snapshot said, see [`rising`].
    open_reported: u64,
    connect_reported: u64,
    /// Reckoned anew by each snapshot.
    under_way: UnderWay,
}

/// What one operation's connections are at.
#[derive(Clone, Copy, Debug, Default)]
struct UnderWay {
    active: usize,
    open_nanos: u64,
    connect_nanos: u64,
}

#[derive(Debug, Default)]
pub(super) struct Unpooled {
    living: Slab<Living>,
    /// Of the operations that had any: most have none.
    totals: BTreeMap<OperationId, Totals>,
}

impl Unpooled {
    pub(super) fn begin(&mut self, operation: OperationId, at: Nanos) -> UnpooledPlace {
        self.totals.entry(operation).or_default();
        UnpooledPlace(self.living.insert(Living { operation, since: at, open: false }))
    }

    pub(super) fn open(&mut self, place: UnpooledPlace, at: Nanos) {
        let Some(living) = self.living.get_mut(place.0) else { return };
        let totals = self.totals.entry(living.operation).or_default();
        totals.opened += 1;
        totals.connect_nanos += at.since(living.since);
        (living.since, living.open) = (at, true);
    }

    pub(super) fn end(&mut self, place: UnpooledPlace, at: Nanos) {
        let Some(Living { operation, since, open }) = self.living.try_remove(place.0) else { return };
        let totals = self.totals.entry(operation).or_default();
        *if open { &mut totals.open_nanos } else { &mut totals.connect_nanos } += at.since(since);
    }

    /// What each operation had, what is under way at `now` included.
    pub(super) fn totals(&mut self, ledger: &Ledger, now: Nanos) -> impl Iterator<Item = UnpooledTotals> {
        for totals in self.totals.values_mut() {
            totals.under_way = UnderWay::default();
        }
        for (_, living) in &self.living {
            let so_far = now.since(living.since);
            let under_way = &mut self.totals.entry(living.operation).or_default().under_way;
            under_way.active += usize::from(living.open);
            *if living.open { &mut under_way.open_nanos } else { &mut under_way.connect_nanos } += so_far;
        }
        self.totals.iter_mut().map(move |(operation, totals)| {
            let UnderWay { active, open_nanos, connect_nanos } = totals.under_way;
            UnpooledTotals {
                operation: ledger.operations().shared_name(*operation),
                opened: totals.opened,
                active,
                open_nanos: rising(&mut totals.open_reported, totals.open_nanos + open_nanos),
                connect_nanos: rising(&mut totals.connect_reported, totals.connect_nanos + connect_nanos),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::Limits;
    use super::*;
    use crate::telemetry::clock::Clock;
    use crate::telemetry::operations::Interned;

    struct Kept {
        ledger: Ledger,
        unpooled: Unpooled,
    }

    impl Kept {
        fn new() -> Self {
            Self {
                ledger: Ledger::new(Arc::from("test"), Limits::of_one(), Clock::mock().0),
                unpooled: Unpooled::default(),
            }
        }

        fn operation(&self, name: &str) -> OperationId {
            match self.ledger.operations().by_name(name) {
                Interned::Known(id) => id,
                Interned::Refused => panic!("refused"),
            }
        }

        /// Of each operation: opened, active, open for so long, connecting for so long.
        fn read(&mut self, now: u64) -> Vec<(String, u64, usize, u64, u64)> {
            let totals = self.unpooled.totals(&self.ledger, at(now));
            let plain =
                |of: UnpooledTotals| (of.operation.to_string(), of.opened, of.active, of.open_nanos, of.connect_nanos);
            totals.map(plain).collect()
        }
    }

    fn at(nanos: u64) -> Nanos {
        Nanos::from_nanos(nanos)
    }

    #[test]
    fn time_is_counted_while_it_passes_and_stays_when_it_is_over() {
        let mut kept = Kept::new();
        let work = kept.operation("work");
        assert!(kept.read(5).is_empty());
        let place = kept.unpooled.begin(work, at(10));
        assert_eq!(kept.read(13), [("work".to_owned(), 0, 0, 0, 3)]);
        kept.unpooled.open(place, at(17));
        assert_eq!(kept.read(20), [("work".to_owned(), 1, 1, 3, 7)]);
        kept.unpooled.end(place, at(30));
        assert_eq!(kept.read(99), [("work".to_owned(), 1, 0, 13, 7)]);
        // One that is never established.
        let place = kept.unpooled.begin(work, at(100));
        kept.unpooled.end(place, at(150));
        assert_eq!(kept.read(200), [("work".to_owned(), 1, 0, 13, 57)]);
    }

    #[test]
    fn connections_add_up_within_an_operation_and_stay_apart_from_anothers() {
        let mut kept = Kept::new();
        let (one, other) = (kept.operation("one"), kept.operation("other one"));
        let places = [one, one, other].map(|operation| kept.unpooled.begin(operation, at(0)));
        for place in places {
            kept.unpooled.open(place, at(1));
        }
        assert_eq!(kept.read(11), [("one".to_owned(), 2, 2, 20, 2), ("other one".to_owned(), 1, 1, 10, 1)]);
        kept.unpooled.end(places[0], at(11));
        // Its place may be another's.
        let next = kept.unpooled.begin(other, at(11));
        assert_eq!(next, places[0]);
        assert_eq!(kept.read(21), [("one".to_owned(), 2, 1, 30, 2), ("other one".to_owned(), 1, 1, 20, 11)]);
    }

    #[test]
    fn what_was_said_is_never_taken_back() {
        let mut kept = Kept::new();
        let work = kept.operation("work");
        let place = kept.unpooled.begin(work, at(0));
        assert_eq!(kept.read(10), [("work".to_owned(), 0, 0, 0, 10)]);
        // Read before, and recorded after.
        kept.unpooled.open(place, at(9));
        assert_eq!(kept.read(20), [("work".to_owned(), 1, 1, 11, 10)]);
        kept.unpooled.end(place, at(18));
        assert_eq!(kept.read(21), [("work".to_owned(), 1, 0, 11, 10)]);
    }
}
