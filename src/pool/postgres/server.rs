//! Asks the server what it says of itself, beside the pool.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use thiserror::Error;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_postgres::{SimpleQueryMessage, SimpleQueryRow};

use super::Pool;
use super::client::Client;
use super::connect::Connector;
use super::error::ConnectError;
use crate::telemetry::log::Chain;
use crate::telemetry::server::ServerAccount;
use crate::telemetry::{BackendState, Backends, ServerLook, ServerRole, ServerView, Watcher};

/// How long connecting may take, and then the answer. The server gives up a little earlier.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// How long it may take to have the server give up what it has not answered.
const CANCEL_WITHIN: Duration = Duration::from_secs(2);

/// The longest pause after looks at a server that is silent. Each may have left a backend there that hangs.
const SILENT_PAUSE: Duration = Duration::from_secs(60);

/// At once where the role may see everything; for any other, its own backends and how many others there are.
const QUESTION: &str = include_str!("server.sql");

impl Pool {
    /// Asks the server every so often what it says of itself, for the `poolscope_server_…` metrics and
    /// [`PoolSnapshot::server`](crate::telemetry::PoolSnapshot::server): its backends by application and state, the slots
    /// it has left, who waits for locks. So what the pools of all its clients count can be held against it.
    ///
    /// Spawn it, once for each server. It asks at once, then each time `every` is over, and ends when the pool is closed or its
    /// last handle is dropped: it holds none. An `every` of zero is one of a millisecond.
    ///
    /// It has a connection of its own, made by the pool's settings and kept from one time to the next, so that it sees the
    /// server where the pool has run out, and none of the pool's accounts has it in. The server counts it, as one more
    /// backend of `application_name`. The role needs no privilege to see its own; `pg_monitor` shows it what other roles'
    /// backends are at. Without it a parallel worker of theirs counts as one more backend, so that fewer slots seem left.
    ///
    /// A look that fails is logged once, until one succeeds again; meanwhile `poolscope_server_up` is 0. A server is given up that
    /// is not connected to within 5 s (or `connect_timeout`, if that is less), or does not answer for 5 s; until then, what
    /// was seen last is shown. After such a one the pause doubles, up to a minute.
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
    /// Dropping the future closes the connection, and what it saw is no longer shown.
    pub fn watch_server(&self, every: Duration) -> impl Future<Output = ()> + Send + use<> {
        let (shared, connector) = (Arc::downgrade(self.shared_handle()), self.backend().connector().clone());
        async move {
            let Some(shared) = shared.upgrade() else { return };
            let ledger = shared.recorder.ledger();
            let shown = Shown { account: ledger.server(), watcher: ledger.server().watcher() };
            let mut watch = Watch { asker: Asker { connector, client: None }, failing: false };
            tokio::select! {
                biased;
                () = shared.closing() => {}
                () = watch.go_on(&shown, ledger.name(), every.max(Duration::from_millis(1))) => {}
            }
        }
    }

    /// What the server says of itself now, on a connection that is made for that and closed. Nobody is shown it.
    #[cfg(feature = "cli")]
    pub(crate) async fn server_view(&self) -> Result<ServerView, LookError> {
        Asker { connector: self.backend().connector().clone(), client: None }.ask().await
    }
}

/// What a watch shows, which is taken back when nobody looks any more.
struct Shown<'a> {
    account: &'a ServerAccount,
    watcher: Watcher,
}

impl Shown<'_> {
    fn show(&self, look: ServerLook) {
        self.account.keep(self.watcher, look);
    }
}

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        self.account.forget(self.watcher);
    }
}

/// What is kept from one look to the next.
struct Watch {
    asker: Asker,
    /// Whether the last look failed, and was told of.
    failing: bool,
}

impl Watch {
    async fn go_on(&mut self, shown: &Shown<'_>, pool: &str, every: Duration) {
        let mut pause = every;
        loop {
            let begun = Instant::now();
            let seen = self.asker.ask().await;
            self.tell(pool, seen.as_ref().err());
            pause = match &seen {
                Err(error) if error.is_silence() => (pause * 2).min(SILENT_PAUSE.max(every)),
                _ => every,
            };
            shown.show(seen.map_or(ServerLook::Failed, |view| ServerLook::Seen(Arc::new(view))));
            sleep_until(begun + pause).await;
        }
    }

    fn tell(&mut self, pool: &str, error: Option<&LookError>) {
        match (error, self.failing) {
            (Some(error), false) => {
                tracing::warn!(pool, error = %Chain(error), "the server does not say how it is");
            }
            (None, true) => tracing::info!(pool, "the server says again how it is"),
            _ => {}
        }
        self.failing = error.is_some();
    }
}

/// Who asks.
struct Asker {
    connector: Connector,
    client: Option<Client>,
}

impl Asker {
    async fn ask(&mut self) -> Result<ServerView, LookError> {
        // Taken out, so that one that did not answer is closed, whatever it is still at.
        let client = match self.client.take().filter(|client| !client.is_closed()) {
            Some(client) => client,
            None => match timeout(CONNECT_WITHIN, self.connector.client(None)).await {
                Ok(connected) => connected?,
                Err(_) => return Err(LookError::NotConnected),
            },
        };
        match timeout(ANSWER_WITHIN, client.simple_query(QUESTION)).await {
            Err(_) => {
                // Who only hung up would leave it to go on with this.
                let _ = timeout(CANCEL_WITHIN, client.cancel_token().cancel()).await;
                Err(LookError::Silent)
            }
            Ok(answer) => {
                self.client = Some(client);
                read(&answer.map_err(LookError::Refused)?)
            }
        }
    }
}

/// Why the server was not seen.
#[derive(Debug, Error)]
pub(crate) enum LookError {
    /// It cannot be connected to.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The same, for longer than one waits for it here.
    #[error("not connected to PostgreSQL within {CONNECT_WITHIN:?}")]
    NotConnected,
    /// It does not answer.
    #[error("connected, and not answered within {ANSWER_WITHIN:?}")]
    Silent,
    /// It answers with an error.
    #[error("connected, and not answered")]
    Refused(#[source] tokio_postgres::Error),
    /// Something else than PostgreSQL answers, or a version that nobody knows yet.
    #[error("connected, and what is said of `{0}` is not understood")]
    Strange(&'static str),
}

impl LookError {
    /// Whether the server let one wait, and may still be at what it was asked.
    fn is_silence(&self) -> bool {
        matches!(self, Self::NotConnected | Self::Silent | Self::Connect(ConnectError::Timeout { .. }))
    }
}

/// What the rows say together.
fn read(answer: &[SimpleQueryMessage]) -> Result<ServerView, LookError> {
    let rows = answer.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let mut rows = rows.peekable();
    // At least the one that asks is there.
    let first = *rows.peek().ok_or(LookError::Strange("pg_stat_activity"))?;
    let mut view = ServerView {
        seen_at: SystemTime::now(),
        version: text(first, "version").and_then(|text| text.split_whitespace().next()).unwrap_or_default().into(),
        role: if text(first, "standby") == Some("t") { ServerRole::Standby } else { ServerRole::Primary },
        backends: Vec::new(),
        slots: number(first, "slots")?,
        slots_left: number(first, "slots_left")?,
        lock_waiters: 0,
        oldest_transaction: age(first, "prepared_seconds")?,
        oldest_idle_in_transaction: Duration::ZERO,
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
    number(row, column).map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or_default())
}
