//! Records what passes on one connection: when it is used, for which operation, and what the server answers.
//!
//! A proxy does not see when a client takes a connection from its pool and returns it. A connection counts as used while
//! the server has a request of it or a transaction is open, and as idle otherwise.
//!
//! A use begins before its operation is known, because the text follows the message's header, and the first statement is
//! often a BEGIN. Until then the use counts for the client's application name.

mod writer;

use std::sync::Arc;

use self::writer::SessionWriter;
use crate::labels::{ConnectionState, ErrorCode};
use crate::telemetry::clock::Nanos;
use crate::telemetry::connection::ConnectionStats;
use crate::telemetry::ledger::Recorder;
use crate::telemetry::operations::OperationId;
use crate::telemetry::trace::ServerAddress;
use crate::wire::{CommentNames, ProtocolState};

/// Observes one connection between a client and the server.
#[derive(Debug)]
pub(super) struct SessionObserver {
    /// `None` once the bytes were not understood.
    protocol: Option<Box<ProtocolState>>,
    writer: SessionWriter,
}

impl SessionObserver {
    /// Creates the observer of a connection whose start-up message has not passed.
    pub(super) fn new(
        stats: Arc<ConnectionStats>,
        recorder: Recorder,
        names: Arc<CommentNames>,
        fallback: OperationId,
        connecting_since: Nanos,
        server: Arc<ServerAddress>,
    ) -> Self {
        let writer = SessionWriter::new((stats, recorder), names, fallback, connecting_since, server);
        Self { protocol: Some(Box::new(ProtocolState::new())), writer }
    }

    /// Counts bytes that passed before.
    pub(super) fn count(&self, sent: usize, received: usize) {
        let (wire, at) = (self.writer.stats.wire(), self.writer.clock.now());
        wire.count_sent(self.writer.fallback, sent as u64, 0, at);
        wire.count_received(self.writer.fallback, received as u64, 0, at);
    }

    /// Reads no messages from now on.
    #[cold]
    pub(super) fn lose(&mut self, problem: &'static str) {
        if self.protocol.take().is_some() {
            self.writer.at = self.writer.clock.now();
            self.writer.lose(problem);
        }
    }

    /// Reads bytes that the client sent.
    pub(super) fn sent(&mut self, bytes: &[u8]) {
        let Self { protocol, writer } = self;
        writer.at = writer.clock.now();
        if let Some(state) = protocol
            && let Err(error) = state.sent(bytes, writer)
        {
            *protocol = None;
            writer.lose(error.problem());
        }
        writer.stats.wire().count_sent(writer.operation(), bytes.len() as u64, 0, writer.at);
    }

    /// Reads bytes that the server sent.
    pub(super) fn received(&mut self, mut bytes: &[u8]) {
        let Self { protocol, writer } = self;
        writer.at = writer.clock.now();
        writer.stats.wire().count_received(writer.operation(), bytes.len() as u64, 0, writer.at);
        if let Some(state) = protocol
            && let Err(error) = state.received(&mut bytes, writer)
        {
            *protocol = None;
            writer.lose(error.problem());
        }
    }

    /// Returns whether the session can be ended without the loss of work: the server has nothing to do for the client, no
    /// transaction is open, and no message is under way.
    pub(super) fn is_idle(&self) -> bool {
        let is_between = self.protocol.as_ref().is_some_and(|protocol| protocol.is_between_requests());
        is_between && self.writer.current_use.is_none() && self.is_established()
    }

    /// Returns whether a message of the proxy may follow what the server has sent.
    pub(super) fn is_server_between_messages(&self) -> bool {
        self.protocol.as_ref().is_some_and(|protocol| protocol.is_server_between_messages())
    }

    /// Returns whether the server was ready for a query.
    pub(super) fn is_established(&self) -> bool {
        self.writer.stats.state().label != ConnectionState::Creating
    }

    /// Returns whether the client has ended the session.
    pub(super) fn is_terminated(&self) -> bool {
        self.writer.is_terminated
    }
}

/// Ends the use in progress: no more bytes will pass.
impl Drop for SessionObserver {
    fn drop(&mut self) {
        let Self { protocol, writer } = self;
        writer.at = writer.clock.now();
        let status = writer.stats.wire().status();
        if let Some(protocol) = protocol {
            protocol.end_unanswered(writer);
        }
        writer.end(status);
    }
}

/// The server ended a session that had not started. Its own message may contain names, and is only forwarded.
#[derive(Debug, thiserror::Error)]
#[error("the server refused the client ({})", code.as_str())]
pub(super) struct RefusedByServer {
    pub(super) code: ErrorCode,
}
