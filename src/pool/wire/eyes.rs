//! Reads along, and keeps the account of a connection's wire.

use std::sync::{Arc, Weak};

use super::conversation::Conversation;
use super::frames::OutOfStep;
use super::hash::Folded;
use super::listener::{Answer, Listener, Transaction};
use super::summary::summary;
use super::texts::{Asked, Texts};
use crate::event::{ConnectionState, Event};
use crate::telemetry::clock::{Clock, Nanos, nanos};
use crate::telemetry::evidence::{Complaint, Risk};
use crate::telemetry::ledger::{Ledger, Watchers};
use crate::telemetry::operations::OperationId;
use crate::telemetry::seat::{Seat, Standing};
use crate::telemetry::trace::{Ending, Queries, Server};
use crate::telemetry::wire::Status;

/// What a [`Tap`](super::Tap) shows everything that passes.
#[derive(Debug)]
pub(crate) struct Eyes {
    /// There until something passes that is not understood.
    conversation: Option<Conversation>,
    account: Account,
}

/// Writes to the account of one connection.
#[derive(Debug)]
struct Account {
    seat: Arc<Seat>,
    clock: Clock,
    /// Not to be kept alive by a task that is about to end: a pool's series go when it goes.
    ledger: Weak<Ledger>,
    /// The seat's word when it was last looked at, and what it said.
    word: u64,
    standing: Standing,
    /// When what is being read passed.
    at: Nanos,
    /// What some of the last texts are, by their hashes: most are sent again and again.
    recent: [(u64, Asked); RECENT],
    /// The texts themselves, if spans are to have them.
    texts: Option<Texts>,
    spans: Queries,
}

/// How many of the last texts are remembered.
const RECENT: usize = 32;

impl Eyes {
    /// For a connection that has not begun.
    pub(crate) fn new(seat: Arc<Seat>, ledger: &Arc<Ledger>, server: Option<Arc<Server>>, has_texts: bool) -> Self {
        let spans = Queries::new(ledger, server);
        let (clock, ledger) = (ledger.clock().clone(), Arc::downgrade(ledger));
        let word = seat.word();
        let account = Account {
            seat,
            clock,
            ledger,
            word,
            standing: Standing::unpack(word),
            at: Nanos::ZERO,
            recent: [(0, Asked::OTHER); RECENT],
            texts: has_texts.then(Texts::default),
            spans,
        };
        Self { conversation: Some(Conversation::new()), account }
    }

    /// Reads what was written to the server.
    pub(crate) fn sent(&mut self, bytes: &[u8]) {
        let Self { conversation, account } = self;
        account.at = account.clock.now();
        if let Some(following) = conversation
            && let Err(lost) = following.sent(bytes, account)
        {
            *conversation = None;
            account.lose(lost);
        }
        account.seat.wire().count_sent(account.standing.operation, bytes.len() as u64, account.at);
    }

    /// Reads what came from the server.
    pub(crate) fn received(&mut self, bytes: &[u8]) {
        let Self { conversation, account } = self;
        account.at = account.clock.now();
        account.seat.wire().count_received(account.standing.operation, bytes.len() as u64, account.at);
        if let Some(following) = conversation
            && let Err(lost) = following.received(bytes, account)
        {
            *conversation = None;
            account.lose(lost);
        }
    }
}

/// Nothing passes any more: whatever the server was at, it is over for whoever still holds the connection.
impl Drop for Eyes {
    fn drop(&mut self) {
        let Self { conversation, account } = self;
        account.at = account.clock.now();
        if let Some(conversation) = conversation {
            conversation.end_unanswered(account);
        }
        if !account.seat.wire().status().is_clean() {
            account.look();
            account.seat.wire().enter(Status::Idle, account.user(), account.clock.now());
        }
    }
}

impl Account {
    /// Looks for whom the connection works now.
    fn look(&mut self) {
        let word = self.seat.word();
        if word == self.word {
            return;
        }
        self.word = word;
        let standing = Standing::unpack(word);
        if standing.state == ConnectionState::Used {
            self.standing = standing;
            if !standing.tended {
                self.seat.wire().begin_hold(word);
            }
        } else {
            // What comes late is still of the last one's doing; its time is nobody's.
            self.standing.state = standing.state;
        }
    }

    /// Whose time it is: that of whoever uses the connection.
    fn user(&self) -> Option<OperationId> {
        (self.standing.state == ConnectionState::Used).then_some(self.standing.operation)
    }

    /// Whether a caller uses the connection, and not the pool itself.
    fn is_held(&self) -> bool {
        self.standing.state == ConnectionState::Used && !self.standing.tended
    }

    #[cold]
    fn lose(&mut self, OutOfStep(problem): OutOfStep) {
        self.seat.wire().enter(Status::Unread, None, self.at);
        self.spans.lose();
        self.emit(Event::WireLost { problem });
    }

    fn emit(&self, event: Event<'_>) {
        if let Some(ledger) = self.ledger.upgrade() {
            Watchers::new(ledger).emit(event);
        }
    }
}

impl Listener for Account {
    fn busy(&mut self, ending: bool) {
        self.look();
        let status = if ending { Status::Ending } else { Status::Executing };
        self.seat.wire().enter(status, self.user(), self.at);
    }

    fn query(&mut self, first: bool) {
        let is_held = self.is_held();
        if is_held {
            self.seat.wire().count_query(self.standing.operation);
        }
        if first {
            self.spans.begin(if is_held { self.seat.used_within() } else { None });
        }
    }

    fn finished(&mut self, queries: u32) {
        if self.is_held() {
            self.seat.wire().count_finished(self.standing.operation, queries.into());
        }
    }

    fn ready(&mut self, transaction: Transaction) {
        let status = match transaction {
            Transaction::None => Status::Idle,
            Transaction::Open => Status::InTransaction,
            Transaction::Failed => Status::FailedTransaction,
        };
        if status != self.seat.wire().status() {
            self.seat.wire().enter(status, self.user(), self.at);
        }
    }

    fn text(&mut self, text: &[u8]) -> Asked {
        let hash = Folded::of(text);
        let place = &mut self.recent[usize::try_from(hash % RECENT as u64).unwrap_or(0)];
        if place.0 != hash
            && let Some(ledger) = self.ledger.upgrade()
        {
            let query = Watchers::new(ledger).query(&summary(text));
            *place = (hash, Asked { query, text: self.texts.as_mut().and_then(|texts| texts.keep(text)) });
        }
        place.1
    }

    fn now(&self) -> Nanos {
        self.at
    }

    fn answered(&mut self, Answer { begun, asked, sent_at, rows, error, committed, overcomes }: Answer) {
        let query = asked.query;
        let texts = &self.texts;
        let trace = self.spans.end(begun, || Ending {
            query,
            text: texts.as_ref().and_then(|texts| texts.get(asked)),
            rows,
            error,
        });
        if !self.is_held() {
            return;
        }
        let wire = self.seat.wire();
        wire.answer(committed, overcomes);
        let took = self.at.duration_since(sent_at);
        match (error, trace) {
            (None, None) => wire.count_query_time(query, nanos(took)),
            (None, Some(trace)) => {
                wire.count_query_time(query, nanos(took));
                self.emit(Event::QueryTraced { query, took, trace });
            }
            (Some(code), trace) => self.emit(Event::QueryEnded { query, code, took, trace }),
        }
    }

    fn risks(&mut self, risk: Risk) {
        self.seat.wire().set_risk(risk);
    }

    #[cold]
    fn failed(&mut self, complaint: Complaint) {
        // It may come by itself, before the holder has asked for anything.
        self.look();
        if self.is_held() {
            self.seat.wire().complain(complaint);
        }
        let Complaint { code, fatal, .. } = complaint;
        if fatal {
            self.seat.wire().end();
        }
        let word = self.seat.word();
        let standing = Standing::unpack(word);
        match standing.state {
            // Whoever connects, pings or cleans is told, and tells.
            ConnectionState::Creating => {}
            ConnectionState::Used if standing.tended => {}
            ConnectionState::Used => {
                self.emit(Event::QueryFailed { operation: standing.operation, code });
            }
            ConnectionState::Idle => self.emit(Event::QueryFailed { operation: OperationId::OTHER, code }),
        }
    }

    fn backend(&mut self, pid: i32) {
        self.seat.wire().set_backend(pid);
    }
}

#[cfg(test)]
#[path = "eyes_tests.rs"]
mod tests;
