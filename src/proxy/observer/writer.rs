//! Writes what an observer has read to the statistics of its connection.

use std::sync::Arc;

use crate::labels::{ConnectionState, Dirt};
use crate::telemetry::clock::{Clock, Nanos, nanos};
use crate::telemetry::connection::ConnectionStats;
use crate::telemetry::evidence::{Risk, ServerError};
use crate::telemetry::ledger::Recorder;
use crate::telemetry::operations::OperationId;
use crate::telemetry::queries::QueryId;
use crate::telemetry::trace::{QueryEnd, QuerySpans, SampledSpan, ServerAddress, TraceContext};
use crate::telemetry::wire::SessionStatus;
use crate::wire::{
    CommentNames, FoldHasher, ProtocolHandler, QueryRef, RequestOutcome, StatementProblem, TransactionStatus,
    comment_of, summary,
};

/// The first words of statements that do not show what a transaction is for.
const CONTROL: [&str; 16] = [
    "",
    "ABORT",
    "BEGIN",
    "CLOSE",
    "COMMIT",
    "DEALLOCATE",
    "DISCARD",
    "END",
    "RELEASE",
    "RESET",
    "ROLLBACK",
    "SAVEPOINT",
    "SET",
    "SHOW",
    "START",
    "UNLISTEN",
];

/// Writes the statistics of one connection.
#[derive(Debug)]
pub(super) struct SessionWriter {
    pub(super) stats: Arc<ConnectionStats>,
    recorder: Recorder,
    pub(super) clock: Clock,
    names: Arc<CommentNames>,
    /// When connecting to the server began.
    connecting_since: Nanos,
    /// The operation of a use whose own is not known.
    pub(super) fallback: OperationId,
    pub(super) current_use: Option<Use>,
    /// Queries that were sent for other operations of the use, before its own was known, and have not ended.
    earlier: Vec<(OperationId, u32)>,
    /// The time at which the bytes that are being read passed.
    pub(super) at: Nanos,
    /// The texts that were read last, by their hash: most are sent again and again.
    recent: [(u64, QueryRef); RECENT_TEXTS],
    /// The operation that the last use without a comment was named after: that of this query.
    named_after: (QueryId, OperationId),
    /// The client's span that the last text names.
    client_span: Option<TraceContext>,
    spans: QuerySpans,
    slow_query_nanos: u64,
    /// Whether the client has ended the session.
    pub(super) is_terminated: bool,
    /// Whether the server has reported that it ends the session.
    is_ended: bool,
}

const RECENT_TEXTS: usize = 8;

/// A use of the connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Use {
    began: Nanos,
    operation: OperationId,
    named_by: NamedBy,
    /// Queries that were sent for the operation and have not ended.
    unfinished: u32,
}

/// What an operation is named after.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum NamedBy {
    /// The client's application name.
    Application,
    /// The summary of the first statement.
    Summary,
    /// A statement's comment.
    Comment,
}

impl SessionWriter {
    /// Creates the writer of a connection whose start-up message has not passed.
    pub(super) fn new(
        (stats, recorder): (Arc<ConnectionStats>, Recorder),
        names: Arc<CommentNames>,
        fallback: OperationId,
        connecting_since: Nanos,
        server: Arc<ServerAddress>,
    ) -> Self {
        let ledger = recorder.ledger();
        Self {
            clock: ledger.clock().clone(),
            spans: ledger.query_spans(Some(server)),
            slow_query_nanos: ledger.limits().slow_query_threshold.map_or(u64::MAX, nanos),
            stats,
            recorder,
            names,
            connecting_since,
            fallback,
            current_use: None,
            earlier: Vec::new(),
            at: Nanos::ZERO,
            recent: [(0, QueryRef::OTHER); RECENT_TEXTS],
            named_after: (QueryId::OTHER, OperationId::OTHER),
            client_span: None,
            is_terminated: false,
            is_ended: false,
        }
    }

    /// Ends what is in progress: no more bytes will pass. `status` is that before the unanswered requests were ended.
    pub(super) fn end(&mut self, status: SessionStatus) {
        let dirt = match status {
            SessionStatus::Executing | SessionStatus::Ending => Some(Dirt::Busy),
            SessionStatus::InTransaction => Some(Dirt::InTransaction),
            SessionStatus::FailedTransaction => Some(Dirt::FailedTransaction),
            SessionStatus::Unread | SessionStatus::Idle => None,
        };
        if let (Some(dirt), Some(current)) = (dirt, self.current_use)
            && !self.is_ended
        {
            self.recorder.session_dirty(current.operation, dirt);
        }
        self.end_use();
        if status != SessionStatus::Unread {
            self.stats.wire().enter(SessionStatus::Idle, None, self.at);
        }
    }

    /// Returns the operation that bytes count for.
    pub(super) fn operation(&self) -> OperationId {
        self.current_use.map_or(self.fallback, |current| current.operation)
    }

    #[cold]
    pub(super) fn lose(&mut self, problem: &'static str) {
        self.end_use();
        self.stats.wire().enter(SessionStatus::Unread, None, self.at);
        self.spans.abandon();
        if self.stats.state().label == ConnectionState::Creating {
            // Whether the server has accepted the client cannot be seen any more.
            self.establish();
        }
        self.recorder.wire_lost(problem);
    }

    fn establish(&mut self) {
        let took = self.at.duration_since(self.connecting_since);
        self.recorder.connection_created(&self.stats, took);
        self.recorder.connection_idle(&self.stats, self.at);
    }

    /// Begins a use, unless there is one.
    fn begin_use(&mut self) {
        if self.current_use.is_some() || self.stats.state().label == ConnectionState::Creating {
            return;
        }
        let (operation, began) = (self.fallback, self.at);
        self.current_use = Some(Use { began, operation, named_by: NamedBy::Application, unfinished: 0 });
        self.stats.set_span(None);
        self.stats.set_used(operation, began);
        self.stats.wire().begin_use(self.stats.packed_state());
    }

    fn end_use(&mut self) {
        let Some(Use { began, operation, .. }) = self.current_use.take() else { return };
        self.earlier.clear();
        self.client_span = None;
        self.stats.wire().enter(SessionStatus::Idle, None, self.at);
        let since = self.stats.state().since;
        // The state changes first, so that a concurrent reader does not count the time twice.
        self.stats.set_used(operation, self.at);
        self.stats.count_named_use(operation, self.at.since(since), self.at.since(began));
        self.recorder.record_use_exemplar(&self.stats, self.at.since(began));
        self.recorder.connection_idle(&self.stats, self.at);
    }

    /// Names the use in progress, unless it has a better name.
    fn name_use(&mut self, operation: OperationId, named_by: NamedBy) {
        let Some(current) = &mut self.current_use else { return };
        if named_by <= current.named_by {
            return;
        }
        current.named_by = named_by;
        if current.operation == operation {
            return;
        }
        if current.unfinished > 0 {
            // At most two: a use is named at most twice.
            self.earlier.push((current.operation, current.unfinished));
            current.unfinished = 0;
        }
        current.operation = operation;
        self.stats.set_operation(operation, self.at);
        self.stats.wire().enter(self.stats.wire().status(), Some(operation), self.at);
    }

    /// Returns what a text refers to, and sets the client's span that its comment names.
    #[cold]
    fn read_text(&mut self, text: &[u8], tail: &[u8]) -> QueryRef {
        let comment = comment_of(text, tail);
        let operation = comment.and_then(|comment| self.names.name_of(comment));
        self.client_span = comment.and_then(|comment| comment.sampled_span());
        QueryRef {
            query: self.recorder.query(&summary(text)),
            operation: operation.map_or(OperationId::OTHER, |name| self.recorder.operation(&name)),
            ..QueryRef::OTHER
        }
    }
}

impl ProtocolHandler for SessionWriter {
    const READS_TAIL: bool = true;
    const REPORTS_RISK: bool = false;
    const MAX_REQUESTS: usize = 16_384;

    fn busy(&mut self, ending: bool) {
        self.begin_use();
        let status = if ending { SessionStatus::Ending } else { SessionStatus::Executing };
        let operation = self.current_use.map(|current| current.operation);
        self.stats.wire().enter(status, operation, self.at);
    }

    fn query_sent(&mut self, first: bool) {
        let operation = match &mut self.current_use {
            Some(current) => {
                current.unfinished += 1;
                current.operation
            }
            None => self.fallback,
        };
        self.stats.wire().count_queries(operation, 1);
        if first {
            self.spans.begin();
            if let Some(span) = self.client_span.take().and_then(SampledSpan::remote) {
                self.stats.set_span(Some(span));
                if let Some(parent) = self.stats.begin_request() {
                    self.spans.open(&parent);
                }
            }
        }
    }

    fn queries_finished(&mut self, queries: u32) {
        let mut left = queries;
        for (operation, unfinished) in &mut self.earlier {
            let finished = left.min(*unfinished);
            self.stats.wire().count_finished(*operation, finished.into());
            *unfinished -= finished;
            left -= finished;
        }
        let operation = self.operation();
        if let Some(current) = &mut self.current_use {
            current.unfinished = current.unfinished.saturating_sub(left);
        }
        self.stats.wire().count_finished(operation, left.into());
    }

    fn ready(&mut self, transaction: TransactionStatus) {
        if self.stats.state().label == ConnectionState::Creating {
            self.establish();
        }
        let status = match transaction {
            TransactionStatus::Idle => {
                self.end_use();
                SessionStatus::Idle
            }
            TransactionStatus::Open => SessionStatus::InTransaction,
            TransactionStatus::Failed => SessionStatus::FailedTransaction,
        };
        if status != self.stats.wire().status() {
            let operation = self.current_use.map(|current| current.operation);
            self.stats.wire().enter(status, operation, self.at);
        }
    }

    fn query_ref(&mut self, text: &[u8], tail: &[u8]) -> QueryRef {
        let hash = FoldHasher::of(text);
        let slot = usize::try_from(hash % RECENT_TEXTS as u64).unwrap_or(0);
        if tail.is_empty() && self.recent[slot].0 == hash {
            return self.recent[slot].1;
        }
        let query = self.read_text(text, tail);
        // Another text may have the same beginning. One with a client's span is not sent again.
        if tail.is_empty() && self.client_span.is_none() {
            self.recent[slot] = (hash, query);
        }
        query
    }

    fn query_begins(&mut self, query: QueryRef) {
        self.begin_use();
        if query.operation != OperationId::OTHER {
            self.name_use(query.operation, NamedBy::Comment);
            return;
        }
        let is_unnamed = self.current_use.is_some_and(|current| current.named_by == NamedBy::Application);
        if is_unnamed && query.query != QueryId::OTHER {
            if query.query != self.named_after.0 {
                let summary = self.recorder.ledger().summary(query.query);
                let first = summary.split(' ').next().unwrap_or_default();
                if CONTROL.contains(&first) {
                    return;
                }
                self.named_after = (query.query, self.recorder.operation(summary));
            }
            self.name_use(self.named_after.1, NamedBy::Summary);
        }
    }

    fn terminated(&mut self) {
        self.is_terminated = true;
    }

    fn is_maintenance(&mut self) -> bool {
        false
    }

    fn now(&self) -> Nanos {
        self.at
    }

    fn request_ended(&mut self, outcome: RequestOutcome) {
        let RequestOutcome { started, query: QueryRef { query, .. }, sent_at, rows, error, .. } = outcome;
        let trace = self.spans.end(started, || QueryEnd { query, text: None, rows, error });
        let took = self.at.duration_since(sent_at);
        if nanos(took) >= self.slow_query_nanos {
            self.recorder.query_slow(&self.stats, self.operation(), query, took, error);
        }
        match (error, trace) {
            (None, trace) => {
                self.stats.wire().observe_query(query, nanos(took));
                if let Some(trace) = trace {
                    self.recorder.query_traced(query, took, trace);
                }
            }
            (Some(code), trace) => self.recorder.query_failed(query, code, took, trace),
        }
    }

    fn risk_changed(&mut self, _: Risk) {}

    #[cold]
    fn server_error(&mut self, error: ServerError) {
        let ServerError { code, fatal, .. } = error;
        if fatal {
            self.is_ended = true;
            self.stats.wire().end();
        }
        self.recorder.query_error(self.operation(), code);
    }

    fn statement_prepared(&mut self) {}

    fn statement_refused(&mut self, _: StatementProblem) {}

    fn backend_pid(&mut self, pid: i32) {
        self.stats.wire().set_backend(pid);
    }
}
