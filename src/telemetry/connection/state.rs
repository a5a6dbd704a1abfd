//! The state of a connection, packed into one word so that readers always see a consistent combination.

use crate::labels::ConnectionState;
use crate::telemetry::clock::Nanos;
use crate::telemetry::operations::OperationId;

/// The state of a connection, for which operation, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UnpackedState {
    /// The state as it is reported.
    pub(crate) label: ConnectionState,
    /// Whether the pool itself uses the connection, to ping or clean it on behalf of the operation.
    pub(crate) maintenance: bool,
    /// The operation that the connection is created or used for; meaningless while it is idle.
    pub(crate) operation: OperationId,
    /// When this state began, to the microsecond.
    pub(crate) since: Nanos,
}

const OPERATION_BITS: u32 = 12;
const STATE_BITS: u32 = 2;
/// Marks use by the pool itself, in addition to the three values of [`ConnectionState`].
pub(super) const MAINTENANCE: u64 = 3;
/// Times are kept in units of 1,024 nanoseconds: 50 bits of those last for 36 years.
const TIME_SHIFT: u32 = 10;
const SINCE_SHIFT: u32 = OPERATION_BITS + STATE_BITS;

impl UnpackedState {
    #[inline]
    pub(super) fn pack(state: u64, operation: OperationId, since: Nanos) -> u64 {
        ((since.as_nanos() >> TIME_SHIFT) << SINCE_SHIFT) | ((operation.index() as u64) << STATE_BITS) | state
    }

    pub(crate) fn unpack(packed: u64) -> Self {
        let bits = packed & ((1 << STATE_BITS) - 1);
        let label = match bits {
            0 => ConnectionState::Creating,
            1 => ConnectionState::Idle,
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

    /// Returns whether the connection is checked out.
    pub(crate) fn is_checked_out(self) -> bool {
        self.is_used() && !self.maintenance
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::operations::OPERATION_IDS;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn packing_round_trips(state in 0..4usize, operation in 0..OPERATION_IDS as u64, micros in 0..(1u64 << 50)) {
            let operation = OperationId::from_index(operation);
            let since = Nanos::from_nanos(micros << TIME_SHIFT);
            let label = ConnectionState::ALL[state.min(2)];
            let expected = UnpackedState { label, maintenance: state as u64 == MAINTENANCE, operation, since };
            prop_assert_eq!(UnpackedState::unpack(UnpackedState::pack(state as u64, operation, since)), expected);
        }
    }
}
