//! The state of PostgreSQL's frontend/backend protocol on one connection, derived from both directions.
//!
//! A client's request ends with a `Query`, a `FunctionCall` or a `Sync`, and the server answers each of these with one
//! `ReadyForQuery`. So the pending requests form a queue, and each `ReadyForQuery` removes the first. The exception is
//! COPY IN: while it lasts, the server ignores every `Sync`, so that the request that began it is answered after the
//! `Sync` behind the data. If the COPY fails before the server has read the `Sync` in front of the data, the server
//! answers both.
//!
//! Source: PostgreSQL's documentation, "Frontend/Backend Protocol", "Message Flow", and the server's `copyfromparse.c`
//! and `postgres.c` for what it leaves open.

mod authentication;
mod bodies;
#[cfg(any(test, fuzzing))]
pub(super) mod checker;
mod copy_in;
mod error_fields;
mod exchange;
mod frames;
mod guard;
mod handler;
mod limits;
mod prepared;
mod requests;
#[cfg(test)]
mod tests;
mod text;
mod whole;

pub(crate) use self::authentication::AuthenticationPolicy;
use self::bodies::{COMMAND_TAG_BYTES, MessageBody};
use self::error_fields::ErrorFields;
use self::exchange::Turn;
pub(crate) use self::frames::ProtocolError;
use self::frames::{FramePart, FrameReader};
pub(crate) use self::guard::{AnswerLimit, ServerGuard};
pub(crate) use self::handler::{ProtocolHandler, RequestOutcome, StatementProblem};
pub(crate) use self::limits::LimitExceeded;
use self::limits::{MAX_MAINTENANCE_MESSAGE_LENGTH, ReportedParameters};
use self::prepared::{Bind, Close, Parse, PreparedStatements};
use self::requests::{PendingRequest, PendingWork, RequestEnd, RequestQueue, RequestStart};
use self::text::QueryText;
use super::sql::{EffectScanner, StatementEffects};
use super::transaction::TransactionStatus;
use crate::labels::ErrorCode;
use crate::telemetry::clock::Nanos;
use crate::telemetry::evidence::Risk;

/// The longest startup message that the server accepts.
const MAX_STARTUP_LENGTH: u32 = 10_000 + 4;

/// The state of the protocol on one connection. Laid out in declaration order: a usual exchange reads and writes the two
/// cache lines up to the first field of `prepared`, and one statement of it.
#[derive(Debug)]
#[repr(C, align(128))]
pub(crate) struct ProtocolState {
    /// Requests that the server has not answered. Only the last may be open.
    pending: RequestQueue,
    work: PendingWork,
    turn: Turn,
    /// The status in the last `ReadyForQuery`.
    transaction: TransactionStatus,
    /// The state of the work that was last reported.
    reported_work: Option<bool>,
    /// The risk that was last reported.
    reported_risk: Risk,
    /// Whether the server has sent nothing since its last `ReadyForQuery`.
    silent_since_ready: bool,
    /// Whether the first pending request is a COPY IN that accepts data, the end of which the client has not sent.
    copying: bool,
    /// Whether the server's next byte is its answer to a request for encryption.
    negotiating: bool,
    prepared: PreparedStatements,
    client: FrameReader,
    server: FrameReader,
    /// The number of `Sync`s that count as ignored by the last COPY IN. If it fails, they may be answered after all.
    ignored_syncs: u32,
    /// The number of rows received since the last `ReadyForQuery`.
    rows: u64,
    client_body: MessageBody,
    server_body: MessageBody,
    parameters: ReportedParameters,
    /// The text that is being read.
    text: QueryText,
}

impl ProtocolState {
    /// Creates the state of a connection that has passed no bytes.
    pub(crate) fn new() -> Self {
        Self {
            client: FrameReader::from_client(),
            server: FrameReader::default(),
            client_body: MessageBody::Ignored,
            server_body: MessageBody::Ignored,
            pending: RequestQueue::default(),
            work: PendingWork::default(),
            turn: Turn::Either,
            copying: false,
            ignored_syncs: 0,
            silent_since_ready: false,
            negotiating: false,
            transaction: TransactionStatus::Idle,
            prepared: PreparedStatements::default(),
            parameters: ReportedParameters::default(),
            text: QueryText::default(),
            rows: 0,
            reported_work: None,
            reported_risk: Risk::None,
        }
    }

    /// Reads bytes that the client sent.
    ///
    /// # Errors
    ///
    /// Returns an error if the bytes do not follow the protocol. The state must not be used after that.
    #[inline(always)]
    pub(crate) fn sent(&mut self, bytes: &[u8], handler: &mut impl ProtocolHandler) -> Result<(), ProtocolError> {
        if self.usual_request(bytes, handler) { Ok(()) } else { self.requests(bytes, handler) }
    }

    /// Reads any bytes of the client.
    // Not inlined, so that the usual exchange stays short.
    #[inline(never)]
    fn requests(&mut self, mut bytes: &[u8], handler: &mut impl ProtocolHandler) -> Result<(), ProtocolError> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.turn = Turn::Either;
        if self.client.is_at_tag() {
            self.whole_requests(&mut bytes, handler);
        }
        if bytes.is_empty() {
            self.work.partial = false;
        } else {
            self.requests_in_parts(bytes, handler)?;
        }
        self.report_work(handler);
        self.report_risk(handler);
        Ok(())
    }

    /// Reads bytes of the client that begin or end within a message, or with a message that is read in the general way.
    // Not inlined, so that the shorter way stays short.
    #[inline(never)]
    fn requests_in_parts(&mut self, mut bytes: &[u8], handler: &mut impl ProtocolHandler) -> Result<(), ProtocolError> {
        while self.request_part(&mut bytes, handler)? {
            if self.client.is_at_tag() {
                self.more_whole_requests(&mut bytes, handler);
            }
        }
        // A message sent in part is work even if its kind is not known yet, since its rest is still to be sent. So is
        // anything in front of the startup message.
        self.work.partial = self.client.is_untagged()
            || matches!(self.client.partial_tag(), Some(b'Q' | b'F' | b'P' | b'B' | b'D' | b'E'));
        Ok(())
    }

    /// Reads a part of a message of the client. Returns `false` if more has to arrive first.
    fn request_part(&mut self, bytes: &mut &[u8], handler: &mut impl ProtocolHandler) -> Result<bool, ProtocolError> {
        match self.client.next(bytes)? {
            Some(FramePart::Header { tag, length } | FramePart::LargeHeader { tag, length }) => {
                self.client_message(tag, length, handler)?;
            }
            Some(FramePart::Body(part)) => self.client_body(part, handler),
            None => return Ok(false),
        }
        Ok(true)
    }

    /// Reads bytes that the server sent, and advances `bytes` past what was read.
    ///
    /// # Errors
    ///
    /// Returns an error if the bytes do not follow the protocol, or exceed a limit. After that, the state may only be
    /// turned into a guard.
    #[inline(always)]
    pub(crate) fn received(
        &mut self,
        bytes: &mut &[u8],
        handler: &mut impl ProtocolHandler,
    ) -> Result<(), ProtocolError> {
        if self.usual_answer(bytes, handler) {
            *bytes = &[];
            return Ok(());
        }
        self.answers(bytes, handler)?;
        self.update_turn();
        Ok(())
    }

    /// Reads any bytes of the server.
    #[inline(never)]
    fn answers(&mut self, bytes: &mut &[u8], handler: &mut impl ProtocolHandler) -> Result<(), ProtocolError> {
        if self.negotiating
            && let Some((answer, rest)) = bytes.split_first()
        {
            if !matches!(answer, b'S' | b'N') {
                return Err(ProtocolError::Unknown("unknown answer to the request for encryption"));
            }
            self.negotiating = false;
            *bytes = rest;
        }
        if self.server.is_at_tag() {
            self.whole_answers(bytes, handler)?;
        }
        if bytes.is_empty() { Ok(()) } else { self.answers_in_parts(bytes, handler) }
    }

    /// Reads bytes of the server like [`Self::requests_in_parts`].
    #[inline(never)]
    fn answers_in_parts(&mut self, bytes: &mut &[u8], handler: &mut impl ProtocolHandler) -> Result<(), ProtocolError> {
        while self.answer_part(bytes, handler)? {
            if self.server.is_at_tag() {
                self.more_whole_answers(bytes, handler)?;
            }
        }
        Ok(())
    }

    /// Reads a part of a message of the server. Returns `false` if more has to arrive first.
    fn answer_part(&mut self, bytes: &mut &[u8], handler: &mut impl ProtocolHandler) -> Result<bool, ProtocolError> {
        match self.server.next(bytes)? {
            Some(FramePart::Header { tag, length }) => self.server_message(tag, length, handler)?,
            Some(FramePart::LargeHeader { tag, length }) => {
                self.check_large(length, handler).map_err(ProtocolError::Limit)?;
                self.server_message(tag, length, handler)?;
            }
            Some(FramePart::Body(part)) => self.server_body(part, handler)?,
            None => return Ok(false),
        }
        Ok(true)
    }

    /// Returns whether the server has nothing to do for the client, and neither side is within a message.
    #[cfg_attr(not(feature = "proxy"), allow(dead_code, reason = "only a proxy ends sessions between messages"))]
    pub(crate) fn is_between_requests(&self) -> bool {
        self.pending.is_empty() && self.client.is_between_messages() && self.server.is_between_messages()
    }

    /// Returns whether the server is within a message.
    #[cfg_attr(not(feature = "proxy"), allow(dead_code, reason = "only a proxy ends sessions between messages"))]
    pub(crate) fn is_server_between_messages(&self) -> bool {
        self.server.is_between_messages()
    }

    /// Returns a guard that continues to read what the server sends.
    pub(super) fn into_guard(self) -> ServerGuard {
        ServerGuard::of_session(self.server, self.parameters)
    }

    /// Checks whether the server may send a large message now.
    #[cold]
    fn check_large(&self, length: u32, handler: &mut impl ProtocolHandler) -> Result<(), LimitExceeded> {
        if self.pending.is_empty() {
            return Err(LimitExceeded::Unrequested { length });
        }
        if length > MAX_MAINTENANCE_MESSAGE_LENGTH && handler.is_maintenance() {
            return Err(LimitExceeded::Maintenance { length });
        }
        Ok(())
    }

    fn client_message<H: ProtocolHandler>(
        &mut self,
        tag: u8,
        length: u32,
        handler: &mut H,
    ) -> Result<(), ProtocolError> {
        if self.has_too_many_requests::<H>() {
            return Err(ProtocolError::Unknown("too many requests without an answer"));
        }
        match (tag, length) {
            // A request for encryption consists of a code; the startup message has at least a user.
            (0, 8) if self.client.is_untagged() => self.negotiating = true,
            (0, 9..=MAX_STARTUP_LENGTH) if self.client.is_untagged() => {
                self.client.expect_tags();
                self.single_message(0, StatementEffects::NONE, handler)?;
            }
            // Reported once enough of its text has arrived to recognize a ROLLBACK.
            (b'Q', 5..) => {
                // The effects are unknown until the text has been read.
                self.push_single_message(1, StatementEffects::MULTIPLE, handler.now())?;
                self.text.clear();
                self.client_body = MessageBody::Query { rollback_match: Some(0), scanner: EffectScanner::new() };
                self.client.want_body();
            }
            (b'F', _) => self.single_message(1, StatementEffects::TRANSACTIONAL, handler)?,
            (b'P', _) => {
                self.extended_message(true, 0, handler);
                self.text.clear();
                self.client_body = MessageBody::Parse(Parse::new());
                self.client.want_body();
            }
            (b'B', _) => {
                self.extended_message(true, 0, handler);
                self.client_body = MessageBody::Bind(Bind::default());
                self.client.want_body();
            }
            (b'D', _) => self.extended_message(true, 0, handler),
            (b'E', _) => {
                self.extended_message(true, 1, handler);
                self.pending.open().add_execute(self.prepared.portal_effects());
            }
            // Closing a statement follows the work, and takes the server no time.
            (b'C', _) => {
                self.extended_message(false, 0, handler);
                self.client_body = MessageBody::Close(Close::default());
                self.client.want_body();
            }
            (b'S', 4) => self.sync(),
            (b'c', 4) | (b'f', _) => self.copy_ended(),
            (b'X', 4) => handler.terminated(),
            (b'd' | b'p', _) | (b'H', 4) => {}
            _ => return Err(ProtocolError::Unknown("unknown message from the client")),
        }
        Ok(())
    }

    #[inline]
    fn has_too_many_requests<H: ProtocolHandler>(&self) -> bool {
        H::MAX_REQUESTS != usize::MAX && self.pending.len() > H::MAX_REQUESTS
    }

    /// Handles a message of a request that ends with a `Sync`.
    fn extended_message(&mut self, work: bool, queries: u32, handler: &mut impl ProtocolHandler) {
        let (_, first) = self.extend_request(work, queries, handler.now());
        self.report_work(handler);
        if queries > 0 {
            handler.query_sent(first);
        }
    }

    /// Adds a message to the request that ends with a `Sync`. Returns the request, and whether this is its first query.
    #[inline]
    fn extend_request(&mut self, work: bool, queries: u32, sent_at: Nanos) -> (&mut PendingRequest, bool) {
        self.copy_interrupted();
        let request = self.pending.open();
        self.work.remove(request);
        if request.start == RequestStart::Empty {
            request.start = RequestStart::Message;
            request.sent_at = sent_at;
        }
        let first = request.queries == 0 && queries > 0;
        request.queries = request.queries.saturating_add(queries);
        request.started += u32::from(first);
        request.work |= work;
        // A client that prepares a statement does not wait for `ReadyForQuery`.
        request.ending = request.work && request.queries == 0;
        self.work.add(request);
        (request, first)
    }

    #[inline]
    fn sync(&mut self) {
        if self.copying {
            self.ignored_syncs = self.ignored_syncs.saturating_add(1);
        } else {
            self.pending.open().end = RequestEnd::Sync;
        }
    }

    /// Queues a request that is a single message and counts as work.
    fn push_single_message(
        &mut self,
        queries: u32,
        effects: StatementEffects,
        sent_at: Nanos,
    ) -> Result<(), ProtocolError> {
        self.copy_interrupted();
        if let Some(last) = self.pending.back().filter(|last| last.end == RequestEnd::Open) {
            if last.work {
                return Err(ProtocolError::Unknown("query inside another request"));
            }
            self.pending.pop_back();
        }
        let request = PendingRequest {
            start: RequestStart::Message,
            end: RequestEnd::SingleMessage,
            work: true,
            queries,
            started: queries,
            effects,
            sent_at,
            ..PendingRequest::default()
        };
        self.work.add(&request);
        self.pending.push_back(request);
        Ok(())
    }

    /// Queues a request that is a single message, and reports it.
    fn single_message(
        &mut self,
        queries: u32,
        effects: StatementEffects,
        handler: &mut impl ProtocolHandler,
    ) -> Result<(), ProtocolError> {
        self.push_single_message(queries, effects, handler.now())?;
        self.report_work(handler);
        if queries > 0 {
            handler.query_sent(true);
        }
        Ok(())
    }

    /// Reports that work began or changed its kind, if that was not reported before.
    #[inline(always)]
    fn report_work(&mut self, handler: &mut impl ProtocolHandler) {
        let state = self.work.state();
        if self.reported_work != state {
            self.report_changed_work(state, handler);
        }
    }

    #[inline(never)]
    fn report_changed_work(&mut self, state: Option<bool>, handler: &mut impl ProtocolHandler) {
        if let Some(ending) = state {
            self.reported_work = state;
            handler.busy(ending);
        }
    }

    /// Reports the end of the requests that will not be answered, since the connection has ended.
    pub(crate) fn end_unanswered(&mut self, handler: &mut impl ProtocolHandler) {
        while let Some(mut request) = self.pending.pop_front() {
            if request.queries > 0 {
                request.error = request.error.or(Some(ErrorCode::IO));
                handler.request_ended(request.outcome(std::mem::take(&mut self.rows), false, false));
            }
        }
    }

    /// Returns whether a `ReadyForQuery` answers a `Sync` that counted as ignored, and not the first request. `is_next` is
    /// whether that request has ended.
    #[cold]
    fn answers_ignored_sync(&mut self, is_next: bool) -> Result<bool, ProtocolError> {
        // A second `ReadyForQuery` in a row answers a `Sync` with nothing in front of it.
        let answers_ignored_sync = self.ignored_syncs > 0
            && self.silent_since_ready
            && self.pending.front().is_none_or(|request| request.start == RequestStart::Message);
        if !is_next || answers_ignored_sync {
            // A COPY IN failed before the server had read a `Sync` that counted as ignored.
            self.ignored_syncs =
                self.ignored_syncs.checked_sub(1).ok_or(ProtocolError::Unknown("ReadyForQuery without a request"))?;
        }
        Ok(answers_ignored_sync)
    }

    /// Reports the risk of the pending requests, if it has changed.
    #[inline(always)]
    fn report_risk<H: ProtocolHandler>(&mut self, handler: &mut H) {
        if !H::REPORTS_RISK {
            return;
        }
        let risk = match self.pending.front() {
            None => Risk::None,
            Some(_) if self.pending.has_others() => self.risk_of_all(),
            Some(request) if request.queries == 0 => Risk::None,
            Some(request) => request.effects.risk_of_one(request.failed, self.transaction),
        };
        self.report_changed_risk(risk, handler);
    }

    #[inline(always)]
    fn report_changed_risk(&mut self, risk: Risk, handler: &mut impl ProtocolHandler) {
        if risk != self.reported_risk {
            self.reported_risk = risk;
            handler.risk_changed(risk);
        }
    }

    #[inline(never)]
    fn risk_of_all(&self) -> Risk {
        let requests = self.pending.iter().filter(|request| request.queries > 0);
        let requests = requests.map(|request| (request.effects, request.failed));
        StatementEffects::risk_of(requests, self.transaction)
    }

    fn server_message(
        &mut self,
        tag: u8,
        length: u32,
        handler: &mut impl ProtocolHandler,
    ) -> Result<(), ProtocolError> {
        // Asynchronous messages do not show how far the server has got.
        if !matches!(tag, b'A' | b'N' | b'S' | b'Z') {
            self.server_speaks();
        }
        self.server_body = match (tag, length) {
            (b'Z', 5) => MessageBody::ReadyForQuery,
            (b'E', 5..) => MessageBody::Error(ErrorFields::default()),
            (b'K', 12..) => MessageBody::BackendKey { pid: [0; 4], length: 0 },
            (b'G', _) => {
                self.copy_started()?;
                MessageBody::Ignored
            }
            (b'c', 4) => {
                // The client has all data of a COPY OUT now, and may not wait for the end. (A `Query` may go on.)
                if self.pending.front().is_some_and(|request| request.end == RequestEnd::Sync && request.queries == 1) {
                    self.mark_first_ending(handler);
                }
                MessageBody::Ignored
            }
            (b'C', _) => {
                // A completed COPY has ignored every `Sync` that it will ignore.
                self.ignored_syncs = 0;
                if self.pending.front().is_some_and(PendingRequest::needs_command_tag) {
                    MessageBody::CommandTag { bytes: [0; COMMAND_TAG_BYTES], length: 0 }
                } else {
                    MessageBody::Ignored
                }
            }
            (b'D', _) => {
                self.rows += 1;
                MessageBody::Ignored
            }
            (b'S', _) => {
                self.parameters.begin(length).map_err(ProtocolError::Limit)?;
                MessageBody::Parameter
            }
            (b'd' | b'T' | b't' | b'R' | b'A' | b'N' | b'H' | b'V' | b'W' | b'v', _)
            | (b'1' | b'2' | b'3' | b'n' | b's' | b'I', 4) => MessageBody::Ignored,
            _ => return Err(ProtocolError::Unknown("unknown message from the server")),
        };
        if !matches!(self.server_body, MessageBody::Ignored) {
            self.server.want_body();
        }
        Ok(())
    }

    /// Records that the server has sent something for a request since its last `ReadyForQuery`.
    #[inline]
    fn server_speaks(&mut self) {
        if self.silent_since_ready {
            self.silent_since_ready = false;
            self.ignored_syncs = 0;
        }
    }

    /// Marks the first request as ending: only its `ReadyForQuery` is missing, and what the client has yet to send for
    /// it.
    fn mark_first_ending(&mut self, handler: &mut impl ProtocolHandler) {
        if let Some(request) = self.pending.front_mut().filter(|request| request.end != RequestEnd::Open) {
            self.work.mark_ending(request);
            self.report_work(handler);
        }
    }

    /// Handles a `ReadyForQuery`.
    #[inline(always)]
    fn ready_for_query(
        &mut self,
        transaction: TransactionStatus,
        handler: &mut impl ProtocolHandler,
    ) -> Result<(), ProtocolError> {
        let before = std::mem::replace(&mut self.transaction, transaction);
        self.copying = false;
        if matches!(self.client_body, MessageBody::Query { .. }) && self.pending.len() == 1 {
            return Err(ProtocolError::Unknown("answer to an incomplete query"));
        }
        let is_next = self.pending.front().is_some_and(|request| request.end != RequestEnd::Open);
        let answers_ignored_sync =
            if is_next && self.ignored_syncs == 0 { false } else { self.answers_ignored_sync(is_next)? };
        self.silent_since_ready = true;
        if !answers_ignored_sync && let Some(request) = self.pending.front() {
            self.work.remove(request);
            if request.queries > 0 {
                let PendingRequest { queries, effects, failed, committed, .. } = *request;
                handler.queries_finished(queries);
                let committed = effects.may_have_committed(before, self.transaction, failed, committed);
                let clears_error = !failed && !effects.only_roll_back(before);
                handler.request_ended(request.outcome(self.rows, committed, clears_error));
            }
            self.pending.pop_front();
        }
        self.rows = 0;
        if self.work.state().is_none() {
            self.reported_work = None;
            handler.ready(self.transaction);
        } else {
            self.report_work(handler);
        }
        self.report_risk(handler);
        Ok(())
    }
}
