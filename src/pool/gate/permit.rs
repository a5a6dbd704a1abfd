//! The permit to connect, and what its end means for the gate.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::state::{Attempt, Effect};
use super::{ABANDONED_AFTER, Denied, Gate, RetryAt};
use crate::labels::{ConnectFailure, ErrorCode, Phase};
use crate::telemetry::ledger::Recorder;
use crate::text::ErrorChain;

/// A permit to connect. Dropping it means that the connect was abandoned.
#[must_use]
#[derive(Debug)]
pub(in crate::pool) struct ConnectPermit<'a> {
    gate: &'a Gate,
    recorder: &'a Recorder,
    attempt: Attempt,
    abandoned: ConnectFailure,
    ended: bool,
}

#[derive(Debug, thiserror::Error)]
#[error("no connection after {0:?}, when the checkout ended")]
struct Abandoned(Duration);

impl<'a> ConnectPermit<'a> {
    pub(super) fn new(gate: &'a Gate, recorder: &'a Recorder, attempt: Attempt, abandoned: ConnectFailure) -> Self {
        Self { gate, recorder, attempt, abandoned, ended: false }
    }

    /// Ends the connect with success.
    pub(in crate::pool) fn succeeded(mut self) {
        self.ended = true;
        let resumed = self.gate.connects().succeeded(self.attempt);
        if let Some(suspended_for) = resumed {
            self.recorder.log().connecting_resumed(suspended_for);
        }
        self.gate.wake_all();
    }

    /// Ends the connect with an error. Returns the wait at the gate that the checkout begins instead of failing, if
    /// any.
    pub(in crate::pool) fn failed(
        mut self,
        failure: ConnectFailure,
        code: ErrorCode,
        error: &dyn Error,
        any_returnable: impl FnOnce() -> bool,
    ) -> Option<RetryAt> {
        self.ended = true;
        self.fail(failure, code, error, any_returnable)
    }

    fn fail(
        &self,
        failure: ConnectFailure,
        code: ErrorCode,
        error: &dyn Error,
        any_returnable: impl FnOnce() -> bool,
    ) -> Option<RetryAt> {
        let now = Instant::now();
        // Not under the lock: the backend's `Display` may do anything.
        let message: Arc<str> = ErrorChain(error).to_string().into();
        let mut connects = self.gate.connects();
        let effect = connects.failed(self.attempt, failure, code, message, now);
        let suspension = connects.suspension(now);
        let denied = suspension.map(|suspension| self.gate.denied(&suspension, any_returnable));
        drop(connects);
        if effect == Effect::Suspends {
            self.recorder.log().connecting_suspended(failure, code, error);
        }
        self.gate.wake_all();
        match (effect, denied) {
            (Effect::TryAgain(until), _) => Some(RetryAt { phase: Phase::Suspended, until }),
            (_, Some(Denied::RetryAt(retry))) => Some(retry),
            (_, Some(Denied::Unavailable(_) | Denied::AwaitReset) | None) => None,
        }
    }
}

impl Drop for ConnectPermit<'_> {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let took = self.attempt.began.elapsed();
        if took >= ABANDONED_AFTER {
            self.fail(self.abandoned, ErrorCode::TIMEOUT, &Abandoned(took), || false);
        } else {
            self.gate.connects().dropped(self.attempt);
            self.gate.wake_all();
        }
    }
}
