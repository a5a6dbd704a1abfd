//! The usual exchange: while nothing is pending, the client sends a request with one query in one write, and the server's
//! answer arrives in one read.
//!
//! Nearly all requests of a driver are such exchanges. Each direction is one pass over the bytes and one change of the
//! state, without the checks of what cannot be pending. It either reads all bytes, or leaves them to
//! [`whole`](super::whole) with the state as it was, but for the cache of recent statements. Both lead to the same state and
//! the same reports. The tests compare them, as do the fuzzers.

use super::ProtocolState;
use super::frames::WholeMessage;
use super::handler::{ProtocolHandler, RequestOutcome};
use super::limits::LARGE_MESSAGE_LENGTH;
use super::prepared::{PreparedStatement, ShortName};
use super::requests::{PendingRequest, PendingWork, RequestEnd};
use crate::telemetry::evidence::Risk;
use crate::wire::transaction::TransactionStatus;

/// What is known of the next bytes, from the state of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Nothing.
    Either,
    /// Nothing is pending, reported or partly read: the client may begin a usual exchange.
    Client,
    /// The only thing that is pending is the request of a usual exchange.
    Server,
}

/// An `Execute` of all rows of the portal without a name, and a `Sync`.
const EXECUTE_AND_SYNC: &[u8; 15] = b"E\0\0\0\x09\0\0\0\0\0S\0\0\0\x04";

impl ProtocolState {
    /// Begins a usual exchange. Returns whether it did, and has read all bytes.
    #[inline(always)]
    pub(super) fn usual_request<H: ProtocolHandler>(&mut self, bytes: &[u8], handler: &mut H) -> bool {
        if self.turn != Turn::Client {
            return false;
        }
        let request = match bytes {
            [b'B', ..] => self.usual_bind(bytes, handler),
            [b'Q', a, b, c, d, text @ .., 0] if is_length([*a, *b, *c, *d], bytes.len() - 1) => {
                let effects = Self::whole_effects(text).filter(|effects| !effects.need_command_tags());
                effects.map(|effects| Self::whole_query(text, effects, handler))
            }
            _ => None,
        };
        let Some(request) = request else { return false };
        self.turn = Turn::Server;
        self.work.requests = 1;
        self.reported_work = Some(false);
        self.pending.set_only(PendingRequest { sent_at: handler.now(), ..request });
        handler.busy(false);
        handler.query_sent(true);
        if H::REPORTS_RISK {
            self.report_changed_risk(request.effects.risk_of_one(false, self.transaction), handler);
        }
        true
    }

    /// Reads a `Bind` to the portal without a name, an `Execute` of all rows, and a `Sync`.
    #[inline(always)]
    fn usual_bind<H: ProtocolHandler>(&mut self, bytes: &[u8], handler: &mut H) -> Option<PendingRequest> {
        let (bind, behind) = bytes.split_last_chunk()?;
        let [_, a, b, c, d, 0, statement @ ..] = bind else { return None };
        if !is_length([*a, *b, *c, *d], bind.len() - 1) || !is_execute_and_sync(behind) {
            return None;
        }
        let (name, _) = ShortName::read(statement)?;
        let PreparedStatement { mut effects, query, generation } = self.prepared.bind_short(name);
        effects.add(self.prepared.portal_effects());
        if effects.need_command_tags() {
            return None;
        }
        handler.query_begins(query);
        let bound = PendingRequest { end: RequestEnd::Sync, effects, query: Some(query), ..PendingRequest::NEW_QUERY };
        Some(PendingRequest { bound: generation, ..bound })
    }

    /// Ends a usual exchange. Returns whether it did, and has read all bytes.
    #[inline(always)]
    pub(super) fn usual_answer<H: ProtocolHandler>(&mut self, bytes: &[u8], handler: &mut H) -> bool {
        if self.turn != Turn::Server {
            return false;
        }
        let Some((rows, transaction)) = usual_answer(bytes) else { return false };
        let before = std::mem::replace(&mut self.transaction, transaction);
        self.turn = Turn::Client;
        self.work = PendingWork::default();
        self.reported_work = None;
        self.silent_since_ready = true;
        let PendingRequest { effects, query, sent_at, .. } = *self.pending.take_only();
        handler.queries_finished(1);
        handler.request_ended(RequestOutcome {
            started: 1,
            query: query.unwrap_or_default(),
            sent_at,
            rows,
            error: None,
            committed: effects.may_have_committed(before, transaction, false, false),
            clears_error: !effects.only_roll_back(before),
        });
        handler.ready(transaction);
        if H::REPORTS_RISK {
            self.report_changed_risk(Risk::None, handler);
        }
        true
    }

    /// Finds out whose turn it is, behind bytes of the server that were read in another way.
    #[inline]
    pub(super) fn update_turn(&mut self) {
        self.turn = if self.pending.is_empty() && self.is_at_rest() { Turn::Client } else { Turn::Either };
    }

    #[inline(never)]
    fn is_at_rest(&self) -> bool {
        let are_read = self.client.is_at_tag() && self.server.is_at_tag() && !self.negotiating && self.rows == 0;
        let is_copied = !self.copying && self.ignored_syncs == 0;
        let is_reported = self.reported_work.is_none() && self.reported_risk == Risk::None;
        are_read && is_copied && is_reported && self.work == PendingWork::default()
    }
}

/// Returns the number of rows in an answer and the transaction status at its end, if it is whole and consists of what
/// [`whole`](super::whole) ignores but for the rows.
#[inline(always)]
fn usual_answer(bytes: &[u8]) -> Option<(u64, TransactionStatus)> {
    let (mut left, end) = bytes.split_last_chunk()?;
    let [b'Z', 0, 0, 0, 5, status] = end else { return None };
    let transaction = TransactionStatus::of_ready(std::slice::from_ref(status))?;
    if left.len() > LARGE_MESSAGE_LENGTH as usize {
        return None;
    }
    let mut rows = 0;
    while !left.is_empty() {
        let WholeMessage { tag, body, rest } = WholeMessage::of_any_length(left)?;
        match tag {
            b'D' => rows += 1,
            b'C' | b'T' | b't' | b'd' | b'A' | b'N' => {}
            b'1' | b'2' | b'3' | b'n' | b's' | b'I' if body.is_empty() => {}
            _ => return None,
        }
        left = rest;
    }
    Some((rows, transaction))
}

#[inline(always)]
fn is_length(bytes: [u8; 4], length: usize) -> bool {
    u32::from_be_bytes(bytes) as usize == length
}

#[inline(always)]
pub(super) fn is_execute_and_sync(bytes: &[u8; 15]) -> bool {
    // As two words, which overlap in one byte.
    let words =
        |bytes: &[u8; 15]| Some((u64::from_ne_bytes(*bytes.first_chunk()?), u64::from_ne_bytes(*bytes.last_chunk()?)));
    words(bytes) == words(EXECUTE_AND_SYNC)
}
