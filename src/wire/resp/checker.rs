//! A handler that records what is reported and checks the invariants, for the tests and for fuzzing.

use std::sync::Arc;

use super::session::SessionState;
use super::state::{CommandEnd, RespHandler, RespState};
use crate::telemetry::clock::Nanos;
use crate::telemetry::evidence::{Risk, ServerError};
use crate::telemetry::wire::SessionStatus;

/// Records everything that is reported.
#[derive(Debug, Default)]
pub(super) struct CheckingHandler {
    pub(super) is_busy: bool,
    pub(super) sent: usize,
    pub(super) ended: Vec<CommandEnd>,
    pub(super) status: Option<SessionStatus>,
    pub(super) risk: Risk,
    pub(super) errors: Vec<ServerError>,
}

impl RespHandler for CheckingHandler {
    fn busy(&mut self) {
        assert!(!self.is_busy, "reported twice");
        self.is_busy = true;
    }

    fn command_sent(&mut self, _: bool) {
        assert!(self.is_busy, "a command is work");
        self.sent += 1;
    }

    fn command_ended(&mut self, end: CommandEnd) {
        self.ended.push(end);
        assert!(self.ended.len() <= self.sent, "more ended than were sent");
    }

    fn ready(&mut self, status: SessionStatus) {
        assert!(self.is_busy, "ready without work");
        assert_eq!(self.ended.len(), self.sent, "ready while commands are pending");
        self.is_busy = false;
        self.status = Some(status);
    }

    fn risk_changed(&mut self, risk: Risk) {
        assert_ne!(self.risk, risk, "reported twice");
        self.risk = risk;
    }

    fn server_error(&mut self, error: ServerError) {
        self.errors.push(error);
    }

    fn now(&self) -> Nanos {
        Nanos::ZERO
    }
}

/// What a conversation led to.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) handler: CheckingHandler,
    pub(super) session: Arc<SessionState>,
    /// The error with which the observer gave up.
    pub(super) problem: Option<&'static str>,
}

/// Replays parts of a conversation, each with whether the client sent it, in pieces of at most `piece` bytes.
pub(super) fn replay<'a>(parts: impl IntoIterator<Item = (bool, &'a [u8])>, piece: usize) -> Outcome {
    let mut outcome = Outcome::default();
    let mut state = RespState::new(Arc::clone(&outcome.session));
    for (is_sent, part) in parts {
        for bytes in part.chunks(piece.max(1)) {
            let read = if is_sent {
                state.sent(bytes, &mut outcome.handler)
            } else {
                let mut rest = bytes;
                state.received(&mut rest, &mut outcome.handler).map(|_| assert!(rest.is_empty(), "bytes are left"))
            };
            if let Err(problem) = read {
                outcome.problem = Some(problem);
                return outcome;
            }
        }
    }
    let pending = outcome.handler.sent - outcome.handler.ended.len();
    state.end_unanswered(&mut outcome.handler);
    assert_eq!(outcome.handler.sent, outcome.handler.ended.len(), "{pending} were pending");
    outcome
}

/// Replays bytes as a conversation, in two ways, which must report the same. The first byte of each part is its length and
/// its direction.
#[cfg(any(fuzzing, test))]
pub(crate) fn fuzz_resp(mut bytes: &[u8]) {
    let mut parts = Vec::new();
    while let Some((head, rest)) = bytes.split_first() {
        let length = usize::from(head & 0x7f).min(rest.len());
        parts.push((head & 0x80 != 0, &rest[..length]));
        bytes = &rest[length..];
    }
    let [whole, single] = [usize::MAX, 1].map(|piece| replay(parts.iter().copied(), piece));
    assert_eq!(whole.problem, single.problem);
    if whole.problem.is_none() {
        assert_eq!(whole.handler.ended, single.handler.ended);
        assert_eq!((whole.handler.status, whole.handler.errors), (single.handler.status, single.handler.errors));
    }
}
