//! What a pool's server says of itself.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::names::{Interned, Names};
use crate::event::words;

/// The longest `application_name` that PostgreSQL keeps, in bytes.
const MAX_APPLICATION_BYTES: usize = 63;

/// What a backend that says no name is counted under.
const UNNAMED: &str = "unnamed";

words! {
    /// What a backend is at, as the server's `pg_stat_activity` has it.
    BackendState {
        /// At a query.
        Active => "active",
        /// Waiting for its client, outside of a transaction.
        Idle => "idle",
        /// Waiting for its client, within a transaction.
        IdleInTransaction => "idle_in_transaction",
        /// The same, after an error in it.
        IdleInTransactionAborted => "idle_in_transaction_aborted",
        /// None of these: starting, say, or not told by a server with `track_activities` off.
        Other => "other",
        /// Hidden from the role that asks, which lacks `pg_monitor`.
        Hidden => "hidden",
    }
}

impl BackendState {
    /// From `pg_stat_activity.state`, which is null of backends that one may not look at.
    pub(crate) fn from_server(state: Option<&str>) -> Self {
        match state {
            None => Self::Hidden,
            Some("active" | "fastpath function call") => Self::Active,
            Some("idle") => Self::Idle,
            Some("idle in transaction") => Self::IdleInTransaction,
            Some("idle in transaction (aborted)") => Self::IdleInTransactionAborted,
            Some(_) => Self::Other,
        }
    }
}

words! {
    /// What part a server has in replication.
    ServerRole {
        /// It takes writes.
        Primary => "primary",
        /// It follows another, and is in recovery.
        Standby => "standby",
    }
}

/// How many backends an application has in one state.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Backends {
    /// Their `application_name`; `unnamed` if they have none, and `other` beyond the 200 that are told apart.
    pub application: Arc<str>,
    /// What they are at.
    pub state: BackendState,
    /// How many there are.
    pub count: u64,
}

/// What a server said of itself when it was last asked, by [`Pool::watch_server`](crate::Pool::watch_server).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ServerView {
    /// Its version, as `17.2`.
    pub version: Arc<str>,
    /// Its part in replication.
    pub role: ServerRole,
    /// The clients' backends of the whole server, whichever database they are in, by application and state; the one that asked is
    /// among them.
    pub backends: Vec<Backends>,
    /// How many backends of clients there may be without the reserved ones; in the pool's database, where that has a limit of its
    /// own which is less.
    pub slots: u64,
    /// How many more of them there may be.
    pub slots_left: u64,
    /// How many wait for a lock that another holds.
    pub lock_waiters: u64,
    /// The age of the oldest transaction.
    pub oldest_transaction: Duration,
    /// The longest time for which a transaction has been waiting for its client.
    pub oldest_idle_in_transaction: Duration,
}

/// How it went when the server was last asked.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum ServerLook {
    /// It answered.
    Seen(Arc<ServerView>),
    /// It could not be reached, or did not answer.
    Failed,
}

/// What is known of a pool's server.
#[derive(Debug, Default)]
pub(crate) struct ServerAccount {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    latest: Option<ServerLook>,
    /// Made when the server is first seen: most pools never ask.
    applications: Option<Names>,
}

impl ServerAccount {
    /// What the server last said; `None` while nobody asks.
    pub(crate) fn latest(&self) -> Option<ServerLook> {
        self.lock().latest.clone()
    }

    /// Keeps what it said now, and forgets what it said before.
    pub(crate) fn keep(&self, look: ServerLook) {
        self.lock().latest = Some(look);
    }

    /// Nobody asks any more: what was said is no longer so.
    pub(crate) fn forget(&self) {
        self.lock().latest = None;
    }

    /// The name under which an application is counted. Names come from whoever connects, so only so many are told apart.
    pub(crate) fn application(&self, name: &str) -> Arc<str> {
        let mut inner = self.lock();
        let names = inner.applications.get_or_insert_with(|| Names::new(MAX_APPLICATION_BYTES));
        match names.id(if name.is_empty() { UNNAMED } else { name }) {
            Interned::Known(id) => names.shared_name(id),
            Interned::Refused => names.shared_name(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Whole between any two lines.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::names::MAX_NAMES;

    #[test]
    fn a_backends_state_is_one_of_a_closed_set() {
        let state = |text| BackendState::from_server(text).as_str();
        assert_eq!(state(Some("active")), "active");
        assert_eq!(state(Some("idle in transaction")), "idle_in_transaction");
        assert_eq!(state(Some("idle in transaction (aborted)")), "idle_in_transaction_aborted");
        assert_eq!(state(Some("something that a later version has")), "other");
        assert_eq!(state(None), "hidden");
    }

    #[test]
    fn applications_are_told_apart_up_to_a_bound() {
        let account = ServerAccount::default();
        assert_eq!(&*account.application(""), "unnamed");
        for n in 1..MAX_NAMES {
            let name = format!("app {n}");
            assert_eq!(*account.application(&name), name);
        }
        assert_eq!(&*account.application("one too many"), "other");
        assert_eq!(&*account.application("app 7"), "app 7");
    }

    #[test]
    fn what_nobody_asks_for_any_more_is_forgotten() {
        let account = ServerAccount::default();
        assert_eq!(account.latest(), None);
        account.keep(ServerLook::Failed);
        assert_eq!(account.latest(), Some(ServerLook::Failed));
        account.forget();
        assert_eq!(account.latest(), None);
    }
}
