//! The server's view of itself: backends, connection slots, lock waits and long transactions.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use super::names::MAX_NAMES;
use super::redis_view::RedisView;
use crate::labels::{BackendState, ClientAddress, ServerRole};
use crate::text::printable;

/// The application name for backends beyond the limit.
const OTHER: &str = "other";

/// The application name for backends that have none.
pub(crate) const UNNAMED: &str = "unnamed";

impl BackendState {
    /// Returns the state for a value of `pg_stat_activity.state`, or for "hidden".
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

/// The number of backends that an application has in one state.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Backends {
    /// The `application_name`; `unnamed` if it is empty, `other` beyond the 200 applications with the most backends.
    pub application: Arc<str>,
    /// The state of the backends.
    pub state: BackendState,
    /// The number of backends.
    pub count: u64,
}

impl Backends {
    /// Returns the counts of the 200 applications with the most backends, and of all others together. Names are limited
    /// because any client can choose one.
    pub(crate) fn bounded(counts: BTreeMap<(&str, BackendState), u64>) -> Vec<Self> {
        let named = |name: &'_ str| if name.is_empty() { UNNAMED.to_owned() } else { printable(name).into_owned() };
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

/// A backend that waits for a lock, and one that blocks it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BlockedBackend {
    /// The process id of the backend that waits.
    pub pid: i32,
    /// The time since its query began.
    pub waiting: Duration,
    /// The process id of a backend that blocks it, by `pg_blocking_pids`; 0 for a prepared transaction.
    pub blocker_pid: i32,
    /// The blocker's `application_name`; `unnamed` if it is empty or hidden.
    pub blocker_application: Arc<str>,
    /// The blocker's user; empty if it is hidden.
    pub blocker_user: Arc<str>,
    /// The blocker's state.
    pub blocker_state: BackendState,
    /// The time since the blocker entered that state.
    pub blocker_state_age: Duration,
}

/// The server's view of itself, as last queried by [`Pool::watch_server`](crate::Pool::watch_server).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ServerView {
    /// When the server replied, by this machine's clock.
    pub seen_at: SystemTime,
    /// The server's version, for example `17.2`.
    pub version: Arc<str>,
    /// The server's role in replication.
    pub role: ServerRole,
    /// Client backends in all databases of the server, by application and state, including the one that ran the query.
    pub backends: Vec<Backends>,
    /// The maximum number of client backends, without reserved ones; or the limit of the pool's database, if that is
    /// lower.
    pub slots: u64,
    /// How many more client backends can connect.
    pub slots_left: u64,
    /// Backends waiting for a lock that another backend holds.
    pub lock_waiters: u64,
    /// The age of the oldest transaction, without the query's own. A prepared transaction counts from its preparation.
    pub oldest_transaction: Duration,
    /// The longest time for which a transaction has been waiting for its client.
    pub oldest_idle_in_transaction: Duration,
    /// Backends with the pool's `application_name` that no connection of this process's pools belongs to, by
    /// [`ClientAddress::ALL`]: those of other instances, or left by a process that has crashed, or kept by a proxy. They are
    /// counted once two consecutive queries have shown them. `None` if `read_wire` is off for a pool of this process.
    pub unowned: Option<[u64; ClientAddress::COUNT]>,
    /// Backends that wait for a lock and who blocks them, those that have waited longest first, at most 50 pairs.
    pub blocked: Vec<BlockedBackend>,
}

#[cfg(test)]
impl ServerView {
    /// Returns the view of a server with a free slot of ten, and nothing to report.
    pub(crate) fn for_tests() -> Self {
        Self {
            seen_at: SystemTime::UNIX_EPOCH,
            version: "17.2".into(),
            role: ServerRole::Primary,
            backends: Vec::new(),
            slots: 10,
            slots_left: 1,
            lock_waiters: 0,
            oldest_transaction: Duration::ZERO,
            oldest_idle_in_transaction: Duration::ZERO,
            unowned: None,
            blocked: Vec::new(),
        }
    }
}

/// The server's backends that belong to the pools of this process.
#[derive(Debug, Default)]
pub(crate) struct OwnBackends {
    /// The process ids of their connections, and of those that query the server's view.
    pub(crate) pids: HashSet<i32>,
    /// The number of connections outside the pools, whose process ids are not known.
    pub(crate) unpooled: u64,
    /// Whether there are connections whose process ids are not known.
    pub(crate) unknown: bool,
}

/// The result of the last query of the server's view.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum ServerPoll {
    /// The server replied.
    Seen(Arc<ServerView>),
    /// The server, which is Redis, replied.
    Redis(Arc<RedisView>),
    /// The server could not be reached or did not reply.
    Failed,
}

/// The last result that any watcher of a pool's server obtained.
#[derive(Debug, Default)]
pub(crate) struct LatestServerView {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    latest: Option<(ServerWatcher, ServerPoll)>,
    /// The number of watchers so far.
    watchers: u64,
    /// The process ids of the backends that answer the watchers.
    backends: BTreeMap<u64, i32>,
}

/// The id of a task that queries the server's view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ServerWatcher(u64);

impl LatestServerView {
    /// Returns the last result, or `None` while the server is not watched.
    pub(crate) fn latest(&self) -> Option<ServerPoll> {
        self.lock().latest.as_ref().map(|(_, poll)| poll.clone())
    }

    /// Registers a watcher.
    pub(crate) fn watcher(&self) -> ServerWatcher {
        let mut inner = self.lock();
        inner.watchers += 1;
        ServerWatcher(inner.watchers)
    }

    /// Replaces the last result.
    pub(crate) fn set(&self, watcher: ServerWatcher, poll: ServerPoll) {
        self.lock().latest = Some((watcher, poll));
    }

    /// Removes the last result if this watcher, which has stopped, obtained it.
    pub(crate) fn clear(&self, watcher: ServerWatcher) {
        let mut inner = self.lock();
        inner.latest.take_if(|(by, _)| *by == watcher);
        inner.backends.remove(&watcher.0);
    }

    /// Sets the process id of the backend that answers a watcher.
    pub(crate) fn set_backend(&self, watcher: ServerWatcher, pid: i32) {
        self.lock().backends.insert(watcher.0, pid);
    }

    /// Returns the process ids of the backends that answer the watchers.
    pub(crate) fn backends(&self) -> Vec<i32> {
        self.lock().backends.values().copied().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic cannot leave the state inconsistent, so a poisoned lock is usable.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backend_states_map_to_a_closed_set() {
        let state = |text| BackendState::from_server(text).as_str();
        assert_eq!((state("active"), state("fastpath function call")), ("active", "active"));
        assert_eq!(state("idle in transaction"), "idle_in_transaction");
        assert_eq!(state("idle in transaction (aborted)"), "idle_in_transaction_aborted");
        assert_eq!((state("something that a later version has"), state("starting")), ("other", "other"));
        assert_eq!(state("hidden"), "hidden");
    }

    #[test]
    fn applications_with_most_backends_are_kept_apart() {
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

    /// Any client chooses its name, and a server that misbehaves sends any text.
    #[test]
    fn application_names_are_printable() {
        let long = "x".repeat(10_000);
        let names = ["a\n\u{1b}[2J\u{202e}", r"a\n\u{1b}[2J\u{202e}", &long];
        let backends = Backends::bounded(names.iter().map(|name| ((*name, BackendState::Active), 1)).collect());
        let names: Vec<_> = backends.iter().map(|of| (&*of.application, of.count)).collect();
        assert_eq!(names, [(r"a\n\u{1b}[2J\u{202e}", 2), (&*printable(&long), 1)]);
    }

    #[test]
    fn result_is_cleared_only_by_its_own_watcher() {
        let view = LatestServerView::default();
        assert_eq!(view.latest(), None);
        let (one, other) = (view.watcher(), view.watcher());
        view.set(one, ServerPoll::Failed);
        view.clear(other);
        assert_eq!(view.latest(), Some(ServerPoll::Failed));
        view.clear(one);
        assert_eq!(view.latest(), None);
    }
}
