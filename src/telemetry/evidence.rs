//! What the wire tells of one hold: of what the server complained, and whether anything that was asked may have lasted.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU8, AtomicU64};

use crate::labels::ErrorCode;

/// What would not be known if no answer came to what the server was asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Risk {
    /// Nothing: it would not have lasted.
    #[default]
    None,
    /// Whether a statement outside a transaction took effect.
    Statement,
    /// Whether a COMMIT did.
    Commit,
}

impl Risk {
    const ALL: [Self; 3] = [Self::None, Self::Statement, Self::Commit];
}

/// An error that the server reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ServerError {
    pub(crate) code: ErrorCode,
    /// Whether it is that a statement's plan no longer fits what the statement was prepared for.
    pub(crate) stale_plan: bool,
    /// Whether the session ends with it.
    pub(crate) fatal: bool,
}

/// What is known of a hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Evidence {
    /// The error after which nothing succeeded any more.
    pub(crate) error: Option<ErrorCode>,
    pub(crate) stale_plan: bool,
    /// Whether something may have been committed.
    pub(crate) committed: bool,
    /// What is not known of that which is not answered.
    pub(crate) risk: Risk,
    /// Whether the session is over.
    pub(crate) ended: bool,
}

/// in_failed_sql_transaction
const IN_FAILED_TRANSACTION: ErrorCode = ErrorCode::word("25P02");

const COMMITTED: u8 = 1;
const STALE_PLAN: u8 = 2;

/// Where that is kept: written by the connection's task, before whoever waits for an answer hears of it.
#[derive(Debug, Default)]
pub(super) struct Trace {
    /// The last error's code; zero if there is none.
    error: AtomicU64,
    marks: AtomicU8,
    risk: AtomicU8,
}

impl Trace {
    /// Forgets what was before.
    pub(super) fn begin(&self) {
        self.error.store(0, Relaxed);
        self.marks.store(0, Relaxed);
    }

    pub(super) fn complain(&self, ServerError { code, stale_plan, .. }: ServerError) {
        // It says no more than that there was an error before.
        if code == IN_FAILED_TRANSACTION && self.error.load(Relaxed) != 0 {
            return;
        }
        self.error.store(code.to_bits(), Relaxed);
        let marks = self.marks.load(Relaxed) & !STALE_PLAN;
        self.marks.store(if stale_plan { marks | STALE_PLAN } else { marks }, Relaxed);
    }

    /// A request succeeded that is no rollback: whatever failed before was overcome.
    pub(super) fn overcome(&self) {
        if self.error.load(Relaxed) != 0 {
            self.error.store(0, Relaxed);
        }
    }

    pub(super) fn commit(&self) {
        self.marks.store(self.marks.load(Relaxed) | COMMITTED, Relaxed);
    }

    pub(super) fn set_risk(&self, risk: Risk) {
        self.risk.store(risk as u8, Relaxed);
    }

    #[inline]
    pub(super) fn is_last_error(&self, code: ErrorCode) -> bool {
        self.error.load(Relaxed) == code.to_bits()
    }

    /// What stands here; `is_of_this_hold` is whether anything was asked in the hold that is meant.
    pub(super) fn read(&self, is_of_this_hold: bool, ended: bool) -> Evidence {
        if !is_of_this_hold {
            return Evidence { ended, ..Evidence::default() };
        }
        let marks = self.marks.load(Relaxed);
        Evidence {
            error: ErrorCode::from_bits(self.error.load(Relaxed)),
            stale_plan: marks & STALE_PLAN != 0,
            committed: marks & COMMITTED != 0,
            risk: Risk::ALL.get(usize::from(self.risk.load(Relaxed))).copied().unwrap_or(Risk::Commit),
            ended,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_counts_until_something_succeeds_and_what_lasted_counts_on() {
        let trace = Trace::default();
        let complaint = ServerError { code: ErrorCode::word("0A000"), stale_plan: true, fatal: false };
        trace.complain(complaint);
        trace.commit();
        trace.set_risk(Risk::Statement);
        let evidence = trace.read(true, false);
        assert_eq!((evidence.error, evidence.stale_plan), (Some(ErrorCode::word("0A000")), true));
        assert_eq!((evidence.committed, evidence.risk), (true, Risk::Statement));
        trace.complain(ServerError { code: ErrorCode::word("40001"), stale_plan: false, ..complaint });
        let evidence = trace.read(true, true);
        assert_eq!(
            (evidence.error, evidence.stale_plan, evidence.ended),
            (Some(ErrorCode::word("40001")), false, true)
        );
        trace.complain(ServerError { code: IN_FAILED_TRANSACTION, ..complaint });
        assert_eq!(trace.read(true, true).error, Some(ErrorCode::word("40001")));
        trace.overcome();
        assert_eq!((trace.read(true, false).error, trace.read(true, false).committed), (None, true));
        trace.begin();
        assert!(!trace.read(true, false).committed);
        trace.commit();
        assert_eq!(trace.read(false, true), Evidence { ended: true, ..Evidence::default() });
    }
}
