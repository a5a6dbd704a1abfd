//! Reads along, and keeps the account of a connection's wire.

use std::sync::{Arc, Weak};

use super::conversation::Conversation;
use super::frames::OutOfStep;
use super::hash::Folded;
use super::listener::{Answer, Listener, Transaction};
use super::summary::summary;
use super::texts::{Asked, Texts};
use crate::labels::ConnectionState;
use crate::telemetry::clock::{Clock, Nanos, nanos};
use crate::telemetry::evidence::{Risk, ServerError};
use crate::telemetry::ledger::{Ledger, Recorder};
use crate::telemetry::operations::OperationId;
use crate::telemetry::seat::{ConnectionStats, UnpackedState};
use crate::telemetry::trace::{Ending, Queries, Server};
use crate::telemetry::wire::Status;

/// What a [`Tap`](super::Tap) shows everything that passes.
#[derive(Debug)]
pub(crate) struct ProtocolObserver {
    /// There until something passes that is not understood.
    conversation: Option<Conversation>,
    account: Account,
}

/// Writes to the account of one connection.
#[derive(Debug)]
struct Account {
    stats: Arc<ConnectionStats>,
    clock: Clock,
    /// Not to be kept alive by a task that is about to end: a pool's series go when it goes.
    ledger: Weak<Ledger>,
    /// The seat's word when it was last looked at, and what it said.
    word: u64,
    unpacked_state: UnpackedState,
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

impl ProtocolObserver {
    /// For a connection that has not begun.
    pub(crate) fn new(
        stats: Arc<ConnectionStats>,
        ledger: &Arc<Ledger>,
        server: Option<Arc<Server>>,
        has_texts: bool,
    ) -> Self {
        let spans = Queries::new(ledger, server);
        let (clock, ledger) = (ledger.clock().clone(), Arc::downgrade(ledger));
        let word = stats.word();
        let account = Account {
            stats,
            clock,
            ledger,
            word,
            unpacked_state: UnpackedState::unpack(word),
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
        account.stats.wire().count_sent(account.unpacked_state.operation, bytes.len() as u64, account.at);
    }

    /// Reads what came from the server.
    pub(crate) fn received(&mut self, bytes: &[u8]) {
        let Self { conversation, account } = self;
        account.at = account.clock.now();
        account.stats.wire().count_received(account.unpacked_state.operation, bytes.len() as u64, account.at);
        if let Some(following) = conversation
            && let Err(lost) = following.received(bytes, account)
        {
            *conversation = None;
            account.lose(lost);
        }
    }
}

/// Nothing passes any more: whatever the server was at, it is over for whoever still holds the connection.
impl Drop for ProtocolObserver {
    fn drop(&mut self) {
        let Self { conversation, account } = self;
        account.at = account.clock.now();
        if let Some(conversation) = conversation {
            conversation.end_unanswered(account);
        }
        if !account.stats.wire().status().is_clean() {
            account.look();
            account.stats.wire().enter(Status::Idle, account.user(), account.clock.now());
        }
    }
}

impl Account {
    /// Looks for whom the connection works now.
    fn look(&mut self) {
        let word = self.stats.word();
        if word == self.word {
            return;
        }
        self.word = word;
        let unpacked_state = UnpackedState::unpack(word);
        if unpacked_state.state == ConnectionState::Used {
            self.unpacked_state = unpacked_state;
            if !unpacked_state.maintenance {
                self.stats.wire().begin_hold(word);
            }
        } else {
            // What comes late is still of the last one's doing; its time is nobody's.
            self.unpacked_state.state = unpacked_state.state;
        }
    }

    /// Whose time it is: that of whoever uses the connection.
    fn user(&self) -> Option<OperationId> {
        (self.unpacked_state.state == ConnectionState::Used).then_some(self.unpacked_state.operation)
    }

    /// Whether a caller uses the connection, and not the pool itself.
    fn is_held(&self) -> bool {
        self.unpacked_state.state == ConnectionState::Used && !self.unpacked_state.maintenance
    }

    #[cold]
    fn lose(&mut self, OutOfStep(problem): OutOfStep) {
        self.stats.wire().enter(Status::Unread, None, self.at);
        self.spans.lose();
        self.record(|recorder| recorder.wire_lost(problem));
    }

    fn record(&self, event: impl FnOnce(&Recorder)) {
        if let Some(ledger) = self.ledger.upgrade() {
            event(&Recorder::new(ledger));
        }
    }
}

impl Listener for Account {
    fn busy(&mut self, ending: bool) {
        self.look();
        let status = if ending { Status::Ending } else { Status::Executing };
        self.stats.wire().enter(status, self.user(), self.at);
    }

    fn query(&mut self, first: bool) {
        let is_held = self.is_held();
        if is_held {
            self.stats.wire().count_query(self.unpacked_state.operation);
        }
        if first {
            self.spans.begin(if is_held { self.stats.used_within() } else { None });
        }
    }

    fn finished(&mut self, queries: u32) {
        if self.is_held() {
            self.stats.wire().count_finished(self.unpacked_state.operation, queries.into());
        }
    }

    fn ready(&mut self, transaction: Transaction) {
        let status = match transaction {
            Transaction::None => Status::Idle,
            Transaction::Open => Status::InTransaction,
            Transaction::Failed => Status::FailedTransaction,
        };
        if status != self.stats.wire().status() {
            self.stats.wire().enter(status, self.user(), self.at);
        }
    }

    fn text(&mut self, text: &[u8]) -> Asked {
        let hash = Folded::of(text);
        let place = &mut self.recent[usize::try_from(hash % RECENT as u64).unwrap_or(0)];
        if place.0 != hash
            && let Some(ledger) = self.ledger.upgrade()
        {
            let query = Recorder::new(ledger).query(&summary(text));
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
        let wire = self.stats.wire();
        wire.answer(committed, overcomes);
        let took = self.at.duration_since(sent_at);
        match (error, trace) {
            (None, None) => wire.count_query_time(query, nanos(took)),
            (None, Some(trace)) => {
                wire.count_query_time(query, nanos(took));
                self.record(|recorder| recorder.query_traced(query, took, trace));
            }
            (Some(code), trace) => self.record(|recorder| recorder.query_failed(query, code, took, trace)),
        }
    }

    fn risks(&mut self, risk: Risk) {
        self.stats.wire().set_risk(risk);
    }

    #[cold]
    fn failed(&mut self, complaint: ServerError) {
        // It may come by itself, before the holder has asked for anything.
        self.look();
        if self.is_held() {
            self.stats.wire().complain(complaint);
        }
        let ServerError { code, fatal, .. } = complaint;
        if fatal {
            self.stats.wire().end();
        }
        let word = self.stats.word();
        let unpacked_state = UnpackedState::unpack(word);
        match unpacked_state.state {
            // Whoever connects, pings or cleans is told, and tells.
            ConnectionState::Creating => {}
            ConnectionState::Used if unpacked_state.maintenance => {}
            ConnectionState::Used => {
                self.record(|recorder| recorder.query_error(unpacked_state.operation, code));
            }
            ConnectionState::Idle => self.record(|recorder| recorder.query_error(OperationId::OTHER, code)),
        }
    }

    fn backend(&mut self, pid: i32) {
        self.stats.wire().set_backend(pid);
    }
}

#[cfg(test)]
#[path = "eyes_tests.rs"]
mod tests;
