//! Which reply belongs to which command, and what is unknown about those that are not answered.

use std::collections::VecDeque;
use std::sync::Arc;

use super::commands::{Command, Kind, Subscription};
use super::replies::{Replies, Reply};
use super::requests::{RequestPart, Requests};
use super::session::{self, SessionState};
use crate::labels::ErrorCode;
use crate::telemetry::clock::Nanos;
use crate::telemetry::evidence::{Risk, ServerError};
use crate::telemetry::wire::SessionStatus;

/// The number of commands that may be pending for one more to have a span: a pipeline of thousands has few.
const MAX_TRACED: usize = 16;

/// The number of commands that may be pending; the client's memory is the limit otherwise.
const MAX_PENDING: usize = 1 << 24;

/// What follows from the bytes.
pub(super) trait RespHandler {
    /// The server has work. Repeated calls do not occur without [`ready`](Self::ready) in between.
    fn busy(&mut self);
    /// A command was sent. `traced` is whether it may have a span.
    fn command_sent(&mut self, traced: bool);
    /// The reply to a command is complete.
    fn command_ended(&mut self, end: CommandEnd);
    /// The server has no work.
    fn ready(&mut self, status: SessionStatus);
    fn risk_changed(&mut self, risk: Risk);
    fn server_error(&mut self, error: ServerError);
    fn now(&self) -> Nanos;
}

/// The end of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CommandEnd {
    /// `None` for an unknown one.
    pub(super) command: Option<Command>,
    pub(super) sent_at: Nanos,
    pub(super) error: Option<ErrorCode>,
    /// Whether it has, or may have, changed data.
    pub(super) committed: bool,
    /// Whether its success makes earlier errors irrelevant: it was sent after them.
    pub(super) clears_error: bool,
}

/// A command that is not answered.
#[derive(Clone, Copy, Debug)]
struct Pending {
    command: Option<Command>,
    kind: Kind,
    sent_at: Nanos,
    /// The number of commands sent before it.
    number: u64,
    /// Whether the server only queues it for a transaction.
    queued: bool,
    /// Whether an `EXEC` executes commands that may change data.
    writes: bool,
    /// The number of confirmations that answer a subscription.
    confirmations: u64,
    /// Whether the selected database is another one than the connection's.
    leaves: bool,
}

#[derive(Debug)]
pub(super) struct RespState {
    requests: Requests,
    replies: Replies,
    pending: VecDeque<Pending>,
    session: Arc<SessionState>,
    /// The number of commands sent.
    sent: u64,
    /// The number of commands that were sent before the last error arrived.
    sent_before_error: u64,
    /// Whether a command sent now is queued for a transaction, and whether any of those may change data.
    queueing: bool,
    queued_writes: bool,
    /// Whether the server queues commands, and whether it has refused one of them.
    in_transaction: bool,
    failed: bool,
    /// Whether keys are watched.
    watching: bool,
    /// The number of subscriptions by kind.
    subscriptions: [u64; 3],
    /// The numbers of pending commands that may change data, that end a transaction which may, and that block.
    writes_pending: usize,
    commits_pending: usize,
    blocking_pending: usize,
    is_busy: bool,
    risk: Risk,
}

impl RespState {
    pub(super) fn new(session: Arc<SessionState>) -> Self {
        Self {
            requests: Requests::default(),
            replies: Replies::default(),
            pending: VecDeque::new(),
            session,
            sent: 0,
            sent_before_error: 0,
            queueing: false,
            queued_writes: false,
            in_transaction: false,
            failed: false,
            watching: false,
            subscriptions: [0; 3],
            writes_pending: 0,
            commits_pending: 0,
            blocking_pending: 0,
            is_busy: false,
            risk: Risk::None,
        }
    }

    /// Reads bytes that the client sent.
    ///
    /// # Errors
    ///
    /// Returns an error if the bytes do not follow the protocol. The state must not be used after that.
    pub(super) fn sent(&mut self, mut bytes: &[u8], handler: &mut impl RespHandler) -> Result<(), &'static str> {
        while let Some(part) = self.requests.next(&mut bytes)? {
            match part {
                RequestPart::Name(name, arguments) => {
                    self.command(Command::find(name.as_bytes()).filter(|_| name.length <= 32), arguments, handler)?;
                }
                RequestPart::FirstArgument(argument) => self.first_argument(argument.as_bytes(), argument.number())?,
            }
        }
        if self.requests.is_partial() {
            self.begin_work(handler);
        }
        self.report_risk(handler);
        Ok(())
    }

    /// Reads bytes that the server sent, and advances `bytes`. Returns whether any value was completed.
    ///
    /// # Errors
    ///
    /// Returns an error if the bytes do not follow the protocol. The state must not be used after that.
    pub(super) fn received(&mut self, bytes: &mut &[u8], handler: &mut impl RespHandler) -> Result<bool, &'static str> {
        let mut any = false;
        while let Some(reply) = self.replies.next(bytes)? {
            any = true;
            self.reply(&reply, handler)?;
        }
        Ok(any)
    }

    /// Reports the end of the commands that will not be answered, since the connection has ended.
    pub(super) fn end_unanswered(&mut self, handler: &mut impl RespHandler) {
        for Pending { command, sent_at, .. } in self.pending.drain(..) {
            let error = Some(ErrorCode::IO);
            handler.command_ended(CommandEnd { command, sent_at, error, committed: false, clears_error: false });
        }
    }

    fn begin_work(&mut self, handler: &mut impl RespHandler) {
        if !std::mem::replace(&mut self.is_busy, true) {
            handler.busy();
        }
    }

    fn command(
        &mut self,
        command: Option<Command>,
        arguments: u64,
        handler: &mut impl RespHandler,
    ) -> Result<(), &'static str> {
        if self.pending.len() >= MAX_PENDING {
            return Err("too many commands without a reply");
        }
        let kind = command.map_or(Kind::Write, Command::kind);
        let queued =
            self.queueing && !matches!(kind, Kind::Multi | Kind::Exec | Kind::Discard | Kind::Watch | Kind::Session);
        let mut pending = Pending {
            command,
            kind,
            sent_at: handler.now(),
            number: self.sent,
            queued,
            writes: false,
            confirmations: 1,
            leaves: false,
        };
        match kind {
            Kind::Multi if !self.queueing => (self.queueing, self.queued_writes) = (true, false),
            Kind::Exec => {
                pending.writes = self.queued_writes;
                self.queueing = false;
            }
            Kind::Discard => self.queueing = false,
            Kind::Subscribe(_) => pending.confirmations = arguments.max(1),
            // Without arguments, all subscriptions end: how many there are is known when the first one does.
            Kind::Unsubscribe(_) => pending.confirmations = arguments,
            Kind::Session => self.session.set(session::CHANGED, true),
            Kind::Stream => {
                self.session.set(session::CHANGED, true);
                return Err("command without a reply of its own");
            }
            _ => {}
        }
        // The reply that would tell is one of many in that of `EXEC`.
        if queued && matches!(kind, Kind::Select | Kind::Subscribe(_)) {
            self.session.set(session::CHANGED, true);
        }
        self.queued_writes |= queued && kind.writes();
        self.sent += 1;
        self.count(&pending, true);
        self.pending.push_back(pending);
        self.begin_work(handler);
        handler.command_sent(self.pending.len() <= MAX_TRACED);
        Ok(())
    }

    /// Reads the first argument of the last command.
    fn first_argument(&mut self, argument: &[u8], number: Option<i64>) -> Result<(), &'static str> {
        let Some(last) = self.pending.back_mut() else { return Ok(()) };
        let is = |words: &[&str]| words.iter().any(|word| argument.eq_ignore_ascii_case(word.as_bytes()));
        match last.kind {
            Kind::Select => last.leaves = !self.session.is_own_database(number),
            Kind::Client if is(&["REPLY"]) => {
                self.session.set(session::CHANGED, true);
                return Err("replies are switched off");
            }
            Kind::Client if is(&["TRACKING", "CACHING", "NO-EVICT", "NO-TOUCH", "SETNAME"]) => {
                self.session.set(session::CHANGED, true);
            }
            _ => {}
        }
        Ok(())
    }

    /// Counts a pending command, or no longer.
    fn count(&mut self, pending: &Pending, is_pending: bool) {
        let add = |count: &mut usize, holds: bool| {
            if holds {
                *count = if is_pending { *count + 1 } else { count.saturating_sub(1) };
            }
        };
        add(&mut self.writes_pending, pending.kind.writes() && !pending.queued);
        add(&mut self.commits_pending, pending.writes);
        add(&mut self.blocking_pending, pending.kind.is_blocking() && !pending.queued);
        self.session.set(session::BLOCKED, self.blocking_pending > 0);
    }

    fn reply(&mut self, reply: &Reply, handler: &mut impl RespHandler) -> Result<(), &'static str> {
        if matches!(reply.kind, b'>' | b'*') && !reply.is_null {
            match Confirmation::of(reply.text.as_bytes()) {
                Some(Confirmation::Message) if reply.kind == b'>' || self.subscriptions != [0; 3] => return Ok(()),
                Some(Confirmation::Subscription(kind, begins))
                    if reply.kind == b'>' || self.subscriptions != [0; 3] || self.is_subscribing() =>
                {
                    self.confirmed(kind, begins, reply.third, handler);
                    return Ok(());
                }
                _ if reply.kind == b'>' => return Ok(()),
                _ => {}
            }
        }
        let Some(pending) = self.pending.pop_front() else {
            let Some(code) = reply.error() else { return Err("reply without a command") };
            // The server closes the connection next.
            handler.server_error(ServerError { code, stale_plan: false, fatal: true });
            return Ok(());
        };
        self.end(pending, reply, handler);
        Ok(())
    }

    /// Returns whether the next reply is that to a subscription.
    fn is_subscribing(&self) -> bool {
        let first = self.pending.front();
        first.is_some_and(|first| !first.queued && matches!(first.kind, Kind::Subscribe(_) | Kind::Unsubscribe(_)))
    }

    /// Handles the confirmation that a subscription begins or ends, of which `total` are left.
    fn confirmed(&mut self, kind: Subscription, begins: bool, total: Option<i64>, handler: &mut impl RespHandler) {
        let total = total.and_then(|total| u64::try_from(total).ok()).unwrap_or_default();
        let [channels, patterns, shards] = self.subscriptions;
        // Channels and patterns are counted together.
        let (index, now, before) = match kind {
            Subscription::Channels => (0, total.saturating_sub(patterns), channels),
            Subscription::Patterns => (1, total.saturating_sub(channels), patterns),
            Subscription::Shards => (2, total, shards),
        };
        self.subscriptions[index] = now;
        self.session.set(session::SUBSCRIBED, self.subscriptions != [0; 3]);
        let Some(first) = self.pending.front_mut() else { return };
        let wanted = if begins { Kind::Subscribe(kind) } else { Kind::Unsubscribe(kind) };
        if first.kind != wanted || first.queued {
            // The server ended a subscription by itself.
            return;
        }
        if first.confirmations == 0 {
            first.confirmations = before.max(1);
        }
        first.confirmations -= 1;
        if first.confirmations == 0
            && let Some(pending) = self.pending.pop_front()
        {
            self.end(pending, &Reply { kind: b'>', ..Reply::default() }, handler);
        }
    }

    /// Handles the reply to a command.
    fn end(&mut self, pending: Pending, reply: &Reply, handler: &mut impl RespHandler) {
        let Pending { command, kind, sent_at, number, queued, writes, leaves, .. } = pending;
        let refused = reply.error();
        self.count(&pending, false);
        let is_ok = refused.is_none();
        match kind {
            _ if queued => self.failed |= !is_ok,
            Kind::Multi if is_ok => (self.in_transaction, self.failed) = (true, false),
            // The commands behind it are executed one by one.
            Kind::Multi if !self.in_transaction => self.execute_queued(),
            // Without a transaction, or refused, they end nothing, nor what is watched.
            Kind::Exec | Kind::Discard if !self.in_transaction || (kind == Kind::Discard && !is_ok) => {}
            Kind::Exec | Kind::Discard => (self.in_transaction, self.failed, self.watching) = (false, false, false),
            Kind::Watch if is_ok => self.watching = true,
            Kind::Unwatch if is_ok => self.watching = false,
            Kind::Select if is_ok => self.session.set(session::DATABASE, leaves),
            _ => {}
        }
        self.session.set(session::MULTI, self.in_transaction);
        let executed = match kind {
            _ if queued => false,
            Kind::Exec => writes && is_ok && !reply.is_null,
            Kind::Script => refused.is_none_or(may_have_begun),
            kind => kind.writes() && is_ok,
        };
        // Of those in a transaction, only for one that was executed.
        let error = refused.or(reply.inner_error.filter(|_| kind == Kind::Exec));
        if let Some(code) = error {
            self.sent_before_error = self.sent;
            let fatal = matches!(code.as_str(), "MAXCLIENTS" | "DENIED");
            handler.server_error(ServerError { code, stale_plan: false, fatal });
        }
        let clears_error = error.is_none() && number >= self.sent_before_error && kind != Kind::Discard;
        handler.command_ended(CommandEnd { command, sent_at, error, committed: executed, clears_error });
        if self.pending.is_empty() && !self.requests.is_partial() {
            self.is_busy = false;
            handler.ready(match (self.in_transaction, self.failed) {
                (true, true) => SessionStatus::FailedTransaction,
                (true, false) => SessionStatus::InTransaction,
                (false, _) if self.watching => SessionStatus::InTransaction,
                (false, _) => SessionStatus::Idle,
            });
        }
        self.report_risk(handler);
    }

    /// Counts the pending commands as not queued.
    #[cold]
    fn execute_queued(&mut self) {
        self.queueing = false;
        for at in 0..self.pending.len() {
            if self.pending[at].queued {
                let before = self.pending[at];
                self.count(&before, false);
                self.pending[at].queued = false;
                let now = self.pending[at];
                self.count(&now, true);
            }
        }
    }

    /// Reports the risk of the pending commands, if it has changed.
    fn report_risk(&mut self, handler: &mut impl RespHandler) {
        let risk = match (self.commits_pending, self.writes_pending) {
            (0, 0) => Risk::None,
            (0, _) => Risk::Statement,
            _ => Risk::Commit,
        };
        if risk != self.risk {
            self.risk = risk;
            handler.risk_changed(risk);
        }
    }
}

/// Returns whether a script that failed with this code may have been executed in part.
fn may_have_begun(code: ErrorCode) -> bool {
    // Any other word may be the script's own, returned after it has written.
    code.as_str() != "NOSCRIPT"
}

/// What the first word of a push announces, or of an array that is one in RESP2.
#[derive(Clone, Copy, Debug)]
enum Confirmation {
    Message,
    /// A subscription of this kind begins, or else ends.
    Subscription(Subscription, bool),
}

impl Confirmation {
    fn of(word: &[u8]) -> Option<Self> {
        Some(match word {
            b"message" | b"pmessage" | b"smessage" => Self::Message,
            b"subscribe" => Self::Subscription(Subscription::Channels, true),
            b"psubscribe" => Self::Subscription(Subscription::Patterns, true),
            b"ssubscribe" => Self::Subscription(Subscription::Shards, true),
            b"unsubscribe" => Self::Subscription(Subscription::Channels, false),
            b"punsubscribe" => Self::Subscription(Subscription::Patterns, false),
            b"sunsubscribe" => Self::Subscription(Subscription::Shards, false),
            _ => return None,
        })
    }
}
