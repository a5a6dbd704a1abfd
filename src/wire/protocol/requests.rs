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

/// The requests that the server has not answered, in their order. The first is kept apart from the others, since there
/// are rarely any.
#[derive(Debug, Default)]
#[repr(C)]
pub(super) struct RequestQueue {
    /// Meaningless if the queue is empty.
    first: PendingRequest,
    is_occupied: bool,
    /// Empty if the queue is empty.
    others: VecDeque<PendingRequest>,
}

impl RequestQueue {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        !self.is_occupied
    }

    pub(super) fn len(&self) -> usize {
        usize::from(self.is_occupied) + self.others.len()
    }

    #[inline]
    pub(super) fn has_others(&self) -> bool {
        !self.others.is_empty()
    }

    #[inline]
    pub(super) fn front(&self) -> Option<&PendingRequest> {
        self.is_occupied.then_some(&self.first)
    }

    #[inline]
    pub(super) fn front_mut(&mut self) -> Option<&mut PendingRequest> {
        self.is_occupied.then_some(&mut self.first)
    }

    /// Returns the second request.
    pub(super) fn second(&self) -> Option<&PendingRequest> {
        self.others.front()
    }

    #[inline]
    pub(super) fn back(&self) -> Option<&PendingRequest> {
        if self.others.is_empty() { self.front() } else { self.others.back() }
    }

    #[inline]
    pub(super) fn back_mut(&mut self) -> Option<&mut PendingRequest> {
        if self.others.is_empty() { self.front_mut() } else { self.others.back_mut() }
    }

    #[inline]
    pub(super) fn push_back(&mut self, request: PendingRequest) {
        if self.is_occupied {
            self.others.push_back(request);
        } else {
            self.first = request;
            self.is_occupied = true;
        }
    }

    /// Adds a request to the empty queue.
    #[inline(always)]
    pub(super) fn set_only(&mut self, request: PendingRequest) {
        self.first = request;
        self.is_occupied = true;
    }

    /// Removes the only request.
    #[inline(always)]
    pub(super) fn take_only(&mut self) -> &PendingRequest {
        self.is_occupied = false;
        &self.first
    }

    #[inline]
    pub(super) fn pop_front(&mut self) -> Option<PendingRequest> {
        let front = self.front().copied();
        if self.others.is_empty() {
            self.is_occupied = false;
        } else if let Some(second) = self.others.pop_front() {
            self.first = second;
        }
        front
    }

    pub(super) fn pop_second(&mut self) -> Option<PendingRequest> {
        self.others.pop_front()
    }

    pub(super) fn pop_back(&mut self) -> Option<PendingRequest> {
        if self.others.is_empty() { self.pop_front() } else { self.others.pop_back() }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &PendingRequest> {
        self.front().into_iter().chain(&self.others)
    }

    /// Returns the request that the client is sending: the last one if it is open, otherwise a new one.
    #[inline]
    pub(super) fn open(&mut self) -> &mut PendingRequest {
        if self.back().is_none_or(|last| last.end != RequestEnd::Open) {
            self.push_back(PendingRequest::default());
        }
        // There is a last one, so that this is it.
        if self.others.is_empty() { &mut self.first } else { self.last_of_others() }
    }

    fn last_of_others(&mut self) -> &mut PendingRequest {
        let last = self.others.len() - 1;
        &mut self.others[last]
    }
}

#[cfg(any(test, fuzzing))]
impl PartialEq for RequestQueue {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn queue_keeps_the_order(steps in proptest::collection::vec(0..6_u8, 0..60)) {
            let (mut queue, mut expected) = (RequestQueue::default(), VecDeque::new());
            for (number, step) in steps.iter().enumerate() {
                let request = PendingRequest { bound: u32::try_from(number).unwrap(), end: RequestEnd::Sync, ..PendingRequest::default() };
                match step {
                    0..3 => {
                        queue.push_back(request);
                        expected.push_back(request);
                    }
                    3 => prop_assert_eq!(queue.pop_front(), expected.pop_front()),
                    4 => prop_assert_eq!(queue.pop_back(), expected.pop_back()),
                    _ => prop_assert_eq!(queue.pop_second(), expected.remove(1)),
                }
                prop_assert!(queue.iter().eq(&expected));
                prop_assert_eq!((queue.len(), queue.is_empty()), (expected.len(), expected.is_empty()));
                prop_assert_eq!((queue.front(), queue.back()), (expected.front(), expected.back()));
                prop_assert_eq!((queue.second(), queue.has_others()), (expected.get(1), expected.len() > 1));
                prop_assert_eq!(queue.front_mut().copied(), expected.front().copied());
                prop_assert_eq!(queue.back_mut().copied(), expected.back().copied());
            }
            *queue.open() = PendingRequest::NEW_QUERY;
            prop_assert_eq!(queue.len(), expected.len() + 1);
            queue.open().bound = 7;
            prop_assert_eq!(queue.back().map(|last| last.bound), Some(7));
        }
    }
}
