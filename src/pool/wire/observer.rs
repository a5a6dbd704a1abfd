//! Reads a connection's bytes as they pass, and writes its statistics.

use std::sync::{Arc, Weak};

use super::hash::FoldHasher;
use super::protocol::{
    LimitExceeded, ProtocolError, ProtocolHandler, ProtocolState, RequestOutcome, ServerGuard, StatementProblem,
};
use super::sql::{QueryRef, QueryTexts, summary};
use super::statements::StatementCaches;
use super::transaction::TransactionStatus;
use crate::labels::ConnectionState;
use crate::telemetry::clock::{Clock, Nanos, nanos};
use crate::telemetry::connection::{ConnectionStats, UnpackedState};
use crate::telemetry::evidence::{Risk, ServerError};
use crate::telemetry::ledger::{Ledger, Recorder};
use crate::telemetry::operations::OperationId;
use crate::telemetry::trace::{QueryEnd, QuerySpans, ServerAddress};
use crate::telemetry::wire::SessionStatus;

/// Observes the bytes that pass through a [`Tap`](super::Tap).
#[derive(Debug)]
pub(crate) struct ProtocolObserver {
    protocol: Reading,
    writer: StatsWriter,
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

/// Writes the statistics of one connection.
#[derive(Debug)]
struct StatsWriter {
    stats: Arc<ConnectionStats>,
    clock: Clock,
    /// Weak, so that the task of a closing connection does not keep a dropped pool's series alive.
    ledger: Weak<Ledger>,
    /// The packed state of the connection when it was last read, and the state unpacked from it.
    packed_state: u64,
    unpacked_state: UnpackedState,
    /// The time at which the bytes that are being read passed.
    at: Nanos,
    /// A cache of recent texts' references by the hash of the text: most texts are sent again and again.
    recent: [(u64, QueryRef); RECENT_TEXTS],
    /// The texts of queries, if spans are to show them.
    texts: Option<QueryTexts>,
    spans: QuerySpans,
    caches: Arc<StatementCaches>,
    /// The duration in nanoseconds from which on a query is logged; the maximum if none is.
    slow_query_nanos: u64,
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
        let spans = ledger.query_spans(server);
        let slow_query_nanos = ledger.limits().slow_query_threshold.map_or(u64::MAX, nanos);
        let (clock, ledger) = (ledger.clock().clone(), Arc::downgrade(ledger));
        let packed_state = stats.packed_state();
        let writer = StatsWriter {
            stats,
            clock,
            ledger,
            packed_state,
            unpacked_state: UnpackedState::unpack(packed_state),
            at: Nanos::ZERO,
            recent: [(0, QueryRef::OTHER); RECENT_TEXTS],
            texts: has_texts.then(QueryTexts::default),
            spans,
            caches,
            slow_query_nanos,
        };
        Self { protocol: Reading::Protocol(ProtocolState::new()), writer }
    }

    /// Reads bytes that were written to the server.
    pub(crate) fn sent(&mut self, bytes: &[u8]) {
        let Self { protocol, writer } = self;
        writer.at = writer.clock.now();
        if let Reading::Protocol(state) = protocol
            && let Err(error) = state.sent(bytes, writer)
        {
            protocol.lose(error, writer);
        }
        writer.stats.wire().count_sent(writer.unpacked_state.operation, bytes.len() as u64, writer.at);
    }

    /// Reads bytes that came from the server.
    ///
    /// # Errors
    ///
    /// Returns an error if the server sent more than it may. The connection must be closed then.
    pub(crate) fn received(&mut self, mut bytes: &[u8]) -> Result<(), LimitExceeded> {
        let Self { protocol, writer } = self;
        writer.at = writer.clock.now();
        writer.stats.wire().count_received(writer.unpacked_state.operation, bytes.len() as u64, writer.at);
        match protocol {
            Reading::Protocol(state) => match state.received(&mut bytes, writer) {
                Ok(()) => Ok(()),
                Err(ProtocolError::Limit(exceeded)) => Err(exceeded),
                Err(error) => {
                    protocol.lose(error, writer);
                    protocol.check_lengths(bytes)
                }
            },
            _ => protocol.check_lengths(bytes),
        }
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
        let Self { protocol, writer } = self;
        writer.at = writer.clock.now();
        if let Reading::Protocol(protocol) = protocol {
            protocol.end_unanswered(writer);
        }
        // While a connection is closing, the server may execute beyond the end of its driver.
        let closing = writer.stats.state().label == ConnectionState::Closing;
        if !closing && !writer.stats.wire().status().is_clean() {
            writer.refresh_state();
            writer.stats.wire().enter(SessionStatus::Idle, writer.user(), writer.clock.now());
        }
    }
}

impl StatsWriter {
    /// Reads the connection's state again, and so the operation that uses the connection now.
    fn refresh_state(&mut self) {
        let packed_state = self.stats.packed_state();
        if packed_state == self.packed_state {
            return;
        }
        self.packed_state = packed_state;
        let unpacked_state = UnpackedState::unpack(packed_state);
        if unpacked_state.label == ConnectionState::Used {
            self.unpacked_state = unpacked_state;
            if !unpacked_state.maintenance {
                self.stats.wire().begin_use(packed_state);
            }
        } else {
            // Late bytes still count for the last operation; the time counts for none.
            self.unpacked_state.label = unpacked_state.label;
        }
    }

    /// Returns the operation that the time counts for: the one that uses the connection.
    fn user(&self) -> Option<OperationId> {
        (self.unpacked_state.label == ConnectionState::Used).then_some(self.unpacked_state.operation)
    }

    /// Returns whether a caller uses the connection, rather than the pool itself.
    fn is_held(&self) -> bool {
        self.unpacked_state.label == ConnectionState::Used && !self.unpacked_state.maintenance
    }

    #[cold]
    fn protocol_error(&mut self, problem: &'static str) {
        self.stats.wire().enter(SessionStatus::Unread, None, self.at);
        self.spans.abandon();
        self.record(|recorder| recorder.wire_lost(problem));
    }

    fn record(&self, event: impl FnOnce(&Recorder)) {
        if let Some(ledger) = self.ledger.upgrade() {
            event(&Recorder::new(ledger));
        }
    }
}

impl ProtocolHandler for StatsWriter {
    fn busy(&mut self, ending: bool) {
        self.refresh_state();
        let status = if ending { SessionStatus::Ending } else { SessionStatus::Executing };
        self.stats.wire().enter(status, self.user(), self.at);
    }

    fn query_sent(&mut self, first: bool) {
        let is_held = self.is_held();
        if is_held {
            self.stats.wire().count_query(self.unpacked_state.operation);
        }
        if first {
            self.spans.begin(if is_held { self.stats.begin_request() } else { None });
        }
    }

    fn queries_finished(&mut self, queries: u32) {
        if self.is_held() {
            self.stats.wire().count_finished(self.unpacked_state.operation, queries.into());
        }
    }

    fn ready(&mut self, transaction: TransactionStatus) {
        let status = match transaction {
            TransactionStatus::Idle => SessionStatus::Idle,
            TransactionStatus::Open => SessionStatus::InTransaction,
            TransactionStatus::Failed => SessionStatus::FailedTransaction,
        };
        if status != self.stats.wire().status() {
            self.stats.wire().enter(status, self.user(), self.at);
        }
    }

    fn query_ref(&mut self, text: &[u8]) -> QueryRef {
        let hash = FoldHasher::of(text);
        let slot = &mut self.recent[usize::try_from(hash % RECENT_TEXTS as u64).unwrap_or(0)];
        if slot.0 != hash
            && let Some(ledger) = self.ledger.upgrade()
        {
            let query = Recorder::new(ledger).query(&summary(text));
            *slot = (hash, QueryRef { query, text: self.texts.as_mut().and_then(|texts| texts.intern(text)) });
        }
        slot.1
    }

    fn is_maintenance(&mut self) -> bool {
        self.refresh_state();
        !self.is_held()
    }

    fn now(&self) -> Nanos {
        self.at
    }

    fn request_ended(&mut self, outcome: RequestOutcome) {
        let RequestOutcome { started, query: query_ref, sent_at, rows, error, committed, clears_error } = outcome;
        let query = query_ref.query;
        let texts = &self.texts;
        let trace = self.spans.end(started, || QueryEnd {
            query,
            text: texts.as_ref().and_then(|texts| texts.get(query_ref)),
            rows,
            error,
        });
        if !self.is_held() {
            return;
        }
        let wire = self.stats.wire();
        wire.record_reply(committed, clears_error);
        let took = self.at.duration_since(sent_at);
        if nanos(took) >= self.slow_query_nanos {
            let (stats, operation) = (&self.stats, self.unpacked_state.operation);
            self.record(|recorder| recorder.query_slow(stats, operation, query, took, error));
        }
        match (error, trace) {
            (None, None) => wire.observe_query(query, nanos(took)),
            (None, Some(trace)) => {
                wire.observe_query(query, nanos(took));
                self.record(|recorder| recorder.query_traced(query, took, trace));
            }
            (Some(code), trace) => self.record(|recorder| recorder.query_failed(query, code, took, trace)),
        }
    }

    fn risk_changed(&mut self, risk: Risk) {
        self.stats.wire().set_risk(risk);
    }

    #[cold]
    fn server_error(&mut self, error: ServerError) {
        // The error may be unsolicited, and precede the first query of this use.
        self.refresh_state();
        if self.is_held() {
            self.stats.wire().record_error(error);
        }
        let ServerError { code, fatal, .. } = error;
        if fatal {
            self.stats.wire().end();
        }
        let unpacked_state = UnpackedState::unpack(self.stats.packed_state());
        match unpacked_state.label {
            // The pool receives the error of its own queries, and records it.
            ConnectionState::Creating | ConnectionState::Closing => {}
            ConnectionState::Used if unpacked_state.maintenance => {}
            ConnectionState::Used => {
                self.record(|recorder| recorder.query_error(unpacked_state.operation, code));
            }
            ConnectionState::Idle => self.record(|recorder| recorder.query_error(OperationId::OTHER, code)),
        }
    }

    fn statement_prepared(&mut self) {
        self.caches.prepared();
    }

    #[cold]
    fn statement_refused(&mut self, problem: StatementProblem) {
        if problem != StatementProblem::NameTaken {
            self.caches.invalidate(self.at);
        }
        if problem != StatementProblem::Stale {
            self.record(|recorder| recorder.log().statement_unknown(problem.code()));
        }
    }

    fn backend_pid(&mut self, pid: i32) {
        self.stats.wire().set_backend(pid);
    }
}

#[cfg(test)]
#[path = "observer_tests.rs"]
mod tests;
