//! Messages that have arrived whole, as nearly all do: read without keeping their state from one part to the next.
//!
//! This is a shorter way to the same state and the same reports. Whatever is unusual is left to the general way, which
//! reads messages in any parts: errors of either side, COPY, long names and texts, texts whose effects have to be scanned.
//! The tests compare both ways, as do the fuzzers.

use super::ProtocolState;
use super::exchange::is_execute_and_sync;
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
    #[inline(always)]
    pub(super) fn whole_requests<H: ProtocolHandler>(&mut self, bytes: &mut &[u8], handler: &mut H) {
        let mut rest = *bytes;
        while let Some(message) = WholeMessage::first(rest) {
            if self.has_too_many_requests::<H>() {
                break;
            }
            let behind = match message {
                WholeMessage { tag: b'Q', body: [text @ .., 0], rest } => {
                    self.queue_whole_query(text, handler).then_some(rest)
                }
                WholeMessage { tag: b'B', body: [0, statement @ ..], rest } => {
                    self.whole_bind(statement, rest, handler)
                }
                WholeMessage { tag, body, rest } => self.whole_request(tag, body, handler).then_some(rest),
            };
            let Some(behind) = behind else { break };
            rest = behind;
        }
        *bytes = rest;
    }

    /// The same behind a message that was read in the general way.
    #[inline(never)]
    pub(super) fn more_whole_requests<H: ProtocolHandler>(&mut self, bytes: &mut &[u8], handler: &mut H) {
        self.whole_requests(bytes, handler);
    }

    /// Reads another message of the client. Returns `false`, and changes nothing, if it is left to the general way.
    #[inline(never)]
    fn whole_request<H: ProtocolHandler>(&mut self, tag: u8, body: &[u8], handler: &mut H) -> bool {
        match (tag, body) {
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

    #[inline(always)]
    fn queue_whole_query<H: ProtocolHandler>(&mut self, text: &[u8], handler: &mut H) -> bool {
        if self.copying || self.pending.back().is_some_and(|last| last.end == RequestEnd::Open) {
            return false;
        }
        let Some(effects) = Self::whole_effects(text) else { return false };
        let request = Self::whole_query(text, effects, handler);
        self.push_request(request, handler);
        true
    }

    /// Returns the effects of the query with this text, unless it is left to the general way.
    #[inline(always)]
    pub(super) fn whole_effects(text: &[u8]) -> Option<StatementEffects> {
        // A ROLLBACK may be one that needs no cancellation.
        let is_unusual = text.len() > MAX_HEAD_BYTES || text.first() == Some(&b'R');
        if is_unusual { None } else { StatementEffects::of_single(text) }
    }

    /// Returns the request that consists of a query with this text.
    #[inline(always)]
    pub(super) fn whole_query<H: ProtocolHandler>(
        text: &[u8],
        effects: StatementEffects,
        handler: &mut H,
    ) -> PendingRequest {
        let query = handler.query_ref(text, &[]);
        handler.query_begins(query);
        PendingRequest { end: RequestEnd::SingleMessage, effects, query: Some(query), ..PendingRequest::NEW_QUERY }
    }

    #[inline(always)]
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
    #[inline(always)]
    fn whole_bind<'a, H: ProtocolHandler>(
        &mut self,
        statement: &[u8],
        behind: &'a [u8],
        handler: &mut H,
    ) -> Option<&'a [u8]> {
        let (name, _) = ShortName::read(statement)?;
        let PreparedStatement { mut effects, query, generation } = self.prepared.bind_short(name);
        if let Some(rest) = behind_execute_and_sync(behind)
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
    #[inline(always)]
    fn push_request<H: ProtocolHandler>(&mut self, request: PendingRequest, handler: &mut H) {
        self.work.add(&request);
        self.pending.push_back(PendingRequest { sent_at: handler.now(), ..request });
        self.report_work(handler);
        handler.query_sent(true);
    }

    /// Reads messages of the server up to the first that is left to the general way, and advances `bytes` past them.
    #[inline(always)]
    pub(super) fn whole_answers<H: ProtocolHandler>(
        &mut self,
        bytes: &mut &[u8],
        handler: &mut H,
    ) -> Result<(), ProtocolError> {
        let mut left = *bytes;
        while let Some(WholeMessage { tag, body, rest }) = WholeMessage::first(left) {
            match ANSWERS[usize::from(tag)] {
                Answer::Row => {
                    self.rows += 1;
                    self.server_speaks();
                }
                Answer::Empty if body.is_empty() => self.server_speaks(),
                Answer::Any => self.server_speaks(),
                Answer::CommandComplete => {
                    if self.pending.front().is_some_and(PendingRequest::needs_command_tag) {
                        break;
                    }
                    self.server_speaks();
                    // A completed COPY has ignored every `Sync` that it will ignore.
                    self.ignored_syncs = 0;
                }
                Answer::Ready => {
                    let Some(transaction) = TransactionStatus::of_ready(body) else { break };
                    *bytes = rest;
                    self.ready_for_query(transaction, handler)?;
                }
                Answer::Asynchronous => {}
                Answer::Empty | Answer::Other => break,
            }
            left = rest;
        }
        *bytes = left;
        Ok(())
    }

    /// The same behind a message that was read in the general way.
    #[inline(never)]
    pub(super) fn more_whole_answers<H: ProtocolHandler>(
        &mut self,
        bytes: &mut &[u8],
        handler: &mut H,
    ) -> Result<(), ProtocolError> {
        self.whole_answers(bytes, handler)
    }
}

/// How a message of the server is read if it has arrived whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// In the general way.
    Other,
    /// Nothing but its kind matters.
    Any,
    /// The same, if it has no body.
    Empty,
    Row,
    CommandComplete,
    Ready,
    /// It belongs to no request.
    Asynchronous,
}

/// By tag.
static ANSWERS: [Answer; 256] = {
    let mut answers = [Answer::Other; 256];
    let kinds: [(&[u8], Answer); 6] = [
        (b"Ttd", Answer::Any),
        (b"123nsI", Answer::Empty),
        (b"D", Answer::Row),
        (b"C", Answer::CommandComplete),
        (b"Z", Answer::Ready),
        (b"AN", Answer::Asynchronous),
    ];
    let mut kind = 0;
    while kind < kinds.len() {
        let (tags, answer) = kinds[kind];
        let mut at = 0;
        while at < tags.len() {
            answers[tags[at] as usize] = answer;
            at += 1;
        }
        kind += 1;
    }
    answers
};

/// Returns what is behind an `Execute` of all rows of the portal without a name and a `Sync`, if `bytes` begins with these.
#[inline(always)]
fn behind_execute_and_sync(bytes: &[u8]) -> Option<&[u8]> {
    let (found, rest) = bytes.split_first_chunk()?;
    is_execute_and_sync(found).then_some(rest)
}
