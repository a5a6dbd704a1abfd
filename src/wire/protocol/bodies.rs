//! The bodies of messages, as far as they matter: texts, names, errors and the transaction status.

use super::ProtocolState;
use super::error_fields::ErrorFields;
use super::frames::ProtocolError;
use super::handler::{ProtocolHandler, StatementProblem};
use super::prepared::{Bind, Close, Parse};
use super::requests::RequestEnd;
use crate::telemetry::evidence::ServerError;
use crate::wire::sql::EffectScanner;
use crate::wire::transaction::TransactionStatus;

/// The body that is being read.
#[derive(Clone, Copy, Debug)]
pub(super) enum MessageBody {
    Ignored,
    /// The text of the last request in the queue, a `Query`. `rollback_match` is how many bytes of it match a ROLLBACK,
    /// until it is known whether it is one.
    Query {
        rollback_match: Option<usize>,
        scanner: EffectScanner,
    },
    Parse(Parse),
    Bind(Bind),
    Close(Close),
    /// The beginning of the tag in a `CommandComplete`.
    CommandTag {
        bytes: [u8; COMMAND_TAG_BYTES],
        length: usize,
    },
    /// The transaction status in a `ReadyForQuery`.
    ReadyForQuery,
    /// The process id in a `BackendKeyData`.
    BackendKey {
        pid: [u8; 4],
        length: usize,
    },
    /// The fields of an `ErrorResponse`.
    Error(ErrorFields),
    /// The name in a `ParameterStatus`.
    Parameter,
}

/// For a dropped transaction, tokio-postgres sends `ROLLBACK`, or this and the name of a savepoint.
const ROLLBACK_TO: &[u8] = b"ROLLBACK TO ";
const ROLLBACK_BYTES: usize = "ROLLBACK".len();
const ROLLBACK_TO_BYTES: usize = ROLLBACK_TO.len();

/// The command tags of a commit, of PREPARE TRANSACTION and of ROLLBACK PREPARED, each as long as needed to distinguish
/// it from other tags.
const COMMIT_TAGS: [&[u8]; 3] = [b"COMMIT", b"PREPARE T", b"ROLLBACK P"];
pub(super) const COMMAND_TAG_BYTES: usize = COMMIT_TAGS[2].len();

impl ProtocolState {
    pub(super) fn client_body<H: ProtocolHandler>(&mut self, part: &[u8], handler: &mut H) {
        let known = match &mut self.client_body {
            MessageBody::Query { .. } => return self.query_text(part, handler),
            MessageBody::Parse(parse) => {
                let part = parse.read(part);
                self.text.read(part, H::READS_TAIL) && parse.is_keyword_known()
            }
            MessageBody::Bind(bind) => bind.read(part),
            MessageBody::Close(close) => close.read(part),
            MessageBody::Ignored
            | MessageBody::ReadyForQuery
            | MessageBody::BackendKey { .. }
            | MessageBody::Error(_)
            | MessageBody::Parameter
            | MessageBody::CommandTag { .. } => return,
        };
        if !known && !self.client.is_body_read() {
            return;
        }
        self.client.skip_body();
        match std::mem::replace(&mut self.client_body, MessageBody::Ignored) {
            MessageBody::Parse(parse) => {
                let query = handler.query_ref(self.text.head(), self.text.tail());
                self.prepared.parse(&parse, query);
                if parse.is_named() {
                    handler.statement_prepared();
                }
            }
            MessageBody::Bind(bind) => {
                let statement = self.prepared.bind(&bind);
                let request = self.pending.open();
                request.effects.add(statement.effects);
                request.query.get_or_insert(statement.query);
                handler.query_begins(statement.query);
                request.bound = statement.generation;
            }
            MessageBody::Close(close) => self.prepared.close(&close),
            _ => {}
        }
    }

    /// Reports an error that concerns a prepared statement of the first request.
    #[cold]
    fn statement_error(&mut self, error: ServerError, handler: &mut impl ProtocolHandler) {
        let Some(request) = self.pending.front().filter(|request| request.end != RequestEnd::SingleMessage) else {
            return;
        };
        let problem = match error.code.as_str() {
            "0A000" if error.stale_plan => StatementProblem::Stale,
            "26000" => StatementProblem::Missing,
            // Else it is of a PREPARE in SQL.
            "42P05" if request.queries == 0 => StatementProblem::NameTaken,
            _ => return,
        };
        if problem == StatementProblem::NameTaken || self.prepared.refused(request.bound) {
            handler.statement_refused(problem);
        }
    }

    fn query_text<H: ProtocolHandler>(&mut self, part: &[u8], handler: &mut H) {
        let MessageBody::Query { rollback_match, scanner } = &mut self.client_body else { return };
        scanner.read(part);
        let collected = self.text.read(part, H::READS_TAIL);
        let mut rollback = None;
        if let Some(matched) = rollback_match {
            for byte in part {
                match ROLLBACK_TO.get(*matched) {
                    Some(expected) if expected == byte => *matched += 1,
                    // The name of the savepoint.
                    None if !matches!(byte, 0 | b';') => {}
                    _ => {
                        rollback = Some(*byte == 0 && matches!(*matched, ROLLBACK_BYTES | ROLLBACK_TO_BYTES));
                        break;
                    }
                }
            }
            if rollback.is_none() && self.client.is_body_read() {
                rollback = Some(false);
            }
        }
        if rollback.is_some() {
            *rollback_match = None;
        }
        let is_complete = (collected && scanner.is_done()) || self.client.is_body_read();
        if is_complete {
            let effects = scanner.effects();
            let query = handler.query_ref(self.text.head(), self.text.tail());
            handler.query_begins(query);
            self.client_body = MessageBody::Ignored;
            self.client.skip_body();
            if let Some(request) = self.pending.back_mut().filter(|last| last.end == RequestEnd::SingleMessage) {
                request.effects = effects;
                request.query = Some(query);
            }
        }
        let is_known = rollback.is_some();
        if let Some(rollback) = rollback {
            let last = self.pending.back_mut().filter(|last| rollback && last.end == RequestEnd::SingleMessage);
            if let Some(request) = last {
                self.work.mark_ending(request);
            }
            self.report_work(handler);
        }
        // The comment that names the query may be at its end.
        let is_sent = if H::READS_TAIL { is_complete } else { is_known };
        if is_sent {
            handler.query_sent(true);
        }
    }

    pub(super) fn server_body(&mut self, part: &[u8], handler: &mut impl ProtocolHandler) -> Result<(), ProtocolError> {
        match &mut self.server_body {
            MessageBody::ReadyForQuery => {
                let transaction = TransactionStatus::of_ready(part);
                let transaction = transaction.ok_or(ProtocolError::Unknown("unknown transaction status"))?;
                self.ready_for_query(transaction, handler)?;
            }
            MessageBody::BackendKey { pid, length } => {
                for byte in part {
                    if let Some(slot) = pid.get_mut(*length) {
                        *slot = *byte;
                        *length += 1;
                        if *length == 4 {
                            handler.backend_pid(i32::from_be_bytes(*pid));
                        }
                    }
                }
            }
            MessageBody::Error(fields) => {
                fields.read(part);
                if self.server.is_body_read() {
                    let error = fields.server_error();
                    handler.server_error(error);
                    // If the session ends with the error, the outcome of the request remains unknown.
                    if let Some(request) = self.pending.front_mut() {
                        request.failed = !error.fatal;
                        request.error = Some(error.code);
                    }
                    self.statement_error(error, handler);
                    self.mark_first_ending(handler);
                    self.report_risk(handler);
                }
            }
            MessageBody::Parameter => {
                if self.parameters.read(part).map_err(ProtocolError::Limit)? {
                    self.server.skip_body();
                }
            }
            MessageBody::CommandTag { bytes, length } => {
                for (slot, byte) in bytes[*length..].iter_mut().zip(part) {
                    *slot = *byte;
                    *length += 1;
                }
                if *length == COMMAND_TAG_BYTES || self.server.is_body_read() {
                    let committed = COMMIT_TAGS.iter().any(|tag| bytes.starts_with(tag));
                    self.server.skip_body();
                    if let Some(request) = self.pending.front_mut() {
                        request.committed |= committed;
                    }
                }
            }
            MessageBody::Ignored
            | MessageBody::Query { .. }
            | MessageBody::Parse(_)
            | MessageBody::Bind(_)
            | MessageBody::Close(_) => {}
        }
        Ok(())
    }
}
