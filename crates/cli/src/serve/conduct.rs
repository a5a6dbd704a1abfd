//! Puts the standalone exporter's parts together, and takes them apart again.

use std::fmt::Write as _;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::config::{Config, Database};
use super::error::ServeError;
use super::probe::probe;
use crate::service::{Manager, ServiceError, Web, WebSettings, ended, watch_signals};
use poolscope::exporter::Readiness;
use poolscope::otlp::Pipeline;
use poolscope::{Collector, Pool};

/// Within how long each database has its first look.
const SPREAD: Duration = Duration::from_secs(10);

/// How long probes under way may take when it ends, spans to be sent, and what is left of the runtime after that.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);
const FLUSH_WITHIN: Duration = Duration::from_secs(2);
const RUNTIME_WITHIN: Duration = Duration::from_secs(1);

/// The standalone exporter, as it was asked for.
#[derive(Debug)]
pub struct Serve {
    /// What is watched.
    pub config: Config,
    /// Where the exporter listens, and by which rules it serves.
    pub web: WebSettings,
    /// Where spans go, if they go anywhere.
    pub traces: Option<Pipeline>,
}

impl Serve {
    /// Watches the databases until a signal comes. `say` is told where the exporter is once it serves.
    ///
    /// A database that cannot be reached is no reason to end: to tell of it is what this is for.
    ///
    /// # Errors
    ///
    /// If it cannot start, or cannot go on serving. A signal is no error.
    pub fn run(self, say: impl FnOnce(&str)) -> Result<(), ServeError> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("poolscope")
            .enable_all()
            .build()
            .map_err(ServiceError::system)?;
        let result = runtime.block_on(self.conduct(say));
        // A scrape that hangs would keep its thread, and the runtime would wait for it.
        runtime.shutdown_timeout(RUNTIME_WITHIN);
        result
    }

    async fn conduct(self, say: impl FnOnce(&str)) -> Result<(), ServeError> {
        let Self { config: Config { databases }, web, traces } = self;
        let (end, mut ending) = watch::channel(None);
        watch_signals(end.clone())?;
        let manager = Manager::from_env()?;

        let collector = Collector::new();
        let pools = open(&databases, &collector)?;
        let readiness = Readiness::new();
        let web = Web::start(web, collector, readiness.clone(), end).await?;

        let mut tasks = JoinSet::new();
        for (place, (pool, database)) in pools.iter().zip(&databases).enumerate() {
            let Database { every, server_view, .. } = *database;
            // Spread, so that many databases are not all asked at one moment; and each is asked soon.
            let offset = every.min(SPREAD).mul_f64(place as f64 / pools.len() as f64);
            tasks.spawn(probe(pool.clone(), every, offset));
            if server_view {
                let watch = pool.watch_server(every);
                tasks.spawn(async move {
                    tokio::time::sleep(offset).await;
                    watch.await;
                });
            }
        }
        readiness.ready();
        let alive = manager.ready();
        say(&banner(&web.url(), &databases));

        // None of them ends by itself.
        let failed = tokio::select! {
            biased;
            why = ended(&mut ending) => {
                tracing::info!(?why, "ending");
                None
            }
            Some(task) = tasks.join_next() => Some(ServeError::Ended(task.err())),
        };
        readiness.not_ready("poolscope is ending");
        manager.stopping();
        drop(alive);
        tasks.shutdown().await;
        for pool in pools {
            if let Err(error) = pool.close_within(CLOSE_WITHIN).await {
                tracing::warn!(pool = pool.name(), %error, "a probe was cut off");
            }
        }
        if let Some(traces) = traces {
            traces.shutdown(FLUSH_WITHIN).await;
        }
        let served = web.stop().await;
        failed.map_or(Ok(()), Err).and(served.map_err(ServeError::from))
    }
}

/// A pool for each database. Connects to none yet.
pub(super) fn open(databases: &[Database], collector: &Collector) -> Result<Vec<Pool>, ServeError> {
    let open = |database: &Database| {
        let pool = Pool::builder().settings(database.settings.clone()).collector(collector.clone()).build();
        pool.map_err(|source| ServeError::Database { name: database.name().to_owned(), source: Box::new(source) })
    };
    databases.iter().map(open).collect()
}

/// What it says at its beginning.
fn banner(url: &str, databases: &[Database]) -> String {
    let mut banner = format!("poolscope {} serves {url}/metrics and watches:\n", env!("CARGO_PKG_VERSION"));
    for database in databases {
        let _ = writeln!(banner, "  {}", database.describe());
    }
    banner
}
