//! What a holder has changed in the session of a connection.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicI64, AtomicU8};

/// The state of a session beyond its transaction, written by the connection's task before it passes a reply on.
#[derive(Debug, Default)]
pub(crate) struct SessionState {
    flags: AtomicU8,
    /// The database of the connection's configuration.
    database: AtomicI64,
}

/// A `MULTI` was answered, and no `EXEC` or `DISCARD`.
pub(super) const MULTI: u8 = 1;
/// Another database was selected.
pub(super) const DATABASE: u8 = 2;
/// There are subscriptions.
pub(super) const SUBSCRIBED: u8 = 4;
/// Something was changed that the pool does not restore: the user, the protocol, tracking, whether the server replies.
pub(super) const CHANGED: u8 = 8;
/// A command is pending that waits at the server for something to happen.
pub(super) const BLOCKED: u8 = 16;

impl SessionState {
    /// Begins the session of the connection's first holder, after authentication and the selection of `database`.
    pub(crate) fn begin(&self, database: i64) {
        self.database.store(database, Relaxed);
        self.flags.store(0, Relaxed);
    }

    pub(super) fn set(&self, flag: u8, on: bool) {
        let flags = self.flags.load(Relaxed);
        let changed = if on { flags | flag } else { flags & !flag };
        if changed != flags {
            self.flags.store(changed, Relaxed);
        }
    }

    pub(super) fn is_own_database(&self, database: Option<i64>) -> bool {
        database == Some(self.database.load(Relaxed))
    }

    fn has(&self, flags: u8) -> bool {
        self.flags.load(Relaxed) & flags != 0
    }

    /// Returns whether commands are queued for a transaction.
    pub(crate) fn is_queueing(&self) -> bool {
        self.has(MULTI)
    }

    /// Returns whether another database is selected.
    pub(crate) fn is_elsewhere(&self) -> bool {
        self.has(DATABASE)
    }

    /// Returns whether the session has something that the next holder must not inherit.
    #[inline]
    pub(crate) fn is_changed(&self) -> bool {
        self.has(DATABASE | SUBSCRIBED | CHANGED)
    }

    /// Returns whether the pool cannot restore the session.
    pub(crate) fn is_lost(&self) -> bool {
        self.has(SUBSCRIBED | CHANGED)
    }

    /// Returns whether a command is pending that waits at the server for something to happen.
    pub(crate) fn is_blocked(&self) -> bool {
        self.has(BLOCKED)
    }
}
