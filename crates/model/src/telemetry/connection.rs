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

/// The statistics that the connection's task uses.
#[derive(Debug, Default)]
pub(crate) struct ConnectionStats(Wire);

#[derive(Debug, Default)]
pub(crate) struct Wire {
    dirty: AtomicBool,
    ended: AtomicBool,
}

impl ConnectionStats {
    pub(crate) fn wire(&self) -> &Wire {
        &self.0
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
