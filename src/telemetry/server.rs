//! What a pool's server says of itself.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use super::names::MAX_NAMES;
use crate::labels::label_enum;

/// What backends are counted under that are not told apart.
const OTHER: &str = "other";

/// What a backend that says no name is counted under.
const UNNAMED: &str = "unnamed";

label_enum! {
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
    /// From `pg_stat_activity.state`; or "hidden".
    pub(crate) fn from_server(state: &str) -> Self {
        match state {
            "active" | "fastpath function call" => Self::Active,
            "idle" => Self::Idle,
            "idle in transaction" => Self::IdleInTransaction,
            "idle in transaction (aborted)" => Self::IdleInTransactionAborted,
            "hidden" => Self::Hidden,
            _ => Self::Other,
        }
    }
}

label_enum! {
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
    /// Their `application_name`; `unnamed` if they have none, and `other` beyond the 200 with the most backends.
    pub application: Arc<str>,
    /// What they are at.
    pub state: BackendState,
    /// How many there are.
    pub count: u64,
}

impl Backends {
    /// Those of the 200 applications that have the most, and all others together: names come from whoever connects.
    pub(crate) fn bounded(counts: BTreeMap<(&str, BackendState), u64>) -> Vec<Self> {
        let named = |name: &'_ str| if name.is_empty() { UNNAMED.to_owned() } else { name.to_owned() };
        let mut sums = BTreeMap::<&str, u64>::new();
        for ((application, _), count) in &counts {
            *sums.entry(application).or_default() += count;
        }
        let mut applications: Vec<_> = sums.into_iter().collect();
        applications.sort_by_key(|(name, count)| (Reverse(*count), *name));
        let known: BTreeSet<_> = applications.iter().take(MAX_NAMES).map(|(name, _)| *name).collect();
        let mut bounded = BTreeMap::<(String, BackendState), u64>::new();
        for ((application, state), count) in counts {
            let name = if known.contains(application) { named(application) } else { OTHER.to_owned() };
            *bounded.entry((name, state)).or_default() += count;
        }
        let backends = bounded.into_iter();
        backends.map(|((application, state), count)| Self { application: application.into(), state, count }).collect()
    }
}

/// What a server said of itself when it was last asked, by [`Pool::watch_server`](crate::Pool::watch_server).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ServerView {
    /// When it said so, by this machine's clock.
    pub seen_at: SystemTime,
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
    /// The age of the oldest transaction, that of who asks left out; a prepared one since it was prepared.
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
    /// Who looked last, and what was seen.
    latest: Option<(Watcher, ServerLook)>,
    recorder: u64,
}

/// One of those who look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Watcher(u64);

impl ServerAccount {
    /// What the server last said; `None` while nobody asks.
    pub(crate) fn latest(&self) -> Option<ServerLook> {
        self.lock().latest.as_ref().map(|(_, look)| look.clone())
    }

    /// Somebody begins to look.
    pub(crate) fn watcher(&self) -> Watcher {
        let mut inner = self.lock();
        inner.recorder += 1;
        Watcher(inner.recorder)
    }

    /// Keeps what was seen now, and forgets what was seen before.
    pub(crate) fn keep(&self, watcher: Watcher, look: ServerLook) {
        self.lock().latest = Some((watcher, look));
    }

    /// This one looks no more: what it saw last is no longer so.
    pub(crate) fn forget(&self, watcher: Watcher) {
        self.lock().latest.take_if(|(by, _)| *by == watcher);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Whole between any two lines.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backends_state_is_one_of_a_closed_set() {
        let state = |text| BackendState::from_server(text).as_str();
        assert_eq!((state("active"), state("fastpath function call")), ("active", "active"));
        assert_eq!(state("idle in transaction"), "idle_in_transaction");
        assert_eq!(state("idle in transaction (aborted)"), "idle_in_transaction_aborted");
        assert_eq!((state("something that a later version has"), state("starting")), ("other", "other"));
        assert_eq!(state("hidden"), "hidden");
    }

    #[test]
    fn the_applications_with_the_most_backends_are_told_apart_whatever_others_call_themselves() {
        let names: Vec<_> = (0..300).map(|n| format!("client {n:03}")).collect();
        let mut counts: BTreeMap<_, _> = names.iter().map(|name| ((&**name, BackendState::Active), 1)).collect();
        counts.insert(("zeal", BackendState::Idle), 1);
        counts.insert(("zeal", BackendState::Active), 1);
        counts.insert(("", BackendState::Idle), 2);
        let backends = Backends::bounded(counts);
        let count = |name: &str, state| {
            let of = backends.iter().find(|of| &*of.application == name && of.state == state);
            of.map(|of| of.count)
        };
        assert_eq!((count("zeal", BackendState::Idle), count("zeal", BackendState::Active)), (Some(1), Some(1)));
        assert_eq!(count("unnamed", BackendState::Idle), Some(2));
        assert_eq!(count("client 197", BackendState::Active), Some(1));
        assert_eq!(
            (count("client 198", BackendState::Active), count("other", BackendState::Active)),
            (None, Some(102))
        );
    }

    #[test]
    fn what_one_saw_is_forgotten_with_it_and_what_another_saw_is_not() {
        let account = ServerAccount::default();
        assert_eq!(account.latest(), None);
        let (one, other) = (account.watcher(), account.watcher());
        account.keep(one, ServerLook::Failed);
        account.forget(other);
        assert_eq!(account.latest(), Some(ServerLook::Failed));
        account.forget(one);
        assert_eq!(account.latest(), None);
    }
}
