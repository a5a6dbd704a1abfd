//! What the workload runs on: the server, the schema and the pool.

use std::path::Path;
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use poolscope::{Collector, Pool, Settings};
use poolscope_testing::server::{Server, ServerError};
use tokio::sync::watch;

use super::cache::ProductCache;
use super::error::DemoError;
use super::schema::{SCHEMA, SchemaManager};
use crate::output::Console;
use crate::service::{ShutdownReason, shutdown_requested};

/// How many connections the private server accepts in addition to the pool's.
const SPARE_CONNECTIONS: usize = 20;

/// The highest `max_connections` of the private server.
const MAX_CONNECTIONS: usize = 500;

/// The server, the schema and the pool.
pub(super) struct Environment {
    pub(super) settings: Settings,
    pub(super) pool: Pool,
    pub(super) schema: Arc<SchemaManager>,
    /// The private server; `None` with a server that the user named.
    pub(super) server: Option<Arc<Server>>,
    /// The cache of products, with `--cache`.
    pub(super) cache: Option<ProductCache>,
}

/// What is left of the environment after its removal.
pub(super) enum Remains {
    /// The private server is stopped, and its directory removed.
    Nothing,
    /// The private server could not be stopped or its directory not removed, which is an error.
    Server,
    /// The schema was dropped from the user's server.
    DroppedSchema,
    /// The schema could not be dropped, which is an error.
    Schema,
}

impl Environment {
    /// Starts the server, unless the settings name one, creates the schema, and builds the pool and the cache. Returns `None` if shutdown
    /// is requested before.
    pub(super) async fn set_up(
        mut settings: Settings,
        with_cache: bool,
        collector: &Collector,
        console: &Console,
        shutdown: &mut watch::Receiver<Option<ShutdownReason>>,
    ) -> Result<Option<Self>, DemoError> {
        let mut server = None;
        if settings.database_url.is_none() {
            console.print("Starting a private PostgreSQL server ...\n");
            let started = tokio::select! {
                started = start_server(&settings) => started.map_err(DemoError::Server)?,
                _ = shutdown_requested(shutdown) => return Ok(None),
            };
            settings.set("database_url", &started.url()).map_err(DemoError::Settings)?;
            server = Some(Arc::new(started));
        }
        let schema = Arc::new(SchemaManager::new(&settings).map_err(DemoError::Settings)?);
        let builder = Pool::builder().settings(settings.clone()).collector(collector.clone());
        let pool = builder.build().map_err(DemoError::Settings)?;
        let cache = if with_cache {
            console.print("Starting a private Redis server ...\n");
            tokio::select! {
                started = ProductCache::start(&pool, collector) => Some(started?),
                _ = shutdown_requested(shutdown) => return Ok(None),
            }
        } else {
            None
        };
        let session = tokio::select! {
            session = schema.connect() => session?,
            _ = shutdown_requested(shutdown) => return Ok(None),
        };
        // Not cancelled: it would be unknown whether the transaction was committed.
        schema.create(session).await?;
        Ok(Some(Self { settings, pool, schema, server, cache }))
    }

    /// Stops the private server, or drops the schema. The pool must be closed.
    pub(super) async fn tear_down(self) -> (Result<(), DemoError>, Remains) {
        let Self { schema, server, cache, .. } = self;
        if let Some(cache) = cache {
            cache.stop().await;
        }
        let Some(server) = server else {
            let dropped = schema.remove().await;
            let remains = if dropped.is_ok() { Remains::DroppedSchema } else { Remains::Schema };
            return (dropped, remains);
        };
        let (directory, pid) = (Path::to_owned(server.dir()), server.pid());
        // Stopping a server blocks the thread.
        let stopped = tokio::task::spawn_blocking(move || drop(server)).await;
        if directory.exists() {
            return (Err(DemoError::Remains { directory, pid: running(pid) }), Remains::Server);
        }
        (stopped.map_err(DemoError::system), Remains::Nothing)
    }
}

/// Returns the process id, if a process has it.
fn running(pid: Option<u32>) -> Option<u32> {
    let exists = |pid: &u32| i32::try_from(*pid).is_ok_and(|pid| kill(Pid::from_raw(pid), None) != Err(Errno::ESRCH));
    pid.filter(exists)
}

async fn start_server(settings: &Settings) -> Result<Server, ServerError> {
    let connections = settings.pool_size.saturating_add(settings.max_overflow).saturating_add(SPARE_CONNECTIONS);
    Server::builder()
        .setting("max_connections", connections.min(MAX_CONNECTIONS).to_string())
        // In `psql`, the tables need no qualification.
        .setting("search_path", format!("{SCHEMA}, public"))
        .setting("max_wal_size", "64MB")
        // The workload causes deadlocks on purpose.
        .setting("deadlock_timeout", "20ms")
        .start()
        .await
}
