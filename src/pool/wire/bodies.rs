//! What the bodies of messages say, where that matters: texts, names, errors, the state of the transaction.

use super::conversation::{Conversation, TEXT};
use super::fields::Fields;
use super::frames::OutOfStep;
use super::listener::{Listener, Transaction};
use super::prepared::{Bind, Close, Parse};
use super::requests::{End, open};
use super::statements::Text;

/// What a body that is being read is for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Body {
    /// Nobody asked for it.
    None,
    /// The text of the `Query` that is last in the queue. `matched` is how far it is that of a ROLLBACK, until that is
    /// told.
    Query { matched: Option<usize>, text: Text },
    /// A `Parse`.
    Parse(Parse),
    /// A `Bind`.
    Bind(Bind),
    /// A `Close`.
    Close(Close),
    /// The tag of a `CommandComplete`.
    Tag { bytes: [u8; TAG], have: usize },
    /// The status in a `ReadyForQuery`.
    Ready,
    /// The process in a `BackendKeyData`.
    Key { pid: [u8; 4], have: usize },
    /// The fields of an `ErrorResponse`.
    Fields(Fields),
}

/// What tokio-postgres sends for a transaction that was dropped is the one word, or this and a savepoint's name.
const ROLLBACK_TO: &[u8] = b"ROLLBACK TO ";
const ROLLBACK: usize = "ROLLBACK".len();
const WITH_SAVEPOINT: usize = ROLLBACK_TO.len();

/// What the server says when it committed a transaction, prepared to, or gave up one that was prepared; each as long as
/// need be.
const COMMITTED: [&[u8]; 3] = [b"COMMIT", b"PREPARE T", b"ROLLBACK P"];
pub(super) const TAG: usize = COMMITTED[2].len();

/// Keeps what there is place for, up to the text's end; answers whether that is there, or no place is left.
fn collect(text: &mut Vec<u8>, part: &[u8]) -> bool {
    let end = part.iter().position(|byte| *byte == 0);
    let here = end.unwrap_or(part.len());
    let free = TEXT - text.len();
    text.extend_from_slice(&part[..here.min(free)]);
    end.is_some() || here >= free
}

impl Conversation {
    pub(super) fn client_body(&mut self, part: &[u8], listener: &mut impl Listener) {
        let known = match &mut self.client_body {
            Body::Query { .. } => return self.query_text(part, listener),
            Body::Parse(parse) => {
                let part = parse.read(part);
                collect(&mut self.text, part) && parse.is_known()
            }
            Body::Bind(bind) => bind.read(part),
            Body::Close(close) => close.read(part),
            Body::None | Body::Ready | Body::Key { .. } | Body::Fields(_) | Body::Tag { .. } => return,
        };
        if !known && !self.client.is_body_read() {
            return;
        }
        // The rest is skipped.
        self.client.ignore_body();
        match std::mem::replace(&mut self.client_body, Body::None) {
            Body::Parse(parse) => {
                let asked = listener.text(&self.text);
                self.prepared.parsed(&parse, asked);
            }
            Body::Bind(bind) => {
                let statement = self.prepared.bound(&bind);
                let request = open(&mut self.outstanding);
                request.deeds.add(statement.deeds);
                request.asked.get_or_insert(statement.asked);
            }
            Body::Close(close) => self.prepared.closed(&close),
            _ => {}
        }
    }

    fn query_text(&mut self, part: &[u8], listener: &mut impl Listener) {
        let Body::Query { matched, text } = &mut self.client_body else { return };
        text.read(part);
        let collected = collect(&mut self.text, part);
        let mut rollback = None;
        if let Some(matched) = matched {
            for byte in part {
                match ROLLBACK_TO.get(*matched) {
                    Some(expected) if expected == byte => *matched += 1,
                    // The savepoint's name.
                    None if !matches!(byte, 0 | b';') => {}
                    _ => {
                        rollback = Some(*byte == 0 && matches!(*matched, ROLLBACK | WITH_SAVEPOINT));
                        break;
                    }
                }
            }
            if rollback.is_none() && self.client.is_body_read() {
                rollback = Some(false);
            }
        }
        if rollback.is_some() {
            *matched = None;
        }
        if (collected && text.is_over()) || self.client.is_body_read() {
            let deeds = text.deeds();
            let asked = listener.text(&self.text);
            // The rest is skipped.
            self.client_body = Body::None;
            self.client.ignore_body();
            if let Some(request) = self.outstanding.back_mut().filter(|last| last.end == End::Own) {
                request.deeds = deeds;
                request.asked = Some(asked);
            }
        }
        let Some(rollback) = rollback else { return };
        if let Some(request) = self.outstanding.back_mut().filter(|last| rollback && last.end == End::Own) {
            self.work.end(request);
        }
        self.tell(listener);
        listener.query(true);
    }

    pub(super) fn server_body(&mut self, part: &[u8], listener: &mut impl Listener) -> Result<(), OutOfStep> {
        match &mut self.server_body {
            Body::Ready => {
                let transaction = match part {
                    b"I" => Transaction::None,
                    b"T" => Transaction::Open,
                    b"E" => Transaction::Failed,
                    _ => return Err(OutOfStep("an unknown status of the transaction")),
                };
                let before = std::mem::replace(&mut self.transaction, transaction);
                self.answered(before, listener)?;
            }
            Body::Key { pid, have } => {
                for byte in part {
                    if let Some(place) = pid.get_mut(*have) {
                        *place = *byte;
                        *have += 1;
                        if *have == 4 {
                            listener.backend(i32::from_be_bytes(*pid));
                        }
                    }
                }
            }
            Body::Fields(fields) => {
                fields.read(part);
                if self.server.is_body_read() {
                    let complaint = fields.complaint();
                    listener.failed(complaint);
                    // Of a session that ends nobody says what became of it.
                    if let Some(request) = self.outstanding.front_mut() {
                        request.failed = !complaint.fatal;
                        request.error = Some(complaint.code);
                    }
                    self.end(listener);
                    self.tell_risk(listener);
                }
            }
            Body::Tag { bytes, have } => {
                for (place, byte) in bytes[*have..].iter_mut().zip(part) {
                    *place = *byte;
                    *have += 1;
                }
                if *have == TAG || self.server.is_body_read() {
                    let committed = COMMITTED.iter().any(|tag| bytes.starts_with(tag));
                    self.server.ignore_body();
                    if let Some(request) = self.outstanding.front_mut() {
                        request.committed |= committed;
                    }
                }
            }
            Body::None | Body::Query { .. } | Body::Parse(_) | Body::Bind(_) | Body::Close(_) => {}
        }
        Ok(())
    }
}
