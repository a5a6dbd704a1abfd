//! The state of a connection in one word, so that its parts are always consistent with each other.
//!
//! It has one writer at a time, as the connection's counters: the connection's holder, or the pool while nobody holds it.
//! Readers may come at any time. A use in progress is counted from the state, and one that has ended from the counters.
//! The state therefore changes before the counters, and is read after them: a reader may miss a use that ends meanwhile,
//! and never counts one twice. (`crates/model` runs this in every order that the memory model permits.)

use crate::labels::ConnectionState;
use crate::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use crate::sync::atomic::{AtomicU64, fence};
use crate::telemetry::clock::Nanos;
use crate::telemetry::operations::OperationId;

/// The state of a connection, for any reader.
#[derive(Debug)]
pub(super) struct PackedState(AtomicU64);

impl PackedState {
    pub(super) fn new(state: ConnectionState, operation: OperationId, since: Nanos) -> Self {
        Self(AtomicU64::new(UnpackedState::pack(state as u64, operation, since)))
    }

    /// Returns the packed state, which differs for each use of the connection.
    #[inline]
    pub(super) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    #[inline]
    pub(super) fn set(&self, state: ConnectionState, operation: OperationId, since: Nanos) {
        self.0.store(UnpackedState::pack(state as u64, operation, since), Relaxed);
    }

    /// Records that the pool itself uses the connection on behalf of the operation.
    pub(super) fn set_maintenance(&self, operation: OperationId, since: Nanos) {
        self.0.store(UnpackedState::pack(MAINTENANCE, operation, since), Relaxed);
    }

    /// Called by the writer between the change of the state and that of the counters.
    #[inline]
    pub(super) fn before_counting() {
        fence(Release);
    }

    /// Returns the state to a reader that has read the counters.
    pub(super) fn after_counters(&self) -> UnpackedState {
        fence(Acquire);
        UnpackedState::unpack(self.get())
    }
}

/// The state of a connection, for which operation, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UnpackedState {
    /// The state as it is reported.
    pub(crate) label: ConnectionState,
    /// Whether the pool itself uses the connection, to ping or reset it on behalf of the operation.
    pub(crate) maintenance: bool,
    /// The operation that the connection is created or used for; meaningless while it is idle.
    pub(crate) operation: OperationId,
    /// When this state began, to the microsecond.
    pub(crate) since: Nanos,
}

const OPERATION_BITS: u32 = 12;
const STATE_BITS: u32 = 3;
/// Marks use by the pool itself, in addition to the four values of [`ConnectionState`].
const MAINTENANCE: u64 = 4;
/// Times are kept in units of 1,024 nanoseconds: 49 bits of those last for 18 years.
const TIME_SHIFT: u32 = 10;
const SINCE_SHIFT: u32 = OPERATION_BITS + STATE_BITS;

impl UnpackedState {
    #[inline]
    fn pack(state: u64, operation: OperationId, since: Nanos) -> u64 {
        ((since.as_nanos() >> TIME_SHIFT) << SINCE_SHIFT) | ((operation.index() as u64) << STATE_BITS) | state
    }

    pub(crate) fn unpack(packed: u64) -> Self {
        let bits = packed & ((1 << STATE_BITS) - 1);
        let label = match bits {
            0 => ConnectionState::Creating,
            1 => ConnectionState::Idle,
            3 => ConnectionState::Closing,
            _ => ConnectionState::Used,
        };
        let operation = OperationId::from_index((packed >> STATE_BITS) & ((1 << OPERATION_BITS) - 1));
        let since = Nanos::from_nanos((packed >> SINCE_SHIFT) << TIME_SHIFT);
        Self { label, maintenance: bits == MAINTENANCE, operation, since }
    }

    /// Returns whether the connection is checked out, or used by the pool itself.
    pub(crate) fn is_used(self) -> bool {
        self.label == ConnectionState::Used
    }

    /// Returns whether the time counts as use of the operation: the connection is used, or the server may still execute
    /// what the operation has left.
    pub(super) fn is_held(self) -> bool {
        matches!(self.label, ConnectionState::Used | ConnectionState::Closing)
    }

    /// Returns whether the connection is checked out.
    pub(crate) fn is_checked_out(self) -> bool {
        self.is_used() && !self.maintenance
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::telemetry::operations::OPERATION_IDS;

    proptest! {
        #[test]
        fn packing_round_trips(state in 0..5usize, operation in 0..OPERATION_IDS as u64, micros in 0..(1u64 << 49)) {
            let operation = OperationId::from_index(operation);
            let since = Nanos::from_nanos(micros << TIME_SHIFT);
            let maintenance = state as u64 == MAINTENANCE;
            let label = if maintenance { ConnectionState::Used } else { ConnectionState::ALL[state] };
            let expected = UnpackedState { label, maintenance, operation, since };
            prop_assert_eq!(UnpackedState::unpack(UnpackedState::pack(state as u64, operation, since)), expected);
        }
    }
}
