//! Asks the server what it says of itself, beside the pool.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use deadpool::managed::Manager as _;
use thiserror::Error;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_postgres::{SimpleQueryMessage, SimpleQueryRow};

use super::client::Client;
use super::error::ConnectError;
use super::{Pool, PostgresManager};
use crate::pool::core::WeakCore;
use crate::telemetry::ledger::Ledger;
use crate::telemetry::server::ServerAccount;
use crate::telemetry::{BackendState, Backends, ServerLook, ServerRole, ServerView};

/// How long the server may take to answer. To connect may take `connect_timeout` beside it.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

const QUESTION: &str = include_str!("server.sql");

impl Pool {
    /// Asks the server every so often what it says of itself, for the `poolscope_server_…` metrics and
    /// [`PoolSnapshot::server`](crate::telemetry::PoolSnapshot::server): its backends by application and state, the slots
    /// it has left, who waits for locks. So what the pools of all its clients count can be held against it.
    ///
    /// Spawn it, once for each server. It asks at once, then each time `every` is over, and never ends by itself as long as
    /// the pool lives: it holds no handle to it, and ends when the last one is dropped, or the pool is closed, at the next
    /// time to ask. An `every` of zero is one of a millisecond.
    ///
    /// It has a connection of its own, made by the pool's settings and kept from one time to the next, so that it sees the
    /// server where the pool has run out, and none of the pool's accounts has it in. The server counts it, as one more
    /// backend of `application_name`. The role needs no privilege; `pg_monitor` shows it what other roles' backends are at.
    ///
    /// What fails is logged once, until it succeeds again; meanwhile `poolscope_server_up` is 0. A server that does not answer is given
    /// up after 5 s, one that cannot be connected to after `connect_timeout`; until then, what was seen last is shown.
    ///
    /// ```no_run
    /// # fn example(pool: poolscope::Pool) {
    /// tokio::spawn(pool.watch_server(std::time::Duration::from_secs(15)));
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// When polled outside a tokio runtime with its time driver enabled.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the connection, and what was seen is no longer shown.
    pub fn watch_server(&self, every: Duration) -> impl Future<Output = ()> + Send + use<> {
        let pool = self.downgrade();
        let shown = Shown(Arc::downgrade(self.shared().watchers.ledger()));
        async move {
            let _shown = shown;
            let mut watch = Watch { client: None, failing: false };
            let mut ticks = interval(every.max(Duration::from_millis(1)));
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                let Some(pool) = open(&pool) else { return };
                watch.look(&pool).await;
            }
        }
    }
}

impl Pool {
    /// What the server says of itself now, on a connection that is made for that and closed. Nobody is shown it.
    #[cfg(feature = "cli")]
    pub(crate) async fn server_view(&self) -> Result<ServerView, LookError> {
        Watch { client: None, failing: false }.ask(self.backend(), self.shared().watchers.ledger().server()).await
    }
}

/// The pool, unless it is closed or gone.
fn open(pool: &WeakCore<PostgresManager>) -> Option<Pool> {
    pool.upgrade().filter(|pool| !pool.is_closed())
}

/// Takes back what is shown of the server, when nobody looks any more.
struct Shown(Weak<Ledger>);

impl Drop for Shown {
    fn drop(&mut self) {
        if let Some(ledger) = self.0.upgrade() {
            ledger.server().forget();
        }
    }
}

/// What is kept from one look to the next.
struct Watch {
    client: Option<Client>,
    /// Whether the last look failed, and was told of.
    failing: bool,
}

impl Watch {
    async fn look(&mut self, pool: &Pool) {
        let ledger = pool.shared().watchers.ledger();
        let seen = self.ask(pool.backend(), ledger.server()).await;
        let failed = seen.is_err();
        match (&seen, self.failing) {
            (Err(error), false) => {
                tracing::warn!(pool = pool.name(), error = %Chain(error), "the server does not say how it is");
            }
            (Ok(_), true) => tracing::info!(pool = pool.name(), "the server says again how it is"),
            _ => {}
        }
        self.failing = failed;
        ledger.server().keep(seen.map_or(ServerLook::Failed, |view| ServerLook::Seen(Arc::new(view))));
    }

    async fn ask(&mut self, manager: &PostgresManager, account: &ServerAccount) -> Result<ServerView, LookError> {
        // Taken out, so that one that did not answer is closed, whatever it is still at.
        let client = match self.client.take().filter(|client| !client.is_closed()) {
            Some(client) => client,
            None => manager.create().await?,
        };
        let answer = timeout(ANSWER_WITHIN, client.simple_query(QUESTION)).await;
        let answer = answer.map_err(|_| LookError::Silent)?.map_err(LookError::Refused)?;
        self.client = Some(client);
        read(&answer, account)
    }
}

/// Why the server was not seen.
#[derive(Debug, Error)]
pub(crate) enum LookError {
    /// It cannot be connected to.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// It does not answer.
    #[error("it has not answered for {ANSWER_WITHIN:?}")]
    Silent,
    /// It answers with an error.
    #[error("it refuses to")]
    Refused(#[source] tokio_postgres::Error),
    /// Something else than PostgreSQL answers, or a version that nobody knows yet.
    #[error("what it says of `{0}` is not understood")]
    Strange(&'static str),
}

/// What happened, and all that it came from.
struct Chain<'a>(&'a LookError);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)?;
        let mut source = std::error::Error::source(self.0);
        while let Some(cause) = source {
            write!(f, ": {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}

/// What the rows say together.
fn read(answer: &[SimpleQueryMessage], account: &ServerAccount) -> Result<ServerView, LookError> {
    let rows = answer.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let mut rows = rows.peekable();
    // At least the one that asks is there.
    let first = *rows.peek().ok_or(LookError::Strange("pg_stat_activity"))?;
    let mut view = ServerView {
        version: text(first, "version").and_then(|text| text.split_whitespace().next()).unwrap_or_default().into(),
        role: if text(first, "standby") == Some("t") { ServerRole::Standby } else { ServerRole::Primary },
        backends: Vec::new(),
        slots: number(first, "slots")?,
        slots_left: number(first, "slots_left")?,
        lock_waiters: 0,
        oldest_transaction: Duration::ZERO,
        oldest_idle_in_transaction: Duration::ZERO,
    };
    // Several names may be one, beyond those that are told apart; and several states.
    let mut backends = BTreeMap::<(Arc<str>, BackendState), u64>::new();
    for row in rows {
        let application = account.application(text(row, "application_name").unwrap_or_default());
        let state = BackendState::from_server(text(row, "state"));
        *backends.entry((application, state)).or_default() += number::<u64>(row, "backends")?;
        view.lock_waiters += number::<u64>(row, "lock_waiters")?;
        view.oldest_transaction = view.oldest_transaction.max(age(row, "transaction_seconds")?);
        view.oldest_idle_in_transaction = view.oldest_idle_in_transaction.max(age(row, "idle_in_transaction_seconds")?);
    }
    let counted = |((application, state), count)| Backends { application, state, count };
    view.backends = backends.into_iter().map(counted).collect();
    Ok(view)
}

fn text<'a>(row: &'a SimpleQueryRow, column: &str) -> Option<&'a str> {
    row.try_get(column).ok().flatten()
}

fn number<T: FromStr>(row: &SimpleQueryRow, column: &'static str) -> Result<T, LookError> {
    text(row, column).and_then(|text| text.parse().ok()).ok_or(LookError::Strange(column))
}

/// Seconds; a server whose clock was set back may say less than none.
fn age(row: &SimpleQueryRow, column: &'static str) -> Result<Duration, LookError> {
    let seconds: f64 = number(row, column)?;
    Ok(Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or_default())
}
