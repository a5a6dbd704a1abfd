//! The account that travels with a connection: what state it is in, for whom, and what it has served.
//!
//! A connection has one holder at a time, and the pool hands it on under a lock; so its counters have one writer
//! at a time and need no atomic read-modify-write. Readers may come at any moment: the state, the operation and the
//! time of the last change are packed into one word, so that they are always of the same moment.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::cell::OwnedCounter;
use super::clock::Nanos;
use super::histogram::{Histogram, OwnedHistogram};
use super::operations::{OPERATION_IDS, OperationId};
use crate::event::ConnectionState;

/// Operations are counted in groups, made when the first of a group is seen.
const GROUP: usize = 8;
const GROUPS: usize = OPERATION_IDS.div_ceil(GROUP);

/// What one operation did on one connection.
#[derive(Debug, Default)]
struct Uses {
    /// Checkouts that were served at their first poll.
    served: OwnedCounter,
    /// Uses that ended, and the time they took.
    returned: OwnedCounter,
    nanos: OwnedCounter,
}

/// The account of one connection, from the start of connecting until it is closed.
///
/// Aligned so that two connections in use by two threads never share a cache line, nor a pair of lines.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Seat {
    word: AtomicU64,
    use_time: OwnedHistogram,
    uses: [OnceLock<Box<[Uses; GROUP]>>; GROUPS],
}

/// What a seat's word says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) state: ConnectionState,
    /// For whom it is being created or used; of no meaning while idle.
    pub(crate) operation: OperationId,
    /// When this state began, to the microsecond.
    pub(crate) since: Nanos,
}

const OPERATION_BITS: u32 = 12;
const STATE_BITS: u32 = 2;
/// Nanoseconds are dropped to units of 1,024: 50 bits of those last for 36 years.
const TIME_SHIFT: u32 = 10;
const SINCE_SHIFT: u32 = OPERATION_BITS + STATE_BITS;

impl Standing {
    #[inline]
    fn pack(state: ConnectionState, operation: OperationId, since: Nanos) -> u64 {
        ((since.as_nanos() >> TIME_SHIFT) << SINCE_SHIFT)
            | ((operation.index() as u64) << STATE_BITS)
            | state.index() as u64
    }

    fn unpack(word: u64) -> Self {
        let state = match word & ((1 << STATE_BITS) - 1) {
            0 => ConnectionState::Creating,
            1 => ConnectionState::Idle,
            _ => ConnectionState::Used,
        };
        let operation = OperationId::from_index((word >> STATE_BITS) & ((1 << OPERATION_BITS) - 1));
        Self { state, operation, since: Nanos::from_nanos((word >> SINCE_SHIFT) << TIME_SHIFT) }
    }
}

impl Seat {
    /// A connection that is being created from now on.
    pub(crate) fn new(operation: OperationId, at: Nanos) -> Self {
        Self {
            word: AtomicU64::new(Standing::pack(ConnectionState::Creating, operation, at)),
            use_time: OwnedHistogram::default(),
            uses: [const { OnceLock::new() }; GROUPS],
        }
    }

    pub(crate) fn standing(&self) -> Standing {
        Standing::unpack(self.word.load(Relaxed))
    }

    #[inline]
    pub(crate) fn set_used(&self, operation: OperationId, at: Nanos) {
        self.word.store(Standing::pack(ConnectionState::Used, operation, at), Relaxed);
    }

    #[inline]
    pub(crate) fn set_idle(&self, at: Nanos) {
        self.word.store(Standing::pack(ConnectionState::Idle, OperationId::OTHER, at), Relaxed);
    }

    /// Counts a checkout that was started and served in one.
    #[inline]
    pub(crate) fn count_served(&self, operation: OperationId) {
        self.uses_of(operation).served.add(1);
    }

    /// Counts a use that ended.
    #[inline]
    pub(crate) fn count_use(&self, operation: OperationId, nanos: u64) {
        self.use_time.observe(nanos);
        let uses = self.uses_of(operation);
        uses.returned.add(1);
        uses.nanos.add(nanos);
    }

    /// Adds what this connection served to `totals`.
    pub(crate) fn add_to(&self, totals: &mut SeatTotals) {
        totals.use_time.add(&self.use_time.read());
        for (group, first) in self.uses.iter().zip((0..).step_by(GROUP)) {
            let Some(group) = group.get() else { continue };
            for (uses, total) in group.iter().zip(&mut totals.by_operation[first..]) {
                total.served += uses.served.get();
                total.returned += uses.returned.get();
                total.nanos += uses.nanos.get();
            }
        }
    }

    #[inline]
    fn uses_of(&self, operation: OperationId) -> &Uses {
        let index = operation.index();
        &self.uses[index / GROUP].get_or_init(Box::default)[index % GROUP]
    }
}

/// The sum over connections of what they served.
#[derive(Clone, Debug)]
pub(crate) struct SeatTotals {
    pub(crate) use_time: Histogram,
    /// By operation id.
    pub(crate) by_operation: Vec<UseTotals>,
}

/// The sum over connections of what one operation did.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct UseTotals {
    pub(crate) served: u64,
    pub(crate) returned: u64,
    pub(crate) nanos: u64,
}

impl Default for SeatTotals {
    fn default() -> Self {
        Self { use_time: Histogram::default(), by_operation: vec![UseTotals::default(); OPERATION_IDS] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_word_says_what_was_put_into_it(state in 0..3usize, operation in 0..OPERATION_IDS as u64, micros in 0..(1u64 << 50)) {
            let state = ConnectionState::ALL[state];
            let operation = OperationId::from_index(operation);
            let since = Nanos::from_nanos(micros << TIME_SHIFT);
            prop_assert_eq!(Standing::unpack(Standing::pack(state, operation, since)), Standing { state, operation, since });
        }
    }

    #[test]
    fn totals_add_up_over_seats_and_operations() {
        let mut totals = SeatTotals::default();
        for _ in 0..2 {
            let seat = Seat::new(OperationId::OTHER, Nanos::ZERO);
            for id in [0, 7, 8, 200] {
                let operation = OperationId::from_index(id);
                seat.count_served(operation);
                seat.count_use(operation, 10);
            }
            seat.add_to(&mut totals);
        }
        for id in [0, 7, 8, 200] {
            let uses = totals.by_operation[id];
            assert_eq!((uses.served, uses.returned, uses.nanos), (2, 2, 20));
        }
        assert_eq!(totals.use_time.count(), 8);
        assert_eq!(totals.by_operation.iter().map(|uses| uses.served).sum::<u64>(), 8);
    }
}
