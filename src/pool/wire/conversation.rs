//! Who said what: the protocol's two directions put together.
//!
//! A client's request ends with a `Query`, a `FunctionCall` or a `Sync`, and the server answers each of these with one
//! `ReadyForQuery`. So what is outstanding is a queue of requests, taken up by each `ReadyForQuery`. The one exception
//! is COPY IN: while it lasts the server ignores `Sync`, so that a request of the extended protocol which began it is
//! answered to the `Sync` after the data. If it fails before the server came to the `Sync` in front of the data, both
//! are answered.
//!
//! Source: PostgreSQL's documentation, "Frontend/Backend Protocol", "Message Flow", and what its `copyfromparse.c` and
//! `postgres.c` do where that is silent.

use std::collections::VecDeque;

use super::bodies::{Body, TAG};
use super::fields::Fields;
use super::frames::{Frames, OutOfStep, Piece};
use super::listener::{Listener, Transaction};
use super::prepared::{Bind, Close, Parse, Prepared};
use super::requests::{End, Request, Start, Work, open};
use super::statements::{Deeds, Text};
use crate::labels::ErrorCode;
use crate::telemetry::clock::Nanos;
use crate::telemetry::evidence::Risk;

/// How much of a text is looked at.
pub(super) const TEXT: usize = 2048;

/// The longest startup message that the server takes.
const LONGEST_STARTUP: u32 = 10_000 + 4;

/// What has passed on one connection, as far as it matters for what comes.
#[derive(Debug)]
pub(crate) struct Conversation {
    pub(super) client: Frames,
    pub(super) server: Frames,
    pub(super) client_body: Body,
    pub(super) server_body: Body,
    /// Requests that are not answered. None but the last may be open.
    pub(super) outstanding: VecDeque<Request>,
    pub(super) work: Work,
    /// Whether the first of the requests is a COPY IN that takes data, and whose end the client has not written.
    pub(super) copying: bool,
    /// The `Sync`s that were taken for ignored by the last COPY IN. If it fails they may be answered after all.
    pub(super) ignored: u32,
    /// Whether the server has said nothing since it was last ready.
    quiet: bool,
    /// Whether the server's next byte is its answer to a request for encryption.
    negotiating: bool,
    /// The status of the last `ReadyForQuery`.
    pub(super) transaction: Transaction,
    pub(super) prepared: Prepared,
    /// The text that is being read, as far as it is looked at. Its place is made once.
    pub(super) text: Vec<u8>,
    /// How many rows came since the server was last ready.
    rows: u64,
    /// What was told last: the state of the work.
    told: Option<bool>,
    /// The risk that was told last.
    risk: Risk,
}

impl Conversation {
    /// One that has not begun.
    pub(crate) fn new() -> Self {
        Self {
            client: Frames::from_client(),
            server: Frames::default(),
            client_body: Body::None,
            server_body: Body::None,
            outstanding: VecDeque::new(),
            work: Work::default(),
            copying: false,
            ignored: 0,
            quiet: false,
            negotiating: false,
            transaction: Transaction::None,
            prepared: Prepared::default(),
            text: Vec::with_capacity(TEXT),
            rows: 0,
            told: None,
            risk: Risk::None,
        }
    }

    /// Reads what the client wrote.
    pub(crate) fn sent(&mut self, mut bytes: &[u8], listener: &mut impl Listener) -> Result<(), OutOfStep> {
        if bytes.is_empty() {
            return Ok(());
        }
        while let Some(piece) = self.client.next(&mut bytes)? {
            match piece {
                Piece::Head { tag, length } => self.client_says(tag, length, listener)?,
                Piece::Part(part) => self.client_body(part, listener),
            }
        }
        // A message that was cut is work too, even if it is not known yet which: its rest is still to be written. So is
        // what precedes the startup message.
        self.work.begun =
            self.client.is_untagged() || matches!(self.client.begun(), Some(b'Q' | b'F' | b'P' | b'B' | b'D' | b'E'));
        self.tell(listener);
        self.tell_risk(listener);
        Ok(())
    }

    /// Reads what the server wrote.
    pub(crate) fn received(&mut self, mut bytes: &[u8], listener: &mut impl Listener) -> Result<(), OutOfStep> {
        if self.negotiating
            && let Some((answer, rest)) = bytes.split_first()
        {
            if !matches!(answer, b'S' | b'N') {
                return Err(OutOfStep("an unknown answer to the request for encryption"));
            }
            self.negotiating = false;
            bytes = rest;
        }
        while let Some(piece) = self.server.next(&mut bytes)? {
            match piece {
                Piece::Head { tag, length } => self.server_says(tag, length, listener)?,
                Piece::Part(part) => self.server_body(part, listener)?,
            }
        }
        Ok(())
    }

    fn client_says(&mut self, tag: u8, length: u32, listener: &mut impl Listener) -> Result<(), OutOfStep> {
        match (tag, length) {
            // A request for encryption has a code and nothing else; the startup message has a user at least.
            (0, 8) if self.client.is_untagged() => self.negotiating = true,
            (0, 9..=LONGEST_STARTUP) if self.client.is_untagged() => {
                self.client.expect_tags();
                self.push(0, Deeds::NONE, listener)?;
            }
            // Told when enough of its text is here to say whether it is a ROLLBACK.
            (b'Q', 5..) => {
                // Until all of it has been read.
                self.queue(1, Deeds::SEVERAL, listener.now())?;
                self.text.clear();
                self.client_body = Body::Query { matched: Some(0), text: Text::new() };
                self.client.want_body();
            }
            (b'F', _) => self.push(1, Deeds::WORK, listener)?,
            (b'P', _) => {
                self.extend(true, 0, listener);
                self.text.clear();
                self.client_body = Body::Parse(Parse::new());
                self.client.want_body();
            }
            (b'B', _) => {
                self.extend(true, 0, listener);
                self.client_body = Body::Bind(Bind::default());
                self.client.want_body();
            }
            (b'D', _) => self.extend(true, 0, listener),
            (b'E', _) => {
                self.extend(true, 1, listener);
                let request = open(&mut self.outstanding);
                if request.deeds.is_empty() {
                    request.deeds = Deeds::WORK;
                }
                request.deeds.add(self.prepared.portals());
            }
            // Closing a statement is what is done after work, and takes the server no time.
            (b'C', _) => {
                self.extend(false, 0, listener);
                self.client_body = Body::Close(Close::default());
                self.client.want_body();
            }
            (b'S', 4) => self.sync(),
            (b'c', 4) | (b'f', _) => self.end_data(),
            (b'd' | b'p', _) | (b'H' | b'X', 4) => {}
            _ => return Err(OutOfStep("a message of a kind that clients do not send")),
        }
        Ok(())
    }

    /// A message of a request that ends with a `Sync`.
    fn extend(&mut self, work: bool, queries: u32, listener: &mut impl Listener) {
        self.interrupt();
        let request = open(&mut self.outstanding);
        self.work.remove(request);
        if request.start == Start::Nothing {
            request.start = Start::Message;
            request.sent_at = listener.now();
        }
        let first = request.queries == 0 && queries > 0;
        request.queries = request.queries.saturating_add(queries);
        request.begun += u32::from(first);
        request.work |= work;
        // Who prepares a statement does not wait for the server to be ready.
        request.ending = request.work && request.queries == 0;
        self.work.add(request);
        self.tell(listener);
        if queries > 0 {
            listener.query(first);
        }
    }

    fn sync(&mut self) {
        if self.copying {
            self.ignored = self.ignored.saturating_add(1);
        } else {
            open(&mut self.outstanding).end = End::Sync;
        }
    }

    /// A request that is one message, and work.
    fn queue(&mut self, queries: u32, deeds: Deeds, sent_at: Nanos) -> Result<(), OutOfStep> {
        self.interrupt();
        if let Some(last) = self.outstanding.back().filter(|last| last.end == End::Open) {
            if last.work {
                return Err(OutOfStep("a query in the midst of another request"));
            }
            self.outstanding.pop_back();
        }
        let request = Request {
            start: Start::Message,
            end: End::Own,
            work: true,
            queries,
            begun: queries,
            deeds,
            sent_at,
            ..Request::default()
        };
        self.work.add(&request);
        self.outstanding.push_back(request);
        Ok(())
    }

    /// The same, told at once.
    fn push(&mut self, queries: u32, deeds: Deeds, listener: &mut impl Listener) -> Result<(), OutOfStep> {
        self.queue(queries, deeds, listener.now())?;
        self.tell(listener);
        if queries > 0 {
            listener.query(true);
        }
        Ok(())
    }

    /// Tells of work that began, or that is of another kind now.
    pub(super) fn tell(&mut self, listener: &mut impl Listener) {
        let state = self.work.state();
        if let (true, Some(ending)) = (self.told != state, state) {
            self.told = state;
            listener.busy(ending);
        }
    }

    /// No more answers come: tells of those requests that have none.
    pub(super) fn end_unanswered(&mut self, listener: &mut impl Listener) {
        for mut request in self.outstanding.drain(..).filter(|request| request.queries > 0) {
            request.error = request.error.or(Some(ErrorCode::IO));
            listener.answered(request.answer(std::mem::take(&mut self.rows), false, false));
        }
    }

    /// Tells what would not be known if no more answers came, if that is another than before.
    pub(super) fn tell_risk(&mut self, listener: &mut impl Listener) {
        let asked = self.outstanding.iter().filter(|request| request.queries > 0);
        let asked = asked.map(|request| (request.deeds, request.failed));
        let risk = Deeds::risk_of(asked, self.transaction);
        if risk != self.risk {
            self.risk = risk;
            listener.risks(risk);
        }
    }

    fn server_says(&mut self, tag: u8, length: u32, listener: &mut impl Listener) -> Result<(), OutOfStep> {
        // What comes by itself says nothing of how far the server is.
        if self.quiet && !matches!(tag, b'A' | b'N' | b'S' | b'Z') {
            self.quiet = false;
            self.ignored = 0;
        }
        self.server_body = match (tag, length) {
            (b'Z', 5) => Body::Ready,
            (b'E', 5..) => Body::Fields(Fields::default()),
            (b'K', 12..) => Body::Key { pid: [0; 4], have: 0 },
            (b'G', _) => {
                self.copy_in()?;
                Body::None
            }
            (b'c', 4) => {
                // Whoever copies out has all of it now, and may not wait for the end. (A query of its own may go on.)
                if self.outstanding.front().is_some_and(|request| request.end == End::Sync && request.queries == 1) {
                    self.end(listener);
                }
                Body::None
            }
            (b'C', _) => {
                // A COPY that came to its end has ignored what was to be ignored.
                self.ignored = 0;
                // Of one that is alone the next `ReadyForQuery` says enough.
                match self.outstanding.front() {
                    Some(request) if request.deeds.want_tags() || request.queries > 1 => {
                        Body::Tag { bytes: [0; TAG], have: 0 }
                    }
                    _ => Body::None,
                }
            }
            (b'D', _) => {
                self.rows += 1;
                Body::None
            }
            (b'd' | b'T' | b't' | b'R' | b'S' | b'A' | b'N' | b'H' | b'V' | b'W' | b'v', _)
            | (b'1' | b'2' | b'3' | b'n' | b's' | b'I', 4) => Body::None,
            _ => return Err(OutOfStep("a message of a kind that servers do not send")),
        };
        if !matches!(self.server_body, Body::None) {
            self.server.want_body();
        }
        Ok(())
    }

    /// The server is done with the first request but for saying so. What the client has yet to write for it is still
    /// awaited.
    pub(super) fn end(&mut self, listener: &mut impl Listener) {
        if let Some(request) = self.outstanding.front_mut().filter(|request| request.end != End::Open) {
            self.work.end(request);
            self.tell(listener);
        }
    }

    /// The server is ready for the next request. `before` is the transaction that this one began in.
    pub(super) fn answered(&mut self, before: Transaction, listener: &mut impl Listener) -> Result<(), OutOfStep> {
        self.copying = false;
        if self.outstanding.len() == 1 && matches!(self.client_body, Body::Query { .. }) {
            return Err(OutOfStep("an answer to half a query"));
        }
        let first = self.outstanding.front();
        let is_next = first.is_some_and(|request| request.end != End::Open);
        // With nothing said since it was ready before, the server answers a Sync in front of which there is nothing.
        let is_late = self.ignored > 0 && self.quiet && first.is_none_or(|request| request.start == Start::Message);
        self.quiet = true;
        if !is_next || is_late {
            // A COPY IN failed before the server had read a Sync that was taken for ignored.
            self.ignored = self.ignored.checked_sub(1).ok_or(OutOfStep("an answer to nothing"))?;
        }
        if !is_late && let Some(request) = self.outstanding.pop_front() {
            self.work.remove(&request);
            if request.queries > 0 {
                let Request { queries, deeds, failed, committed, .. } = request;
                listener.finished(queries);
                let committed = deeds.have_lasted(before, self.transaction, failed, committed);
                let overcomes = !failed && !deeds.only_end(before);
                listener.answered(request.answer(self.rows, committed, overcomes));
            }
        }
        self.rows = 0;
        if self.work.state().is_none() {
            self.told = None;
            listener.ready(self.transaction);
        } else {
            self.tell(listener);
        }
        self.tell_risk(listener);
        Ok(())
    }
}

#[cfg(test)]
#[path = "conversation_tests.rs"]
mod tests;

/// Held to the same by the tests and by fuzzing.
#[cfg(any(test, fuzzing))]
#[path = "conversation_tests/witness.rs"]
pub(super) mod witness;
