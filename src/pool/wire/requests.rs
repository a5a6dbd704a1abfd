//! Requests that are not answered.

use std::collections::VecDeque;

use super::listener::Answer;
use super::statements::Deeds;
use super::texts::Asked;
use crate::labels::ErrorCode;
use crate::telemetry::clock::Nanos;

/// What a request ends with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum End {
    /// It has not ended: a `Sync` is to come.
    #[default]
    Open,
    /// A `Sync`.
    Sync,
    /// Itself: it is one message.
    Own,
}

/// What a request begins with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Start {
    /// Nothing: a `Sync` is all there is.
    #[default]
    Nothing,
    /// The end of a COPY IN that an earlier request began, or that has failed since.
    DataEnd,
    /// Anything else.
    Message,
}

/// A request that is not answered.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Request {
    pub(super) start: Start,
    pub(super) end: End,
    /// Whether it is work: all are but those that only close statements.
    pub(super) work: bool,
    /// Whether it is nothing that anybody could have given up: a ROLLBACK, a statement that is prepared, what has
    /// failed. Its end is all that is to be waited for.
    pub(super) ending: bool,
    pub(super) queries: u32,
    /// How many requests with queries it was taken for when it was written: it has turned out to be one since.
    pub(super) begun: u32,
    /// How many ends of data it has for which the server has not asked yet.
    pub(super) data_ends: u32,
    /// What its queries do.
    pub(super) deeds: Deeds,
    /// What its first query is, once that is known, and when it was sent.
    pub(super) asked: Option<Asked>,
    pub(super) sent_at: Nanos,
    /// The error that it ended with, if it did.
    pub(super) error: Option<ErrorCode>,
    /// Whether the server reported an error in it, and goes on.
    pub(super) failed: bool,
    /// Whether the server said that it committed a transaction.
    pub(super) committed: bool,
}

impl Request {
    pub(super) fn answer(&self, rows: u64, committed: bool, overcomes: bool) -> Answer {
        let Self { begun, sent_at, error, .. } = *self;
        Answer { begun, asked: self.asked.unwrap_or_default(), sent_at, rows, error, committed, overcomes }
    }
}

/// How many requests are work and not answered: always those in the queue.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Work {
    pub(super) requests: usize,
    /// Those that only come to their end.
    pub(super) endings: usize,
    /// Whether the first bytes of another were written, and not enough to say which.
    pub(super) begun: bool,
}

impl Work {
    pub(super) fn add(&mut self, request: &Request) {
        self.requests += usize::from(request.work);
        self.endings += usize::from(request.ending);
    }

    pub(super) fn remove(&mut self, request: &Request) {
        self.requests -= usize::from(request.work);
        self.endings -= usize::from(request.ending);
    }

    /// Marks a request of the queue as one that only comes to its end, if it is work.
    pub(super) fn end(&mut self, request: &mut Request) {
        self.remove(request);
        request.ending = request.work;
        self.add(request);
    }

    /// Whether there is any, and if so whether it is nothing but requests that come to their end.
    pub(super) fn state(self) -> Option<bool> {
        (self.requests > 0 || self.begun).then_some(self.requests > 0 && self.requests == self.endings)
    }
}

/// The request that is being written: the last one, or a new one.
pub(super) fn open(outstanding: &mut VecDeque<Request>) -> &mut Request {
    if outstanding.back().is_none_or(|last| last.end != End::Open) {
        outstanding.push_back(Request::default());
    }
    let last = outstanding.len() - 1;
    &mut outstanding[last]
}
