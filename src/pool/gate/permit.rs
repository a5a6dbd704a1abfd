//! The permit to connect, and what its end means for the gate.

use std::error::Error;
use std::sync::Arc;

use super::state::{Attempt, Effect};
use super::{Denied, Gate, RetryAt};
use crate::labels::{ConnectFailure, ErrorCode, Phase};
use crate::sync::Instant;
use crate::telemetry::ledger::Recorder;
use crate::text::ErrorChain;

/// A permit to connect. Dropping it means that the attempt was abandoned: the pool is closed, or its runtime has ended.
#[must_use]
#[derive(Debug)]
pub(in crate::pool) struct ConnectPermit<O: AsRef<Gate>> {
    owner: Arc<O>,
    recorder: Recorder,
    attempt: Attempt,
    ended: bool,
}

impl<O: AsRef<Gate>> ConnectPermit<O> {
    pub(super) fn new(owner: Arc<O>, recorder: Recorder, attempt: Attempt) -> Self {
        Self { owner, recorder, attempt, ended: false }
    }

    fn gate(&self) -> &Gate {
        (*self.owner).as_ref()
    }

    /// Ends the connect with success.
    pub(in crate::pool) fn succeeded(mut self) {
        self.ended = true;
        let resumed = self.gate().connects().succeeded(self.attempt);
        if let Some(suspended_for) = resumed {
            self.recorder.log().connecting_resumed(suspended_for);
        }
        self.gate().wake_all();
    }

    /// Ends the connect with an error. Returns the wait at the gate that the checkout begins instead of failing, if
    /// any.
    pub(in crate::pool) fn failed(
        mut self,
        failure: ConnectFailure,
        code: ErrorCode,
        error: &(dyn Error + 'static),
        any_returnable: impl FnOnce() -> bool,
    ) -> Option<RetryAt> {
        self.ended = true;
        let (gate, now) = (self.gate(), Instant::now());
        // Not under the lock: the backend's `Display` may do anything.
        let message: Arc<str> = ErrorChain(error).to_string().into();
        let mut connects = gate.connects();
        let effect = connects.failed(self.attempt, failure, code, message, now);
        let suspension = connects.suspension(now);
        let outage = suspension.as_ref().map(|suspension| suspension.outage.failure);
        let denied = suspension.map(|suspension| gate.denied(&suspension, false, any_returnable));
        drop(connects);
        // A failure that is no evidence of an outage does not change what is logged about it.
        if let Some(outage) = outage
            && (outage == failure || failure == ConnectFailure::Transient)
        {
            self.recorder.log().connecting_suspended(outage, code, error);
        }
        gate.wake_all();
        match (effect, denied) {
            (Effect::TryAgain(until), _) => Some(RetryAt { phase: Phase::Suspended, until }),
            (_, Some(Denied::RetryAt(retry))) => Some(retry),
            (_, Some(Denied::Unavailable(_)) | None) => None,
        }
    }
}

impl<O: AsRef<Gate>> Drop for ConnectPermit<O> {
    fn drop(&mut self) {
        if !self.ended {
            self.gate().connects().dropped(self.attempt);
            self.gate().wake_all();
        }
    }
}
