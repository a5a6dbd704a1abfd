//! Reads the bytes of a connection to Redis as they pass, and writes its statistics.

use std::sync::Arc;

use super::commands::{COUNT, Command};
use super::session::SessionState;
use super::state::{CommandEnd, RespHandler, RespState};
use crate::telemetry::clock::Nanos;
use crate::telemetry::connection::ConnectionStats;
use crate::telemetry::evidence::{Risk, ServerError};
use crate::telemetry::ledger::Ledger;
use crate::telemetry::queries::QueryId;
use crate::telemetry::trace::{QueryEnd, ServerAddress};
use crate::telemetry::wire::SessionStatus;
use crate::wire::protocol::LimitExceeded;
use crate::wire::stats_writer::{RequestEnd, StatsWriter};
use crate::wire::tap::TapObserver;

/// The bytes that a server may send until the session has begun: a few short replies.
const MAX_STARTUP_BYTES: u64 = 1024 * 1024;

/// Observes the bytes that pass through a [`Tap`](super::super::Tap).
#[derive(Debug)]
pub(crate) struct RespObserver {
    /// `None` after the first protocol error.
    state: Option<RespState>,
    handler: Handler,
    /// The bytes of a value that is not complete.
    unfinished: u64,
    /// The limit of one answer; `None` for none.
    max_answer: Option<u64>,
}

#[derive(Debug)]
struct Handler {
    writer: StatsWriter,
    /// The ids of the names of commands, once they are known.
    ids: Box<[Option<QueryId>; COUNT]>,
}

impl RespObserver {
    /// Creates an observer for a connection that has passed no bytes. `max_answer` is the limit of one answer in bytes.
    pub(crate) fn new(
        stats: Arc<ConnectionStats>,
        ledger: &Arc<Ledger>,
        server: Option<Arc<ServerAddress>>,
        session: Arc<SessionState>,
        max_answer: Option<u64>,
    ) -> Self {
        let handler = Handler { writer: StatsWriter::new(stats, ledger, server), ids: Box::new([None; COUNT]) };
        Self { state: Some(RespState::new(session)), handler, unfinished: 0, max_answer }
    }

    #[cold]
    fn lose(&mut self, problem: &'static str) {
        self.state = None;
        self.handler.writer.protocol_error(problem);
    }

    /// Returns the limit of one answer now.
    fn limit(&self) -> Option<u64> {
        let startup = self.handler.writer.is_creating().then_some(MAX_STARTUP_BYTES);
        startup.or(self.max_answer)
    }
}

impl TapObserver for RespObserver {
    fn sent(&mut self, bytes: &[u8]) {
        self.handler.writer.read_clock();
        if let Some(state) = &mut self.state
            && let Err(problem) = state.sent(bytes, &mut self.handler)
        {
            self.lose(problem);
        }
        self.handler.writer.count_sent(bytes.len());
    }

    fn received(&mut self, bytes: &[u8]) -> Result<(), LimitExceeded> {
        self.handler.writer.read_clock();
        let receiver = self.handler.writer.receiver();
        let read = self.read(bytes);
        self.handler.writer.count_received(receiver, bytes.len());
        read
    }
}

impl RespObserver {
    fn read(&mut self, bytes: &[u8]) -> Result<(), LimitExceeded> {
        let Some(state) = &mut self.state else { return Ok(()) };
        let mut rest = bytes;
        match state.received(&mut rest, &mut self.handler) {
            // A part of these bytes may belong to the next value, so that a little more than the limit may pass.
            Ok(true) => self.unfinished = 0,
            Ok(false) => {
                self.unfinished = self.unfinished.saturating_add(bytes.len() as u64);
                if let Some(limit) = self.limit().filter(|limit| self.unfinished > *limit) {
                    return Err(LimitExceeded::Answer { limit });
                }
            }
            Err(problem) => self.lose(problem),
        }
        Ok(())
    }
}

/// Ends the time that the server works for the connection's current user: no more bytes will pass.
impl Drop for RespObserver {
    fn drop(&mut self) {
        self.handler.writer.read_clock();
        if let Some(state) = &mut self.state {
            state.end_unanswered(&mut self.handler);
        }
        self.handler.writer.end();
    }
}

impl Handler {
    fn id(&mut self, command: Option<Command>) -> QueryId {
        let Some(command) = command else { return QueryId::OTHER };
        let known = &mut self.ids[command.index()];
        if known.is_none() {
            *known = self.writer.query(|| command.name());
        }
        known.unwrap_or(QueryId::OTHER)
    }
}

impl RespHandler for Handler {
    fn busy(&mut self) {
        self.writer.busy(SessionStatus::Executing);
    }

    fn command_sent(&mut self, traced: bool) {
        self.writer.query_sent(true, traced);
    }

    fn command_ended(&mut self, CommandEnd { command, sent_at, error, committed, clears_error }: CommandEnd) {
        // Those of the pool itself have no name in the metrics.
        let query = if self.writer.counts_queries() { self.id(command) } else { QueryId::OTHER };
        self.writer.queries_finished(1);
        let end = RequestEnd { started: 1, query, sent_at, error, committed, clears_error };
        self.writer.request_ended(end, || QueryEnd { query, text: None, rows: 0, error });
    }

    fn ready(&mut self, status: SessionStatus) {
        self.writer.ready(status);
    }

    fn risk_changed(&mut self, risk: Risk) {
        self.writer.risk_changed(risk);
    }

    #[cold]
    fn server_error(&mut self, error: ServerError) {
        self.writer.server_error(error);
    }

    fn now(&self) -> Nanos {
        self.writer.now()
    }
}
