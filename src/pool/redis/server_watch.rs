//! Reads the server's state, on a connection outside the pool.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ::redis::{Value, cmd};
use thiserror::Error;
use tokio::time::{Instant, sleep_until, timeout};

use super::Pool;
use super::client::Client;
use super::connect::Connector;
use super::error::{ConnectError, code_of};
use crate::labels::ErrorCode;
use crate::telemetry::server::{LatestServerView, ServerWatcher};
use crate::telemetry::{RedisView, ServerPoll};

/// The timeout of the query. That of connecting is `connect_timeout`.
const QUERY_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest interval between queries of a server that does not answer.
const MAX_UNRESPONSIVE_INTERVAL: Duration = Duration::from_secs(60);

impl Pool {
    /// Queries the server's state (`INFO`) periodically, for the `poolscope_redis_…` metrics and
    /// [`PoolSnapshot::server`](crate::telemetry::PoolSnapshot::server): its clients and their maximum, memory, evictions.
    ///
    /// Spawn it once for each server. It queries at once and then at the interval `every` (at least one millisecond), on a
    /// connection of its own, which it keeps; no other metric of the pool counts it. It ends when the pool is closed or its
    /// last handle is dropped; it does not hold one itself. The user needs the permission for `INFO`.
    ///
    /// The first failure is logged, and so is the next success; in between `poolscope_server_up` is 0. A query fails if the
    /// reply takes longer than 5 s; the interval then doubles, up to one minute.
    ///
    /// ```no_run
    /// # fn example(pool: poolscope::redis::Pool) {
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
        let shared = Arc::downgrade(self.shared_handle());
        let reader = Reader { connector: Arc::clone(self.backend().connector()), client: None };
        async move {
            let Some(shared) = shared.upgrade() else { return };
            let ledger = shared.recorder.ledger();
            let published = Published { account: ledger.server(), watcher: ledger.server().watcher() };
            let watching = async {
                let (mut reader, every) = (reader, every.max(Duration::from_millis(1)));
                let mut pause = every;
                loop {
                    let begun = Instant::now();
                    let result = reader.read().await;
                    match &result {
                        Ok(_) => ledger.log().server_view_succeeded(),
                        Err(error) => ledger.log().server_view_failed(error),
                    }
                    pause = match &result {
                        Err(error) if error.is_unresponsive() => (pause * 2).min(MAX_UNRESPONSIVE_INTERVAL.max(every)),
                        _ => every,
                    };
                    let poll = result.map_or(ServerPoll::Failed, |view| ServerPoll::Redis(Arc::new(view)));
                    published.account.set(published.watcher, poll);
                    sleep_until(begun + pause).await;
                }
            };
            tokio::select! {
                biased;
                () = shared.closing() => {}
                () = watching => {}
            }
        }
    }
}

/// The published state of a watch, which is removed when the watch ends.
struct Published<'a> {
    account: &'a LatestServerView,
    watcher: ServerWatcher,
}

impl Drop for Published<'_> {
    fn drop(&mut self) {
        self.account.clear(self.watcher);
    }
}

/// Queries the server's state, and keeps its connection.
struct Reader {
    connector: Arc<Connector>,
    client: Option<Client>,
}

#[derive(Debug, Error)]
enum ReadError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("connected, but INFO was not answered within {QUERY_TIMEOUT:?}")]
    NoAnswer,
    #[error("connected, but INFO failed: {}", .0.as_str())]
    Command(ErrorCode),
    #[error("connected, but the reply to INFO is not that of Redis")]
    Unexpected,
}

impl ReadError {
    fn is_unresponsive(&self) -> bool {
        matches!(self, Self::NoAnswer | Self::Connect(ConnectError::Timeout { .. }))
    }
}

impl Reader {
    async fn read(&mut self) -> Result<RedisView, ReadError> {
        // Taken out, so that it is closed unless the server answers.
        let mut client = match self.client.take().filter(|client| !client.is_closed()) {
            Some(client) => client,
            None => self.connector.connect(None).await?,
        };
        let packed = cmd("INFO");
        let asked = client.send(&packed);
        let reply = timeout(QUERY_TIMEOUT, asked).await.map_err(|_| ReadError::NoAnswer)?;
        let info = match reply.map_err(|error| ReadError::Command(code_of(&error)))? {
            Value::BulkString(info) => String::from_utf8_lossy(&info).into_owned(),
            Value::VerbatimString { text, .. } => text,
            Value::ServerError(error) => return Err(ReadError::Command(code_of(&error.into()))),
            _ => return Err(ReadError::Unexpected),
        };
        self.client = Some(client);
        RedisView::parse(&info, SystemTime::now()).ok_or(ReadError::Unexpected)
    }
}
