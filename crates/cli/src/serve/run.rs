//! Runs the standalone exporter.

use std::fmt::Write as _;
use std::time::Duration;

use poolscope::exporter::{Exporter, Readiness};
use poolscope::otlp::Pipeline;
use poolscope::{Collector, Pool};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::config::{Config, Database};
use super::error::ServeError;
use super::probe::probe;
use crate::output::Console;
use crate::service::{
    ExporterTask, FLUSH_TIMEOUT, Incidents, RecordSettings, SHUTDOWN_TIMEOUT, ServiceError, ServiceManager,
    WebSettings, run, shutdown_requested, watch_signals,
};

/// Over how much time the first probes of all databases are spread, at most.
const PROBE_SPREAD: Duration = Duration::from_secs(10);

/// How long shutdown waits for each pool's probe.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// The standalone exporter.
#[derive(Debug)]
pub(crate) struct Serve {
    /// The databases to watch.
    pub(crate) config: Config,
    /// The exporter's listener and web configuration.
    pub(crate) web: WebSettings,
    /// Where incident files are written, if they are.
    pub(crate) record: RecordSettings,
    /// The exporter of spans, if they are exported.
    pub(crate) traces: Option<Pipeline>,
}

impl Serve {
    /// Watches the databases until a signal arrives. Prints the addresses once the exporter serves.
    ///
    /// An unreachable database is not an error: the exporter reports it.
    ///
    /// # Errors
    ///
    /// Returns an error if the exporter cannot start or stops serving. A signal is not an error.
    pub(crate) fn run(self, console: &Console) -> Result<(), ServeError> {
        run(self.run_async(console))
    }

    async fn run_async(self, console: &Console) -> Result<(), ServeError> {
        let Self { config: Config { databases }, web, record, traces } = self;
        let (request_shutdown, mut shutdown) = watch::channel(None);
        watch_signals(request_shutdown.clone(), SHUTDOWN_TIMEOUT)?;
        let manager = ServiceManager::from_env()?;

        let collector = Collector::new();
        let incidents = Incidents::start(record, &collector)?;
        let pools = build_pools(&databases, &collector)?;
        let readiness = Readiness::new();
        let registry = console.registry().map_err(ServiceError::system)?;
        let exporter = Exporter::new(collector).registry(registry).readiness(readiness.clone());
        let exporter = ExporterTask::start(web, incidents.enable(exporter), request_shutdown).await?;

        let mut tasks = JoinSet::new();
        for (index, (pool, database)) in pools.iter().zip(&databases).enumerate() {
            let Database { probe_interval, server_view, .. } = *database;
            // Spreads the load of many databases; each is still probed soon.
            let offset = probe_interval.min(PROBE_SPREAD).mul_f64(index as f64 / pools.len() as f64);
            tasks.spawn(probe(pool.clone(), probe_interval, offset));
            if server_view {
                let watch = pool.watch_server(probe_interval);
                tasks.spawn(async move {
                    tokio::time::sleep(offset).await;
                    watch.await;
                });
            }
        }
        readiness.ready();
        let watchdog = manager.ready();
        console.print(banner(&exporter.url(), &databases));

        let failure = tokio::select! {
            biased;
            reason = shutdown_requested(&mut shutdown) => {
                tracing::info!(?reason, "shutting down");
                None
            }
            // The tasks never return.
            Some(task) = tasks.join_next() => Some(ServeError::TaskEnded(task.err())),
        };
        readiness.not_ready("poolscope is shutting down");
        manager.stopping();
        drop(watchdog);
        tasks.shutdown().await;
        incidents.finish().await;
        let closing = pools.into_iter().map(|pool| async move {
            if let Err(error) = pool.close_within(CLOSE_TIMEOUT).await {
                tracing::warn!(pool = pool.name(), %error, "probe aborted");
            }
        });
        closing.collect::<JoinSet<()>>().join_all().await;
        if let Some(traces) = traces {
            traces.shutdown(FLUSH_TIMEOUT).await;
        }
        let served = exporter.stop().await;
        failure.map_or(Ok(()), Err).and(served.map_err(ServeError::from))
    }
}

/// Builds a pool for each database, without connecting.
pub(super) fn build_pools(databases: &[Database], collector: &Collector) -> Result<Vec<Pool>, ServeError> {
    let build = |database: &Database| {
        let pool = Pool::builder().settings(database.settings.clone()).collector(collector.clone()).build();
        pool.map_err(|source| ServeError::Database { name: database.name().to_owned(), source: Box::new(source) })
    };
    databases.iter().map(build).collect()
}

/// Returns the text that is printed once the exporter serves.
fn banner(url: &str, databases: &[Database]) -> String {
    let mut banner = format!("poolscope {} serves {url}/metrics and watches:\n", env!("CARGO_PKG_VERSION"));
    for database in databases {
        let _ = writeln!(banner, "  {}", database.describe());
    }
    banner
}
