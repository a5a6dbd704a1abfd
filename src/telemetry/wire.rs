//! The account of what passes on a connection's wire, written by the task that drives the connection.
//!
//! That task is another than the holder's, so these cells are kept apart from those of the [`ConnectionStats`](super::seat::Seat),
//! each group with its one writer. Readers come at any moment: a sequence number tells them whether what they read is
//! of one moment, and they read again if it is not.

use std::sync::OnceLock;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU32, AtomicU64, fence};

use super::cell::OwnedCounter;
use super::clock::Nanos;
use super::evidence::{Evidence, Risk, ServerError, Trace};
use super::histogram::Histogram;
use super::operations::{OPERATION_IDS, OperationId};
use super::queries::{QueryId, QueryTimes};
use crate::labels::{Activity, ErrorCode};

/// Operations are counted in groups, made when the first of a group is seen.
const GROUP: usize = 8;
const GROUPS: usize = OPERATION_IDS.div_ceil(GROUP);

/// How often a reader tries for a reading of one moment. The writer needs some nanoseconds for a change; if it is
/// interrupted in the middle of one, whoever reads then says too little: nothing of what was under way.
const TRIES: usize = 64;

/// What is known of a connection from its wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// Nothing: the wire is not read, or no longer.
    Unread,
    /// The server is ready, outside a transaction.
    Idle,
    /// The server works.
    Executing,
    /// The server works at nothing that anybody could have given up: a ROLLBACK, a statement that is prepared, a request
    /// that has failed.
    Ending,
    /// The server is ready, in a transaction.
    InTransaction,
    /// The server is ready, in a transaction that failed.
    FailedTransaction,
}

impl Status {
    const ALL: [Self; 6] =
        [Self::Unread, Self::Idle, Self::Executing, Self::Ending, Self::InTransaction, Self::FailedTransaction];

    /// What a holder of a connection in this state does, if that is known.
    pub(crate) const fn activity(self) -> Option<Activity> {
        match self {
            Self::Unread => None,
            Self::Idle => Some(Activity::Idle),
            Self::Executing | Self::Ending => Some(Activity::Executing),
            Self::InTransaction | Self::FailedTransaction => Some(Activity::IdleInTransaction),
        }
    }

    /// Whether the next one may have the connection as it is, as far as is known.
    #[inline]
    pub(crate) const fn is_clean(self) -> bool {
        matches!(self, Self::Unread | Self::Idle)
    }
}

/// What one operation did on one connection's wire.
#[derive(Debug, Default)]
struct Uses {
    executing_nanos: OwnedCounter,
    in_transaction_nanos: OwnedCounter,
    queries: OwnedCounter,
    finished: OwnedCounter,
    sent: OwnedCounter,
    received: OwnedCounter,
}

/// Aligned as the [`Wire`] is: no line of it is written for another connection, by another thread.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Group([Uses; GROUP]);

/// The sum over connections of what one operation did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct WireTotals {
    pub(crate) executing_nanos: u64,
    pub(crate) in_transaction_nanos: u64,
    pub(crate) queries: u64,
    pub(crate) finished: u64,
    pub(crate) sent: u64,
    pub(crate) received: u64,
}

/// The account of one connection's wire. In the order in which it is declared: what each message writes, and each return
/// reads, stands first.
#[derive(Debug)]
#[repr(C, align(128))]
pub(crate) struct Wire {
    /// Odd while the account is being changed.
    sequence: AtomicU32,
    operation: AtomicU32,
    status: AtomicU8,
    /// Whether the session is over: the server said so, or nobody drives the connection any more.
    ended: AtomicBool,
    since: AtomicU64,
    /// When a byte last passed.
    active: AtomicU64,
    /// When the server last said something.
    heard: AtomicU64,
    /// Which hold the queries are of, as the seat's word has it, and how many there were.
    hold: AtomicU64,
    hold_queries: AtomicU64,
    trace: Trace,
    /// The process that serves the connection; zero while it is not known.
    backend: AtomicI32,
    times: QueryTimes,
    uses: [OnceLock<Box<Group>>; GROUPS],
}

impl Default for Wire {
    fn default() -> Self {
        Self {
            sequence: AtomicU32::new(0),
            status: AtomicU8::new(Status::Unread as u8),
            operation: AtomicU32::new(0),
            since: AtomicU64::new(0),
            active: AtomicU64::new(0),
            heard: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            backend: AtomicI32::new(0),
            hold: AtomicU64::new(0),
            hold_queries: AtomicU64::new(0),
            trace: Trace::default(),
            times: QueryTimes::default(),
            uses: [const { OnceLock::new() }; GROUPS],
        }
    }
}

/// What the one writer does.
impl Wire {
    /// Enters `status` for `operation`, and counts the time of the one that it left, if that was anybody's.
    pub(crate) fn enter(&self, status: Status, operation: Option<OperationId>, at: Nanos) {
        let left = self.glance();
        let sequence = self.sequence.load(Relaxed);
        self.sequence.store(sequence.wrapping_add(1), Relaxed);
        fence(Release);
        // So that a reader who cannot wait for the end of this change misses what was under way, and does not find it
        // twice: a counter that said too much could not take it back.
        self.operation.store(NOBODY, Relaxed);
        fence(Release);
        if let Some(left_by) = left.operation {
            let nanos = at.since(Nanos::from_nanos(self.since.load(Relaxed)));
            match left.status.activity() {
                Some(Activity::Executing) => self.uses_of(left_by).executing_nanos.add(nanos),
                Some(Activity::IdleInTransaction) => self.uses_of(left_by).in_transaction_nanos.add(nanos),
                Some(Activity::Idle) | None => {}
            }
        }
        self.operation.store(operation.map_or(NOBODY, |operation| u32::from(operation.as_u16())), Relaxed);
        self.since.store(at.as_nanos(), Relaxed);
        self.status.store(status as u8, Release);
        self.sequence.store(sequence.wrapping_add(2), Release);
    }

    /// Begins to count the queries of another hold, and to keep what is told of it.
    pub(crate) fn begin_hold(&self, word: u64) {
        self.hold_queries.store(0, Relaxed);
        self.trace.begin();
        self.hold.store(word, Release);
    }

    pub(crate) fn count_query(&self, operation: OperationId) {
        self.hold_queries.store(self.hold_queries.load(Relaxed) + 1, Relaxed);
        self.uses_of(operation).queries.add(1);
    }

    pub(crate) fn count_finished(&self, operation: OperationId, queries: u64) {
        self.uses_of(operation).finished.add(queries);
    }

    pub(crate) fn count_sent(&self, operation: OperationId, bytes: u64, at: Nanos) {
        self.uses_of(operation).sent.add(bytes);
        self.active.store(at.as_nanos(), Relaxed);
    }

    pub(crate) fn count_received(&self, operation: OperationId, bytes: u64, at: Nanos) {
        self.uses_of(operation).received.add(bytes);
        self.active.store(at.as_nanos(), Relaxed);
        self.heard.store(at.as_nanos(), Relaxed);
    }

    pub(crate) fn complain(&self, complaint: ServerError) {
        self.trace.complain(complaint);
    }

    /// A request was answered, see [`Evidence`].
    pub(crate) fn answer(&self, committed: bool, overcomes: bool) {
        if committed {
            self.trace.commit();
        }
        if overcomes {
            self.trace.overcome();
        }
    }

    /// A request with this query was answered with success, so long after it was sent.
    pub(crate) fn count_query_time(&self, query: QueryId, nanos: u64) {
        self.times.observe(query, nanos);
    }

    pub(crate) fn set_risk(&self, risk: Risk) {
        self.trace.set_risk(risk);
    }

    pub(crate) fn end(&self) {
        self.ended.store(true, Release);
    }

    pub(crate) fn set_backend(&self, pid: i32) {
        self.backend.store(pid, Relaxed);
    }

    #[inline]
    fn uses_of(&self, operation: OperationId) -> &Uses {
        let index = operation.index();
        &self.uses[index / GROUP].get_or_init(Box::default).0[index % GROUP]
    }
}

/// Stands for no operation: what the connection does is nobody's.
const NOBODY: u32 = u32::MAX;

/// Status and operation, which the writer itself reads without care.
#[derive(Clone, Copy)]
struct Glance {
    status: Status,
    operation: Option<OperationId>,
}

/// What anybody may ask.
impl Wire {
    /// What is known now. Of the same moment as whatever the caller was told by the connection's task before.
    #[inline]
    pub(crate) fn status(&self) -> Status {
        Status::ALL.get(usize::from(self.status.load(Acquire))).copied().unwrap_or(Status::Unread)
    }

    fn glance(&self) -> Glance {
        let operation = match self.operation.load(Relaxed) {
            NOBODY => None,
            id => Some(OperationId::from_index(u64::from(id))),
        };
        Glance { status: self.status(), operation }
    }

    /// When a byte last passed; zero if none did.
    pub(crate) fn active(&self) -> Nanos {
        Nanos::from_nanos(self.active.load(Relaxed))
    }

    /// When the server last said something; zero if it never did.
    #[inline]
    pub(crate) fn heard(&self) -> Nanos {
        Nanos::from_nanos(self.heard.load(Relaxed))
    }

    /// Whether the session is known to be over.
    #[inline]
    pub(crate) fn is_ended(&self) -> bool {
        // What was told before the end is to be seen by whoever sees that.
        self.ended.load(Acquire)
    }

    /// The server's process, if it said so.
    pub(crate) fn backend(&self) -> Option<i32> {
        Some(self.backend.load(Relaxed)).filter(|pid| *pid != 0)
    }

    /// How many queries were sent in the hold that the seat's `word` stands for.
    pub(crate) fn queries_of(&self, word: u64) -> u64 {
        if self.hold.load(Acquire) == word { self.hold_queries.load(Relaxed) } else { 0 }
    }

    /// What is known of the hold that the seat's `word` stands for; nothing if the wire is not read, or no longer.
    pub(crate) fn evidence(&self, word: u64) -> Option<Evidence> {
        let ended = self.is_ended();
        (self.status() != Status::Unread).then(|| self.trace.read(self.hold.load(Acquire) == word, ended))
    }

    /// Whether this is the error that the hold of this `word` ended with.
    #[inline]
    pub(crate) fn is_last_error(&self, word: u64, code: ErrorCode) -> bool {
        self.trace.is_last_error(code) && self.hold.load(Acquire) == word
    }

    /// For how long it has been executing and in a transaction for this operation, up to now.
    #[cfg(feature = "middleware")]
    pub(crate) fn times_of(&self, operation: OperationId, now: Nanos) -> (u64, u64) {
        let mut times = (0, 0);
        for _ in 0..TRIES {
            let before = self.sequence.load(Acquire);
            let index = operation.index();
            let uses = self.uses[index / GROUP].get().map(|group| &group.0[index % GROUP]);
            times = uses.map_or((0, 0), |uses| (uses.executing_nanos.get(), uses.in_transaction_nanos.get()));
            match self.under_way(now) {
                Some((of, Activity::Executing, so_far)) if of == operation => times.0 += so_far,
                Some((of, Activity::IdleInTransaction, so_far)) if of == operation => times.1 += so_far,
                _ => {}
            }
            fence(Acquire);
            if before.is_multiple_of(2) && self.sequence.load(Relaxed) == before {
                break;
            }
            std::hint::spin_loop();
        }
        times
    }

    /// Adds the times of queries to `totals`, by id.
    pub(crate) fn add_times_to(&self, totals: &mut [Histogram]) {
        self.times.add_to(totals);
    }

    /// Adds what passed to `totals`, by operation id, what is under way at `now` included.
    pub(crate) fn add_to(&self, totals: &mut [WireTotals], now: Nanos) {
        if self.sequence.load(Relaxed) == 0 {
            return;
        }
        let mut times = [(0, 0); OPERATION_IDS];
        let mut under_way = None;
        for _ in 0..TRIES {
            let before = self.sequence.load(Acquire);
            under_way = self.read_times(&mut times, now);
            fence(Acquire);
            if before.is_multiple_of(2) && self.sequence.load(Relaxed) == before {
                break;
            }
            std::hint::spin_loop();
        }
        if let Some((operation, activity, so_far)) = under_way {
            let total = &mut totals[operation.index()];
            match activity {
                Activity::Executing => total.executing_nanos += so_far,
                Activity::IdleInTransaction => total.in_transaction_nanos += so_far,
                Activity::Idle => {}
            }
        }
        for (group, first) in self.uses.iter().zip((0..).step_by(GROUP)) {
            let Some(group) = group.get() else { continue };
            for ((uses, total), (executing, in_transaction)) in
                group.0.iter().zip(&mut totals[first..]).zip(&times[first..])
            {
                total.executing_nanos += executing;
                total.in_transaction_nanos += in_transaction;
                // Finished before begun, so that never more are finished than were begun.
                total.finished += uses.finished.get();
                total.queries += uses.queries.get();
                total.sent += uses.sent.get();
                total.received += uses.received.get();
            }
        }
    }

    /// The times that were counted, and what is under way.
    fn read_times(&self, times: &mut [(u64, u64); OPERATION_IDS], now: Nanos) -> Option<(OperationId, Activity, u64)> {
        for (group, first) in self.uses.iter().zip((0..).step_by(GROUP)) {
            let Some(group) = group.get() else { continue };
            for (uses, times) in group.0.iter().zip(&mut times[first..]) {
                *times = (uses.executing_nanos.get(), uses.in_transaction_nanos.get());
            }
        }
        self.under_way(now)
    }

    /// What is under way, for whom and for how long. To be read after what was counted.
    fn under_way(&self, now: Nanos) -> Option<(OperationId, Activity, u64)> {
        fence(Acquire);
        let Glance { status, operation } = self.glance();
        let so_far = now.since(Nanos::from_nanos(self.since.load(Relaxed)));
        Some((operation?, status.activity()?, so_far))
    }
}
