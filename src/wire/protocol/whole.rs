//! Messages that have arrived whole, as nearly all do: read without keeping their state from one part to the next.
//!
//! This is a shorter way to the same state and the same reports. Whatever is unusual is left to the general way, which
//! reads messages in any parts: errors of either side, COPY, long names and texts, texts whose effects have to be scanned.
//! The tests compare both ways, as do the fuzzers.

use super::ProtocolState;
use super::frames::{ProtocolError, WholeMessage};
use super::handler::ProtocolHandler;
use super::prepared::ShortName;
use super::requests::{PendingRequest, RequestEnd, RequestStart, open_request};
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
            if self.has_too_many_requests::<H>() || !self.whole_request(message, handler) {
                return;
            }
            *bytes = message.rest;
        }
    }

    /// Reads a message of the client. Returns `false`, and changes nothing, if it is left to the general way.
    #[inline]
    fn whole_request<H: ProtocolHandler>(
        &mut self,
        WholeMessage { tag, body, .. }: WholeMessage<'_>,
        handler: &mut H,
    ) -> bool {
        match (tag, body) {
            (b'Q', [text @ .., 0]) => return self.whole_query(text, handler),
            (b'B', [0, statement @ ..]) => return self.whole_bind(statement, handler),
            (b'E', _) => {
                let first = self.extend_request(true, 1, handler.now());
                self.report_work(handler);
                handler.query_sent(first);
                let request = open_request(&mut self.pending);
                if request.effects.is_empty() {
                    request.effects = StatementEffects::TRANSACTIONAL;
                }
                request.effects.add(self.prepared.portal_effects());
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
        let request = PendingRequest {
            start: RequestStart::Message,
            end: RequestEnd::SingleMessage,
            work: true,
            queries: 1,
            started: 1,
            effects,
            query: Some(query),
            sent_at: handler.now(),
            ..PendingRequest::default()
        };
        self.work.add(&request);
        self.pending.push_back(request);
        self.report_work(handler);
        handler.query_sent(true);
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

    /// Reads a `Bind` to the portal without a name.
    #[inline]
    fn whole_bind<H: ProtocolHandler>(&mut self, statement: &[u8], handler: &mut H) -> bool {
        let Some((name, _)) = ShortName::read(statement) else { return false };
        self.extend_request(true, 0, handler.now());
        let statement = self.prepared.bind_short(name);
        let request = open_request(&mut self.pending);
        request.effects.add(statement.effects);
        request.query.get_or_insert(statement.query);
        request.bound = statement.generation;
        handler.query_begins(statement.query);
        true
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
