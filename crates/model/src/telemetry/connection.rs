//! Stands for `src/telemetry/connection`: the packed state is modelled, and the wire is a flag.

use super::wire::SessionStatus;
use crate::sync::atomic::{AtomicBool, Ordering::SeqCst};

#[allow(dead_code, reason = "a model uses only a part of the file")]
#[path = "../../../../src/telemetry/connection/packed.rs"]
mod packed;

pub(crate) use self::packed::UnpackedState;

/// The packed state, for the model.
#[derive(Debug)]
pub(crate) struct State(packed::PackedState);

impl State {
    pub(crate) fn idle() -> Self {
        use super::clock::Nanos;
        use super::operations::OperationId;
        Self(packed::PackedState::new(crate::labels::ConnectionState::Idle, OperationId::OTHER, Nanos::from_nanos(0)))
    }

    pub(crate) fn set(&self, state: crate::labels::ConnectionState, since: u64) {
        use super::clock::Nanos;
        use super::operations::OperationId;
        self.0.set(state, OperationId::OTHER, Nanos::from_nanos(since));
    }

    pub(crate) fn before_counting() {
        packed::PackedState::before_counting();
    }

    pub(crate) fn after_counters(&self) -> UnpackedState {
        self.0.after_counters()
    }
}

/// The state of a connection, and what its task records.
#[derive(Debug)]
pub(crate) struct ConnectionStats {
    state: State,
    wire: Wire,
}

#[derive(Debug, Default)]
pub(crate) struct Wire {
    dirty: AtomicBool,
    ended: AtomicBool,
}

impl Default for ConnectionStats {
    fn default() -> Self {
        Self { state: State::idle(), wire: Wire::default() }
    }
}

impl ConnectionStats {
    pub(crate) fn used() -> Self {
        let stats = Self::default();
        stats.set(crate::labels::ConnectionState::Used);
        stats
    }

    pub(crate) fn set(&self, state: crate::labels::ConnectionState) {
        self.state.set(state, 0);
    }

    pub(crate) fn state(&self) -> UnpackedState {
        UnpackedState::unpack(self.state.0.get())
    }

    pub(crate) fn wire(&self) -> &Wire {
        &self.wire
    }
}

impl Wire {
    pub(crate) fn status(&self) -> SessionStatus {
        if self.dirty.load(SeqCst) { SessionStatus::Dirty } else { SessionStatus::Clean }
    }

    pub(crate) fn set_dirty(&self) {
        self.dirty.store(true, SeqCst);
    }

    pub(crate) fn end(&self) {
        self.ended.store(true, SeqCst);
    }
}
