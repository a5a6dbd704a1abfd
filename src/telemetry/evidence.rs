//! What the wire shows about one checkout's use of a connection: the last error of the server, and whether any
//! statement may have taken effect. Retries are decided from it.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU8, AtomicU64};

use crate::labels::ErrorCode;

/// What would be unknown if the pending requests were never answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Risk {
    /// Nothing: they would have no lasting effect.
    #[default]
    None,
    /// Whether a statement outside a transaction took effect.
    Statement,
    /// Whether a COMMIT took effect.
    Commit,
}

impl Risk {
    const ALL: [Self; 3] = [Self::None, Self::Statement, Self::Commit];
}

/// An error reported by the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ServerError {
    pub(crate) code: ErrorCode,
    /// Whether the cached plan of a prepared statement is out of date.
    pub(crate) stale_plan: bool,
    /// Whether it terminates the session.
    pub(crate) fatal: bool,
}

/// What is known about one use of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Evidence {
    /// The last error, unless a request succeeded after it.
    pub(crate) error: Option<ErrorCode>,
    pub(crate) stale_plan: bool,
    /// Whether something was committed.
    pub(crate) committed: bool,
    /// What is unknown about the requests that were not answered.
    pub(crate) risk: Risk,
    /// Whether the session has ended.
    pub(crate) ended: bool,
}

/// in_failed_sql_transaction
const IN_FAILED_TRANSACTION: ErrorCode = ErrorCode::new("25P02");

const COMMITTED: u8 = 1;
const STALE_PLAN: u8 = 2;

/// The cells that the evidence is read from. The connection's task writes them before it passes a reply on.
#[derive(Debug, Default)]
pub(super) struct EvidenceCells {
    /// The code of the last error; zero if there is none.
    pub(super) error: AtomicU64,
    flags: AtomicU8,
    risk: AtomicU8,
}

impl EvidenceCells {
    /// Clears the evidence of the previous use.
    pub(super) fn begin(&self) {
        self.error.store(0, Relaxed);
        self.flags.store(0, Relaxed);
    }

    pub(super) fn record_error(&self, ServerError { code, stale_plan, .. }: ServerError) {
        // This code only repeats that there was an error before.
        if code == IN_FAILED_TRANSACTION && self.error.load(Relaxed) != 0 {
            return;
        }
        self.error.store(code.to_bits(), Relaxed);
        let flags = self.flags.load(Relaxed) & !STALE_PLAN;
        self.flags.store(if stale_plan { flags | STALE_PLAN } else { flags }, Relaxed);
    }

    /// Records that a request other than a rollback succeeded, which makes earlier errors irrelevant.
    pub(super) fn clear_error(&self) {
        if self.error.load(Relaxed) != 0 {
            self.error.store(0, Relaxed);
        }
    }

    pub(super) fn commit(&self) {
        self.flags.store(self.flags.load(Relaxed) | COMMITTED, Relaxed);
    }

    pub(super) fn set_risk(&self, risk: Risk) {
        self.risk.store(risk as u8, Relaxed);
    }

    /// Returns the evidence. `is_current` is whether the cells belong to the use in question; a use without requests
    /// has none.
    pub(super) fn read(&self, is_current: bool, ended: bool) -> Evidence {
        if !is_current {
            return Evidence { ended, ..Evidence::default() };
        }
        let flags = self.flags.load(Relaxed);
        Evidence {
            error: ErrorCode::from_bits(self.error.load(Relaxed)),
            stale_plan: flags & STALE_PLAN != 0,
            committed: flags & COMMITTED != 0,
            risk: Risk::ALL.get(usize::from(self.risk.load(Relaxed))).copied().unwrap_or(Risk::Commit),
            ended,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_is_cleared_by_success_and_commit_is_kept() {
        let cells = EvidenceCells::default();
        let error = ServerError { code: ErrorCode::new("0A000"), stale_plan: true, fatal: false };
        cells.record_error(error);
        cells.commit();
        cells.set_risk(Risk::Statement);
        let evidence = cells.read(true, false);
        assert_eq!((evidence.error, evidence.stale_plan), (Some(ErrorCode::new("0A000")), true));
        assert_eq!((evidence.committed, evidence.risk), (true, Risk::Statement));
        cells.record_error(ServerError { code: ErrorCode::new("40001"), stale_plan: false, ..error });
        let evidence = cells.read(true, true);
        assert_eq!((evidence.error, evidence.stale_plan, evidence.ended), (Some(ErrorCode::new("40001")), false, true));
        cells.record_error(ServerError { code: IN_FAILED_TRANSACTION, ..error });
        assert_eq!(cells.read(true, true).error, Some(ErrorCode::new("40001")));
        cells.clear_error();
        assert_eq!((cells.read(true, false).error, cells.read(true, false).committed), (None, true));
        cells.begin();
        assert!(!cells.read(true, false).committed);
        cells.commit();
        assert_eq!(cells.read(false, true), Evidence { ended: true, ..Evidence::default() });
    }
}
