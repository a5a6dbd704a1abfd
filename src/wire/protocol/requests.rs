//! Requests that the server has not answered.

use std::collections::VecDeque;

use super::handler::RequestOutcome;
use crate::labels::ErrorCode;
use crate::telemetry::clock::Nanos;
use crate::wire::sql::{QueryRef, StatementEffects};

/// How a request ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum RequestEnd {
    /// It has not ended: the client has yet to send a `Sync`.
    #[default]
    Open,
    /// With a `Sync`.
    Sync,
    /// The request is a single message.
    SingleMessage,
}

/// How a request begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum RequestStart {
    /// With nothing in front of its `Sync`.
    #[default]
    Empty,
    /// With the end of data for a COPY IN that an earlier request began, or that has failed since.
    CopyEnd,
    /// With any other message.
    Message,
}

/// A request that the server has not answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PendingRequest {
    pub(super) start: RequestStart,
    pub(super) end: RequestEnd,
    /// Whether it counts as work: true unless it only closes statements.
    pub(super) work: bool,
    /// Whether it ends without a cancel and no caller can have abandoned it: a ROLLBACK, a `Parse`, a failed request.
    pub(super) ending: bool,
    pub(super) queries: u32,
    /// The number of requests with queries that were reported for it: more than one if they turned out to be a single
    /// request.
    pub(super) started: u32,
    /// The number of `CopyDone` and `CopyFail` messages that the client sent before the server requested data.
    pub(super) copy_ends: u32,
    /// The effects of its statements.
    pub(super) effects: StatementEffects,
    /// Its first query, once that is known.
    pub(super) query: Option<QueryRef>,
    /// The generation of the statement that it bound last; zero if there is none.
    pub(super) bound: u32,
    pub(super) sent_at: Nanos,
    /// The error that it ended with.
    pub(super) error: Option<ErrorCode>,
    /// Whether the server reported an error in it that does not end the session.
    pub(super) failed: bool,
    /// Whether the server reported a commit in it.
    pub(super) committed: bool,
}

impl PendingRequest {
    /// A request that begins with its only query.
    pub(super) const NEW_QUERY: Self = Self {
        start: RequestStart::Message,
        end: RequestEnd::Open,
        work: true,
        ending: false,
        queries: 1,
        started: 1,
        copy_ends: 0,
        effects: StatementEffects::NONE,
        query: None,
        bound: 0,
        sent_at: Nanos::ZERO,
        error: None,
        failed: false,
        committed: false,
    };

    /// Adds the effects of an `Execute`. `portal` is what a portal bound in an earlier request may have.
    #[inline]
    pub(super) fn add_execute(&mut self, portal: StatementEffects) {
        if self.effects.is_empty() {
            self.effects = StatementEffects::TRANSACTIONAL;
        }
        self.effects.add(portal);
    }

    /// Returns whether the tags of its commands are of interest. The outcome of a single statement is clear from the next
    /// `ReadyForQuery`.
    #[inline]
    pub(super) fn needs_command_tag(&self) -> bool {
        self.effects.need_command_tags() || self.queries > 1
    }

    pub(super) fn outcome(&self, rows: u64, committed: bool, clears_error: bool) -> RequestOutcome {
        let Self { started, sent_at, error, .. } = *self;
        RequestOutcome { started, query: self.query.unwrap_or_default(), sent_at, rows, error, committed, clears_error }
    }
}

/// Counts the pending requests that are work: always those in the queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PendingWork {
    pub(super) requests: usize,
    /// Of `requests`, those with [`ending`](PendingRequest::ending) set.
    pub(super) endings: usize,
    /// Whether the client has sent the beginning of a further message that will be work.
    pub(super) partial: bool,
}

impl PendingWork {
    pub(super) fn add(&mut self, request: &PendingRequest) {
        self.requests += usize::from(request.work);
        self.endings += usize::from(request.ending);
    }

    pub(super) fn remove(&mut self, request: &PendingRequest) {
        self.requests -= usize::from(request.work);
        self.endings -= usize::from(request.ending);
    }

    /// Marks a request of the queue as ending, if it is work.
    pub(super) fn mark_ending(&mut self, request: &mut PendingRequest) {
        self.remove(request);
        request.ending = request.work;
        self.add(request);
    }

    /// Returns `None` if there is no work, and otherwise whether all of it is ending.
    pub(super) fn state(self) -> Option<bool> {
        (self.requests > 0 || self.partial).then_some(self.requests > 0 && self.requests == self.endings)
    }
}

/// Returns the request that the client is sending: the last one if it is open, otherwise a new one.
#[inline]
pub(super) fn open_request(pending: &mut VecDeque<PendingRequest>) -> &mut PendingRequest {
    if pending.back().is_none_or(|last| last.end != RequestEnd::Open) {
        pending.push_back(PendingRequest::default());
    }
    let last = pending.len() - 1;
    &mut pending[last]
}
