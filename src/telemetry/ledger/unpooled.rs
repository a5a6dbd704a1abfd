//! Connections outside the pool.

use std::collections::BTreeMap;
use std::sync::Arc;

use slab::Slab;

use super::Ledger;
use super::state::monotonic;
use crate::telemetry::clock::Nanos;
use crate::telemetry::operations::OperationId;

/// Identifies a live connection outside the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UnpooledId(usize);

/// One operation's connections outside the pool.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct UnpooledTotals {
    /// The operation's name.
    pub operation: Arc<str>,
    /// Connections established.
    pub opened: u64,
    /// Connections currently open.
    pub active: usize,
    /// Time for which connections were open, in nanoseconds, including those currently open.
    pub open_nanos: u64,
    /// Time spent connecting, in nanoseconds, including failed attempts and those in progress.
    pub connect_nanos: u64,
}

/// A connection outside the pool, from the start of connecting until it is closed.
#[derive(Debug)]
struct LiveConnection {
    operation: OperationId,
    /// When it was established; until then, when connecting began.
    since: Nanos,
    open: bool,
}

/// Counters of one operation, without the activity in progress.
#[derive(Debug, Default)]
struct Counters {
    opened: u64,
    open_nanos: u64,
    connect_nanos: u64,
    /// The largest values that snapshots have reported; see [`monotonic`].
    open_reported: u64,
    connect_reported: u64,
    /// Recomputed by each snapshot.
    in_progress: InProgress,
}

/// The activity in progress of one operation's connections.
#[derive(Clone, Copy, Debug, Default)]
struct InProgress {
    active: usize,
    open_nanos: u64,
    connect_nanos: u64,
}

#[derive(Debug, Default)]
pub(super) struct Unpooled {
    live: Slab<LiveConnection>,
    /// Only of operations that had such connections.
    totals: BTreeMap<OperationId, Counters>,
}

impl Unpooled {
    pub(super) fn begin(&mut self, operation: OperationId, at: Nanos) -> UnpooledId {
        self.totals.entry(operation).or_default();
        UnpooledId(self.live.insert(LiveConnection { operation, since: at, open: false }))
    }

    pub(super) fn open(&mut self, id: UnpooledId, at: Nanos) {
        let Some(live) = self.live.get_mut(id.0) else { return };
        let totals = self.totals.entry(live.operation).or_default();
        totals.opened += 1;
        totals.connect_nanos += at.since(live.since);
        (live.since, live.open) = (at, true);
    }

    pub(super) fn end(&mut self, id: UnpooledId, at: Nanos) {
        let Some(LiveConnection { operation, since, open }) = self.live.try_remove(id.0) else { return };
        let totals = self.totals.entry(operation).or_default();
        *if open { &mut totals.open_nanos } else { &mut totals.connect_nanos } += at.since(since);
    }

    /// Returns the number of open connections.
    pub(super) fn open_count(&self) -> u64 {
        self.live.iter().filter(|(_, live)| live.open).count() as u64
    }

    /// Returns the totals of each operation, including the activity in progress up to `now`.
    pub(super) fn totals(&mut self, ledger: &Ledger, now: Nanos) -> impl Iterator<Item = UnpooledTotals> {
        for totals in self.totals.values_mut() {
            totals.in_progress = InProgress::default();
        }
        for (_, live) in &self.live {
            let so_far = now.since(live.since);
            let in_progress = &mut self.totals.entry(live.operation).or_default().in_progress;
            in_progress.active += usize::from(live.open);
            *if live.open { &mut in_progress.open_nanos } else { &mut in_progress.connect_nanos } += so_far;
        }
        self.totals.iter_mut().map(move |(operation, totals)| {
            let InProgress { active, open_nanos, connect_nanos } = totals.in_progress;
            UnpooledTotals {
                operation: ledger.operations().shared_name(*operation),
                opened: totals.opened,
                active,
                open_nanos: monotonic(&mut totals.open_reported, totals.open_nanos + open_nanos),
                connect_nanos: monotonic(&mut totals.connect_reported, totals.connect_nanos + connect_nanos),
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

    struct Fixture {
        ledger: Ledger,
        unpooled: Unpooled,
    }

    impl Fixture {
        fn new() -> Self {
            Self {
                ledger: Ledger::new(Arc::from("test"), Limits::for_tests(), Clock::mock().0),
                unpooled: Unpooled::default(),
            }
        }

        fn operation(&self, name: &str) -> OperationId {
            match self.ledger.operations().by_name(name) {
                Interned::Known(id) => id,
                Interned::Refused => panic!("refused"),
            }
        }

        /// Returns name, opened, active, open time and connect time of each operation.
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
    fn time_in_progress_is_counted() {
        let mut fixture = Fixture::new();
        let work = fixture.operation("work");
        assert!(fixture.read(5).is_empty());
        let id = fixture.unpooled.begin(work, at(10));
        assert_eq!(fixture.read(13), [("work".to_owned(), 0, 0, 0, 3)]);
        fixture.unpooled.open(id, at(17));
        assert_eq!(fixture.read(20), [("work".to_owned(), 1, 1, 3, 7)]);
        fixture.unpooled.end(id, at(30));
        assert_eq!(fixture.read(99), [("work".to_owned(), 1, 0, 13, 7)]);
        // A connection that is never established.
        let id = fixture.unpooled.begin(work, at(100));
        fixture.unpooled.end(id, at(150));
        assert_eq!(fixture.read(200), [("work".to_owned(), 1, 0, 13, 57)]);
    }

    #[test]
    fn connections_are_counted_by_operation() {
        let mut fixture = Fixture::new();
        let (one, other) = (fixture.operation("one"), fixture.operation("other one"));
        let ids = [one, one, other].map(|operation| fixture.unpooled.begin(operation, at(0)));
        for id in ids {
            fixture.unpooled.open(id, at(1));
        }
        assert_eq!(fixture.read(11), [("one".to_owned(), 2, 2, 20, 2), ("other one".to_owned(), 1, 1, 10, 1)]);
        fixture.unpooled.end(ids[0], at(11));
        // Its id may be reused.
        let next = fixture.unpooled.begin(other, at(11));
        assert_eq!(next, ids[0]);
        assert_eq!(fixture.read(21), [("one".to_owned(), 2, 1, 30, 2), ("other one".to_owned(), 1, 1, 20, 11)]);
    }

    #[test]
    fn reported_time_never_decreases() {
        let mut fixture = Fixture::new();
        let work = fixture.operation("work");
        let id = fixture.unpooled.begin(work, at(0));
        assert_eq!(fixture.read(10), [("work".to_owned(), 0, 0, 0, 10)]);
        // The clock was read before the snapshot, and the event recorded after it.
        fixture.unpooled.open(id, at(9));
        assert_eq!(fixture.read(20), [("work".to_owned(), 1, 1, 11, 10)]);
        fixture.unpooled.end(id, at(18));
        assert_eq!(fixture.read(21), [("work".to_owned(), 1, 0, 11, 10)]);
    }
}
