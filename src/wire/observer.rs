//! Reads the bytes of a connection to PostgreSQL as they pass, and writes its statistics.

use std::sync::Arc;

use super::hash::FoldHasher;
use super::protocol::{
    LimitExceeded, ProtocolError, ProtocolHandler, ProtocolState, RequestOutcome, ServerGuard, StatementProblem,
};
use super::sql::{QueryRef, QueryTexts, summary};
use super::statements::StatementCaches;
use super::stats_writer::{RequestEnd, StatsWriter};
use super::transaction::TransactionStatus;
use crate::telemetry::clock::Nanos;
use crate::telemetry::connection::ConnectionStats;
use crate::telemetry::evidence::{Risk, ServerError};
use crate::telemetry::ledger::Ledger;
use crate::telemetry::trace::{QueryEnd, ServerAddress};
use crate::telemetry::wire::SessionStatus;

/// Observes the bytes that pass through a [`Tap`](super::Tap).
#[derive(Debug)]
pub(crate) struct ProtocolObserver {
    protocol: Reading,
    handler: Handler,
}

/// What reads the bytes.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "the large variant is the usual one, and the observer is in a box")]
enum Reading {
    Protocol(ProtocolState),
    /// After the first protocol error. Only the lengths of the server's messages are read.
    Lengths(Box<ServerGuard>),
    /// Nothing, since the connection is being closed.
    Ended,
}

/// Follows PostgreSQL's requests and answers.
#[derive(Debug)]
struct Handler {
    writer: StatsWriter,
    /// A cache of recent texts' references by the hash of the text: most texts are sent again and again.
    recent: [(u64, QueryRef); RECENT_TEXTS],
    /// The texts of queries, if spans are to show them.
    texts: Option<QueryTexts>,
    caches: Arc<StatementCaches>,
}

const RECENT_TEXTS: usize = 32;

impl ProtocolObserver {
    /// Creates an observer for a connection that has passed no bytes. `has_texts` is whether spans show query texts.
    pub(crate) fn new(
        stats: Arc<ConnectionStats>,
        ledger: &Arc<Ledger>,
        server: Option<Arc<ServerAddress>>,
        has_texts: bool,
        caches: Arc<StatementCaches>,
    ) -> Self {
        let writer = StatsWriter::new(stats, ledger, server);
        let recent = [(0, QueryRef::OTHER); RECENT_TEXTS];
        let handler = Handler { writer, recent, texts: has_texts.then(QueryTexts::default), caches };
        Self { protocol: Reading::Protocol(ProtocolState::new()), handler }
    }

    /// Reads bytes that were written to the server.
    // Not inlined, so that `crates/instructions` can count it.
    #[inline(never)]
    pub(crate) fn sent(&mut self, bytes: &[u8]) {
        let Self { protocol, handler } = self;
        handler.writer.read_clock();
        if let Reading::Protocol(state) = protocol
            && let Err(error) = state.sent(bytes, handler)
        {
            protocol.lose(error, &mut handler.writer);
        }
        handler.writer.count_sent(bytes.len());
    }

    /// Reads bytes that came from the server.
    ///
    /// # Errors
    ///
    /// Returns an error if the server sent more than it may. The connection must be closed then.
    #[inline(never)]
    pub(crate) fn received(&mut self, mut bytes: &[u8]) -> Result<(), LimitExceeded> {
        let Self { protocol, handler } = self;
        handler.writer.read_clock();
        let (receiver, length) = (handler.writer.receiver(), bytes.len());
        let read = match protocol {
            Reading::Protocol(state) => match state.received(&mut bytes, handler) {
                Ok(()) => Ok(()),
                Err(ProtocolError::Limit(exceeded)) => Err(exceeded),
                Err(error) => {
                    protocol.lose(error, &mut handler.writer);
                    protocol.check_lengths(bytes)
                }
            },
            _ => protocol.check_lengths(bytes),
        };
        handler.writer.count_received(receiver, length);
        read
    }
}

impl Reading {
    /// Reads only lengths from now on.
    #[cold]
    fn lose(&mut self, error: ProtocolError, writer: &mut StatsWriter) {
        if let Self::Protocol(state) = std::mem::replace(self, Self::Ended) {
            *self = Self::Lengths(Box::new(state.into_guard()));
        }
        let problem = match error {
            ProtocolError::Unknown(problem) => problem,
            ProtocolError::Limit(_) => "message length out of range",
        };
        writer.protocol_error(problem);
    }

    #[cold]
    fn check_lengths(&mut self, bytes: &[u8]) -> Result<(), LimitExceeded> {
        match self {
            Self::Lengths(guard) => guard.received(bytes).map(drop),
            Self::Protocol(_) | Self::Ended => Ok(()),
        }
    }
}

/// Ends the time that the server works for the connection's current user: no more bytes will pass.
impl Drop for ProtocolObserver {
    fn drop(&mut self) {
        let Self { protocol, handler } = self;
        handler.writer.read_clock();
        if let Reading::Protocol(protocol) = protocol {
            protocol.end_unanswered(handler);
        }
        handler.writer.end();
    }
}

impl Handler {
    #[cold]
    fn new_query_ref(&mut self, text: &[u8], hash: u64) -> QueryRef {
        let Some(query) = self.writer.query(|| summary(text)) else { return QueryRef::OTHER };
        let text = self.texts.as_mut().and_then(|texts| texts.intern(text));
        let query = QueryRef { query, text, ..QueryRef::OTHER };
        self.recent[slot(hash)] = (hash, query);
        query
    }
}

/// Returns the position of a text in the cache of recent ones.
#[inline]
fn slot(hash: u64) -> usize {
    usize::try_from(hash % RECENT_TEXTS as u64).unwrap_or(0)
}

impl ProtocolHandler for Handler {
    #[inline(always)]
    fn busy(&mut self, ending: bool) {
        self.writer.busy(if ending { SessionStatus::Ending } else { SessionStatus::Executing });
    }

    #[inline(always)]
    fn query_sent(&mut self, first: bool) {
        self.writer.query_sent(first, true);
    }

    #[inline(always)]
    fn queries_finished(&mut self, queries: u32) {
        self.writer.queries_finished(queries);
    }

    #[inline(always)]
    fn ready(&mut self, transaction: TransactionStatus) {
        self.writer.ready(match transaction {
            TransactionStatus::Idle => SessionStatus::Idle,
            TransactionStatus::Open => SessionStatus::InTransaction,
            TransactionStatus::Failed => SessionStatus::FailedTransaction,
        });
    }

    #[inline]
    fn query_ref(&mut self, text: &[u8], _: &[u8]) -> QueryRef {
        let hash = FoldHasher::of(text);
        let slot = slot(hash);
        if self.recent[slot].0 == hash { self.recent[slot].1 } else { self.new_query_ref(text, hash) }
    }

    fn is_maintenance(&mut self) -> bool {
        self.writer.is_maintenance()
    }

    #[inline(always)]
    fn now(&self) -> Nanos {
        self.writer.now()
    }

    #[inline(always)]
    fn request_ended(&mut self, outcome: RequestOutcome) {
        let RequestOutcome { started, query: query_ref, sent_at, rows, error, committed, clears_error } = outcome;
        let (query, texts) = (query_ref.query, &self.texts);
        let end = RequestEnd { started, query, sent_at, error, committed, clears_error };
        self.writer.request_ended(end, || QueryEnd {
            query,
            text: texts.as_ref().and_then(|texts| texts.get(query_ref)),
            rows,
            error,
        });
    }

    #[inline(always)]
    fn risk_changed(&mut self, risk: Risk) {
        self.writer.risk_changed(risk);
    }

    #[cold]
    fn server_error(&mut self, error: ServerError) {
        self.writer.server_error(error);
    }

    fn statement_prepared(&mut self) {
        self.caches.prepared();
    }

    #[cold]
    fn statement_refused(&mut self, problem: StatementProblem) {
        if problem != StatementProblem::NameTaken {
            self.caches.invalidate(self.writer.now());
        }
        if problem != StatementProblem::Stale {
            self.writer.record(|recorder| recorder.log().statement_unknown(problem.code()));
        }
    }

    fn backend_pid(&mut self, pid: i32) {
        self.writer.set_backend(pid);
    }
}

#[cfg(test)]
#[path = "observer_tests.rs"]
mod tests;
