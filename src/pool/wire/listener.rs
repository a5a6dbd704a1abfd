//! What is told of a conversation, and to whom.

use super::texts::Asked;
use crate::labels::ErrorCode;
use crate::telemetry::clock::Nanos;
use crate::telemetry::evidence::{Risk, ServerError};

/// What a `ReadyForQuery` says of the transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transaction {
    /// There is none.
    None,
    /// It is open.
    Open,
    /// It failed: all it takes is its end.
    Failed,
}

/// Who is told what passes.
pub(crate) trait Listener {
    /// The server has work from now on. `ending` if it is nothing that anybody could have given up: a ROLLBACK, a
    /// statement that is prepared, what has failed.
    fn busy(&mut self, ending: bool);
    /// A query was sent: a `Query`, an `Execute` or a `FunctionCall`. `first` if its request had none before.
    fn query(&mut self, first: bool);
    /// So many of the queries that were sent came to their end.
    fn finished(&mut self, queries: u32);
    /// The server has no work left.
    fn ready(&mut self, transaction: Transaction);
    /// The server reported an error.
    fn failed(&mut self, complaint: ServerError);
    /// What is asked with a text, which may be cut.
    fn text(&mut self, text: &[u8]) -> Asked;
    /// The time at which what is being read passed.
    fn now(&self) -> Nanos;
    /// A request with queries was answered, or will not be.
    fn answered(&mut self, answer: Answer);
    /// What would not be known if no more answers came.
    fn risks(&mut self, risk: Risk);
    /// The server said which of its processes it is.
    fn backend(&mut self, pid: i32);
}

/// What came of a request with queries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// How many requests were begun, as [`Listener::query`] was told, that have their answer now: mostly one.
    pub(crate) begun: u32,
    /// What its first query is.
    pub(crate) asked: Asked,
    pub(crate) sent_at: Nanos,
    /// How many rows came.
    pub(crate) rows: u64,
    pub(crate) error: Option<ErrorCode>,
    /// Whether anything of it may have been committed.
    pub(crate) committed: bool,
    /// Whether it is one whose success shows that an error before it was overcome.
    pub(crate) overcomes: bool,
}
