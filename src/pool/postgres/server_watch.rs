//! Reads the server's state, on a connection outside the pool.

use std::collections::{BTreeMap, HashSet};
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use thiserror::Error;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_postgres::{SimpleQueryMessage, SimpleQueryRow};

use super::super::pool::Pool;
use super::client::Client;
use super::connect::Connector;
use super::error::ConnectError;
use super::session::bounded_query;
use crate::labels::{BackendState, ClientAddress, ServerRole};
use crate::telemetry::log::Log;
use crate::telemetry::server::{LatestServerView, OwnBackends, ServerWatcher, UNNAMED};
use crate::telemetry::{Backends, BlockedBackend, Collector, ServerPoll, ServerView};
use crate::text::printable;
use crate::wire::AnswerLimit;

/// The timeouts of connecting and of the query. The server's own statement timeout is a little shorter.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const QUERY_TIMEOUT: Duration = Duration::from_secs(5);

/// The timeout of cancelling a query that was not answered in time.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(2);

/// The bounds of the answer. The query groups the backends, so that it is far smaller.
const MAX_ANSWER: AnswerLimit = AnswerLimit::Bytes(1024 * 1024);
const MAX_ANSWER_MESSAGES: usize = 10_000;

/// The longest interval between queries of a server that does not answer. Each may leave a hanging backend there.
const MAX_UNRESPONSIVE_INTERVAL: Duration = Duration::from_secs(60);

/// Reads all backends if the role may see them; otherwise the role's own in detail, and the number of others.
const SERVER_QUERY: &str = include_str!("server_watch.sql");

impl Pool {
    /// Queries the server's state periodically, for the `poolscope_server_…` metrics and
    /// [`PoolSnapshot::server`](crate::telemetry::PoolSnapshot::server): its backends by application and state, the
    /// connection slots left, lock waits. The counts of all clients' pools can be compared with it.
    ///
    /// Spawn it once for each server. It queries at once and then at the interval `every` (at least one millisecond),
    /// and ends when the pool is closed or its last handle is dropped; it does not hold one itself.
    ///
    /// It has a connection of its own, with the pool's settings, which it keeps between queries: it also works when the
    /// pool is exhausted, and no other metric of the pool counts it. The server counts it as one more backend of
    /// `application_name`. The role needs no privilege to see its own backends; with `pg_monitor` it sees the state of
    /// other roles' too. Without that, their parallel workers count as backends, so that fewer slots seem left.
    ///
    /// The first failure is logged, and so is the next success; in between `poolscope_server_up` is 0. A query fails if
    /// connecting takes longer than 5 s (or `connect_timeout`, if shorter), or the answer takes longer than 5 s. The
    /// previous state remains visible until then. After such a timeout the interval doubles, up to one minute.
    ///
    /// ```no_run
    /// # fn example(pool: poolscope::Pool) {
    /// tokio::spawn(pool.watch_server(std::time::Duration::from_secs(15)));
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// Panics if polled outside a tokio runtime with its time driver enabled.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the connection and removes the server's state from the metrics.
    pub fn watch_server(&self, every: Duration) -> impl Future<Output = ()> + Send + use<> {
        let (shared, reader) = (Arc::downgrade(self.shared_handle()), ServerReader::new(self));
        async move {
            let Some(shared) = shared.upgrade() else { return };
            let ledger = shared.recorder.ledger();
            let published = Published { account: ledger.server(), watcher: ledger.server().watcher() };
            let mut watch = ServerWatch { reader, unowned: Default::default() };
            tokio::select! {
                biased;
                () = shared.closing() => {}
                () = watch.run(&published, ledger.log(), every.max(Duration::from_millis(1))) => {}
            }
        }
    }

    /// Queries the server's state once, on a connection of its own. Does not publish it.
    ///
    /// # Errors
    ///
    /// Returns an error if the server cannot be connected to or does not answer as PostgreSQL does.
    pub async fn server_view(&self) -> Result<ServerView, ServerViewError> {
        let (mut view, backends) = ServerReader::new(self).read().await?;
        view.unowned = (!backends.unknown).then(|| backends.in_both(&backends.unowned));
        Ok(view)
    }
}

/// The published state of a watch, which is removed when the watch ends.
struct Published<'a> {
    account: &'a LatestServerView,
    watcher: ServerWatcher,
}

impl Published<'_> {
    fn publish(&self, look: ServerPoll) {
        self.account.set(self.watcher, look);
    }
}

impl Drop for Published<'_> {
    fn drop(&mut self) {
        self.account.clear(self.watcher);
    }
}

/// The state kept between queries.
struct ServerWatch {
    reader: ServerReader,
    /// The backends without an owner as of the last query, by [`ClientAddress::ALL`].
    unowned: [HashSet<i32>; ClientAddress::COUNT],
}

impl ServerWatch {
    async fn run(&mut self, published: &Published<'_>, log: Log<'_>, every: Duration) {
        let mut pause = every;
        loop {
            let begun = Instant::now();
            let result = self.reader.read().await.map(|(mut view, backends)| {
                if let Some(pid) = backends.own {
                    published.account.set_backend(published.watcher, pid);
                }
                view.unowned = (!backends.unknown).then(|| backends.in_both(&self.unowned));
                self.unowned = backends.unowned;
                view
            });
            match &result {
                Ok(_) => log.server_view_succeeded(),
                Err(error) => log.server_view_failed(error),
            }
            pause = match &result {
                Err(error) if error.is_unresponsive() => (pause * 2).min(MAX_UNRESPONSIVE_INTERVAL.max(every)),
                _ => every,
            };
            published.publish(result.map_or(ServerPoll::Failed, |view| ServerPoll::Seen(Arc::new(view))));
            sleep_until(begun + pause).await;
        }
    }
}

/// Queries the server's state, and keeps its connection.
struct ServerReader {
    connector: Connector,
    client: Option<Client>,
    /// Knows the pools of this process, and the backends of their connections.
    collector: Collector,
}

impl ServerReader {
    fn new(pool: &Pool) -> Self {
        let connector = pool.backend().connector().with_answers(MAX_ANSWER);
        Self { connector, client: None, collector: pool.shared().collector.clone() }
    }

    async fn read(&mut self) -> Result<(ServerView, ApplicationBackends), ServerViewError> {
        // Taken out, so that it is closed unless the server answers.
        let client = match self.client.take().filter(|client| !client.is_closed()) {
            Some(client) => client,
            None => match timeout(CONNECT_TIMEOUT, Client::connect(&self.connector, None, Arc::default())).await {
                Ok(connected) => connected?,
                Err(_) => return Err(ServerViewError::NotConnected),
            },
        };
        let mut own = OwnBackends::default();
        self.collector.add_own_backends(&mut own);
        match timeout(QUERY_TIMEOUT, bounded_query(&client, SERVER_QUERY, MAX_ANSWER_MESSAGES, usize::MAX)).await {
            Err(_) => {
                // Only closing the connection would leave the query running on the server.
                let _ = timeout(CANCEL_TIMEOUT, client.cancel_token().cancel()).await;
                Err(ServerViewError::NoAnswer)
            }
            Ok(answer) => {
                if answer.as_ref().is_ok_and(|answer| answer.is_too_long) {
                    return Err(ServerViewError::AnswerTooLong);
                }
                self.client = Some(client);
                // Those that were closed meanwhile, and those that were established.
                own.unpooled = 0;
                self.collector.add_own_backends(&mut own);
                parse(&answer.map_err(ServerViewError::Query)?.messages, &own)
            }
        }
    }
}

/// The error of querying the server's state.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ServerViewError {
    /// Connecting failed.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// Connecting took too long.
    #[error("not connected to PostgreSQL within {CONNECT_TIMEOUT:?}")]
    NotConnected,
    /// The query took too long.
    #[error("connected, but the query of the server's state was not answered within {QUERY_TIMEOUT:?}")]
    NoAnswer,
    /// The query failed.
    #[error("connected, but the query of the server's state failed")]
    Query(#[source] tokio_postgres::Error),
    /// The answer has more rows than a server has backends.
    #[error("connected, but the server's answer is too long: check that the address is a PostgreSQL server's")]
    AnswerTooLong,
    /// A column is missing or invalid: the server is not PostgreSQL, or an unknown version.
    #[error("connected, but the server's answer has no valid `{0}`")]
    Unexpected(&'static str),
}

impl ServerViewError {
    /// Returns whether the server did not answer in time, and may still be working on the query.
    fn is_unresponsive(&self) -> bool {
        matches!(self, Self::NotConnected | Self::NoAnswer | Self::Connect(ConnectError::Timeout { .. }))
    }
}

/// The backends with the pool's `application_name`.
#[derive(Debug, Default)]
struct ApplicationBackends {
    /// The process ids of those that no pool of this process owns, by [`ClientAddress::ALL`].
    unowned: [HashSet<i32>; ClientAddress::COUNT],
    /// The number of connections outside the pools, which are among them.
    unpooled: u64,
    /// The one that has answered.
    own: Option<i32>,
    /// Whether those of this process's pools are unknown.
    unknown: bool,
}

impl ApplicationBackends {
    /// Returns the number of backends that have no owner now, nor had one before: a connection that is being established or
    /// closed has none for a moment.
    fn in_both(&self, before: &[HashSet<i32>; ClientAddress::COUNT]) -> [u64; ClientAddress::COUNT] {
        let mut counts = std::array::from_fn(|at| self.unowned[at].intersection(&before[at]).count() as u64);
        let same = &mut counts[ClientAddress::Same.index()];
        *same = same.saturating_sub(self.unpooled);
        counts
    }
}

/// Combines the rows of the answer.
fn parse(
    answer: &[SimpleQueryMessage],
    own: &OwnBackends,
) -> Result<(ServerView, ApplicationBackends), ServerViewError> {
    let rows = answer.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let (blocked, rows): (Vec<_>, Vec<_>) = rows.partition(|row| text(row, "blocked_pid").is_some());
    let (of_application, rows): (Vec<_>, Vec<_>) =
        rows.into_iter().partition(|row| text(row, "same_address").is_some());
    let mut application =
        ApplicationBackends { unpooled: own.unpooled, unknown: own.unknown, ..ApplicationBackends::default() };
    for row in of_application {
        let backend = text(row, "backend").and_then(|pid| pid.parse().ok());
        application.own = backend;
        let same = text(row, "same_address") == Some("t");
        let pids = text(row, "own_pids").unwrap_or_default().split(',').filter_map(|pid| pid.parse().ok());
        let address = if same { ClientAddress::Same } else { ClientAddress::Other };
        let unowned = pids.filter(|pid| !own.pids.contains(pid) && Some(*pid) != backend);
        application.unowned[address.index()].extend(unowned);
    }
    let mut rows = rows.into_iter().peekable();
    // There is at least the backend that runs the query.
    let first = *rows.peek().ok_or(ServerViewError::Unexpected("pg_stat_activity"))?;
    let version = text(first, "version").and_then(|text| text.split_whitespace().next());
    let mut view = ServerView {
        seen_at: SystemTime::now(),
        version: printable(version.unwrap_or_default()).into(),
        role: if text(first, "standby") == Some("t") { ServerRole::Standby } else { ServerRole::Primary },
        backends: Vec::new(),
        slots: number(first, "slots")?,
        slots_left: number(first, "slots_left")?,
        lock_waiters: 0,
        unowned: None,
        oldest_transaction: age(first, "prepared_seconds")?,
        oldest_idle_in_transaction: Duration::ZERO,
        blocked: blocked.into_iter().map(parse_blocked).collect::<Result<_, _>>()?,
    };
    let mut backends = BTreeMap::<(&str, BackendState), u64>::new();
    for row in rows {
        let state = BackendState::from_server(text(row, "state").unwrap_or_default());
        let application = text(row, "application_name").unwrap_or_default();
        *backends.entry((application, state)).or_default() += number::<u64>(row, "backends")?;
        view.lock_waiters += number::<u64>(row, "lock_waiters")?;
        view.oldest_transaction = view.oldest_transaction.max(age(row, "transaction_seconds")?);
        view.oldest_idle_in_transaction = view.oldest_idle_in_transaction.max(age(row, "idle_in_transaction_seconds")?);
    }
    view.backends = Backends::bounded(backends);
    Ok((view, application))
}

fn parse_blocked(row: &SimpleQueryRow) -> Result<BlockedBackend, ServerViewError> {
    let application = text(row, "application_name").filter(|name| !name.is_empty()).unwrap_or(UNNAMED);
    Ok(BlockedBackend {
        pid: number(row, "blocked_pid")?,
        waiting: age(row, "blocked_seconds")?,
        blocker_pid: number(row, "blocker_pid")?,
        blocker_application: printable(application).into(),
        blocker_user: printable(text(row, "usename").unwrap_or_default()).into(),
        blocker_state: BackendState::from_server(text(row, "state").unwrap_or_default()),
        blocker_state_age: age(row, "state_seconds")?,
    })
}

fn text<'a>(row: &'a SimpleQueryRow, column: &str) -> Option<&'a str> {
    row.try_get(column).ok().flatten()
}

fn number<T: FromStr>(row: &SimpleQueryRow, column: &'static str) -> Result<T, ServerViewError> {
    text(row, column).and_then(|text| text.parse().ok()).ok_or(ServerViewError::Unexpected(column))
}

/// Returns an age in seconds, and zero if it is negative because the server's clock was set back.
fn age(row: &SimpleQueryRow, column: &'static str) -> Result<Duration, ServerViewError> {
    number(row, column).map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or_default())
}
