//! Messages that have arrived whole, as nearly all do: read without keeping their state from one part to the next.
//!
//! This is a shorter way to the same state and the same reports. Whatever is unusual is left to the general way, which
//! reads messages in any parts: errors of either side, COPY, long names and texts, texts whose effects have to be scanned.
//! The tests compare both ways, as do the fuzzers.

use super::ProtocolState;
use super::frames::{ProtocolError, WholeMessage};
use super::handler::ProtocolHandler;
use super::prepared::{PreparedStatement, ShortName};
use super::requests::{PendingRequest, RequestEnd};
use super::text::MAX_HEAD_BYTES;
use crate::wire::sql::StatementEffects;
use crate::wire::transaction::TransactionStatus;

impl ProtocolState {
    /// Reads messages of the client up to the first that is left to the general way, and advances `bytes` past them.
    ///
    /// Work is reported at a query, and otherwise by the caller: what a `Parse` or `Bind` begins is usually followed by
    /// its query.
    #[inline]
    pub(super) fn whole_requests<H: ProtocolHandler>(&mut self, bytes: &mut &[u8], handler: &mut H) {
        while let Some(message) = WholeMessage::first(bytes) {
            if self.has_too_many_requests::<H>() {
                return;
            }
            *bytes = match message {
                WholeMessage { tag: b'B', body: [0, statement @ ..], rest } => {
                    match self.whole_bind(statement, rest, handler) {
                        Some(rest) => rest,
                        None => return,
                    }
                }
                WholeMessage { tag, body, rest } if self.whole_request(tag, body, handler) => rest,
                _ => return,
            };
        }
    }

    /// Reads a message of the client. Returns `false`, and changes nothing, if it is left to the general way.
    #[inline]
    fn whole_request<H: ProtocolHandler>(&mut self, tag: u8, body: &[u8], handler: &mut H) -> bool {
        match (tag, body) {
            (b'Q', [text @ .., 0]) => return self.whole_query(text, handler),
            (b'E', _) => {
                let effects = self.prepared.portal_effects();
                let (request, is_first) = self.extend_request(true, 1, handler.now());
                request.add_execute(effects);
                self.report_work(handler);
                handler.query_sent(is_first);
            }
            (b'S', []) => self.sync(),
            (b'P', _) => return self.whole_parse(body, handler),
            (b'D', _) => {
                self.extend_request(true, 0, handler.now());
            }
            (b'C', [kind, name @ ..]) => {
                let Some((name, _)) = ShortName::read(name) else { return false };
                self.extend_request(false, 0, handler.now());
                if *kind == b'S' {
                    self.prepared.close_short(name);
                }
            }
            (b'd', _) | (b'H', []) => {}
            _ => return false,
        }
        true
    }

    #[inline]
    fn whole_query<H: ProtocolHandler>(&mut self, text: &[u8], handler: &mut H) -> bool {
        // A ROLLBACK may be one that needs no cancellation.
        if text.len() > MAX_HEAD_BYTES || text.first() == Some(&b'R') {
            return false;
        }
        let Some(effects) = StatementEffects::of_single(text) else { return false };
        if self.copying || self.pending.back().is_some_and(|last| last.end == RequestEnd::Open) {
            return false;
        }
        let query = handler.query_ref(text, &[]);
        handler.query_begins(query);
        let request =
            PendingRequest { end: RequestEnd::SingleMessage, effects, query: Some(query), ..PendingRequest::NEW_QUERY };
        self.push_request(request, handler);
        true
    }

    #[inline]
    fn whole_parse<H: ProtocolHandler>(&mut self, body: &[u8], handler: &mut H) -> bool {
        let Some((name, rest)) = ShortName::read(body) else { return false };
        // Without types of parameters, which few clients give.
        let [text @ .., 0, 0, 0] = rest else { return false };
        if text.len() > MAX_HEAD_BYTES {
            return false;
        }
        let Some(effects) = StatementEffects::of_single(text) else { return false };
        self.extend_request(true, 0, handler.now());
        let query = handler.query_ref(text, &[]);
        self.prepared.parse_short(name, effects, query);
        if !name.is_empty() {
            handler.statement_prepared();
        }
        true
    }

    /// Reads a `Bind` to the portal without a name, and what usually follows it: an `Execute` of all rows, and a `Sync`.
    /// Returns what is behind; `None` if the message is left to the general way.
    #[inline]
    fn whole_bind<'a, H: ProtocolHandler>(
        &mut self,
        statement: &[u8],
        behind: &'a [u8],
        handler: &mut H,
    ) -> Option<&'a [u8]> {
        const EXECUTE_AND_SYNC: &[u8; 15] = b"E\0\0\0\x09\0\0\0\0\0S\0\0\0\x04";
        let (name, _) = ShortName::read(statement)?;
        let PreparedStatement { mut effects, query, generation } = self.prepared.bind_short(name);
        if let Some((EXECUTE_AND_SYNC, rest)) = behind.split_first_chunk()
            && !self.copying
            && self.pending.back().is_none_or(|last| last.end != RequestEnd::Open)
        {
            effects.add(self.prepared.portal_effects());
            handler.query_begins(query);
            self.push_request(
                PendingRequest {
                    end: RequestEnd::Sync,
                    effects,
                    query: Some(query),
                    bound: generation,
                    ..PendingRequest::NEW_QUERY
                },
                handler,
            );
            return Some(rest);
        }
        let (request, _) = self.extend_request(true, 0, handler.now());
        request.effects.add(effects);
        request.query.get_or_insert(query);
        request.bound = generation;
        handler.query_begins(query);
        Some(behind)
    }

    /// Queues a request with its only query, and reports it.
    #[inline]
    fn push_request<H: ProtocolHandler>(&mut self, request: PendingRequest, handler: &mut H) {
        self.work.add(&request);
        self.pending.push_back(PendingRequest { sent_at: handler.now(), ..request });
        self.report_work(handler);
        handler.query_sent(true);
    }

    /// Reads messages of the server up to the first that is left to the general way, and advances `bytes` past them.
    #[inline]
    pub(super) fn whole_answers<H: ProtocolHandler>(
        &mut self,
        bytes: &mut &[u8],
        handler: &mut H,
    ) -> Result<(), ProtocolError> {
        while let Some(WholeMessage { tag, body, rest }) = WholeMessage::first(bytes) {
            match (tag, body) {
                (b'D', _) => {
                    self.server_speaks();
                    self.rows += 1;
                }
                (b'Z', _) => {
                    let Some(transaction) = TransactionStatus::of_ready(body) else { return Ok(()) };
                    *bytes = rest;
                    self.ready_for_query(transaction, handler)?;
                    continue;
                }
                (b'C', _) => {
                    if self.pending.front().is_some_and(PendingRequest::needs_command_tag) {
                        return Ok(());
                    }
                    self.server_speaks();
                    // A completed COPY has ignored every `Sync` that it will ignore.
                    self.ignored_syncs = 0;
                }
                (b'T' | b't' | b'd', _) | (b'1' | b'2' | b'3' | b'n' | b's' | b'I', []) => self.server_speaks(),
                (b'A' | b'N', _) => {}
                _ => return Ok(()),
            }
            *bytes = rest;
        }
        Ok(())
    }
}
