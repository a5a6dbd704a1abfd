//! Puts the demo's parts together, and takes them apart again.

use std::net::SocketAddr;
use std::time::Duration;

use prometheus::Registry;
use tokio::runtime::Builder;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep};

use super::ending::{Ending, ended, watch_signals};
use super::error::DemoError;
use super::schema::Keeper;
use super::screen::{Output, Screen, Status, summary};
use super::server::Server;
use super::settings::resolve;
use super::workload::Workload;
use crate::config::DatabaseUrl;
use crate::exporter::{Exporter, ExporterError, Readiness};
use crate::{Collector, Pool, Settings};

/// How often the status is shown: on a terminal, and elsewhere.
const LIVE: Duration = Duration::from_secs(1);
const LINES: Duration = Duration::from_secs(10);

/// How long what is under way may take when the demo ends, and what is left of the runtime then.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);
const RUNTIME_WITHIN: Duration = Duration::from_secs(2);

/// How many connections a private server takes beside the pool's: for the schema, and for a person who looks.
const SPARE_CONNECTIONS: usize = 20;

/// The demo, as it was asked for.
#[derive(Debug)]
pub struct Demo {
    /// The server to use; `None` for the environment's, or else a private one. Never shown as it is.
    pub database_url: Option<String>,
    /// Where the exporter listens.
    pub listen_address: String,
    /// When to end; `None` for at a signal only.
    pub duration: Option<Duration>,
}

impl Demo {
    /// Runs until something ends it, and cleans up.
    ///
    /// # Errors
    ///
    /// If it cannot start, or something cannot be cleaned up. A signal is no error.
    pub fn run(self, screen: &Screen) -> Result<(), DemoError> {
        let settings = resolve(std::env::vars(), self.database_url.as_deref())?;
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("poolscope-demo")
            .enable_all()
            .build()
            .map_err(DemoError::system)?;
        let result = runtime.block_on(self.conduct(settings, screen));
        // A collector that hangs would keep its thread, and the runtime would wait for it.
        runtime.shutdown_timeout(RUNTIME_WITHIN);
        result
    }

    /// Starts the parts, waits for the end, and ends them in turn.
    async fn conduct(&self, mut settings: Settings, screen: &Screen) -> Result<(), DemoError> {
        let (end, mut ending) = watch::channel(None);
        watch_signals(end.clone())?;
        watch_output(screen.output(), end.clone());

        // Before anything else is started: an address that is taken is known at once.
        let registry = Registry::new();
        let collector = Collector::global();
        registry.register(Box::new(collector.clone())).map_err(DemoError::system)?;
        let readiness = Readiness::new();
        let exporter = Exporter::new(registry).readiness(readiness.clone()).bind(&self.listen_address).await?;
        let address = exporter.local_addr();

        let server = self.server(&mut settings, screen, &mut ending).await;
        let server = match server {
            Ok(server) => server,
            Err(Interrupted::Ended) => return Ok(()),
            Err(Interrupted::Failed(error)) => return Err(error),
        };
        let url = settings.require_database_url().map_err(DemoError::Settings)?.clone();
        let keeper = Keeper::new(&settings, &url).map_err(DemoError::Settings)?;
        keeper.create(keeper.connect().await?).await?;

        // From here on there is a schema to drop, whatever happens.
        let result = match Pool::builder().settings(settings).collector(collector).build() {
            Ok(pool) => {
                screen.lines(greeting(address, server.as_ref(), &url, self.duration));
                let (stop, stopped) = oneshot::channel::<()>();
                let serving = tokio::spawn(exporter.serve(async {
                    let _ = stopped.await;
                }));
                readiness.ready();
                let result = self.work(&pool, screen, serving, &end, &mut ending).await;
                drop(stop);
                result
            }
            Err(error) => Err(DemoError::Settings(error)),
        };
        let dropped = if server.is_some() { Ok(()) } else { keeper.drop().await };
        // A private server goes with its directory; its end is waited for.
        drop(server);
        result.and(dropped)
    }

    /// A private server, unless there is a URL. It is put into the settings.
    async fn server(
        &self,
        settings: &mut Settings,
        screen: &Screen,
        ending: &mut watch::Receiver<Option<Ending>>,
    ) -> Result<Option<Server>, Interrupted> {
        if settings.database_url.is_some() {
            return Ok(None);
        }
        screen.lines("starting a private PostgreSQL ...\n");
        let connections = settings.pool_size + settings.max_overflow + SPARE_CONNECTIONS;
        let starting = Server::builder().setting("max_connections", connections.to_string()).start();
        // Whoever changes their mind meanwhile need not wait; a start that is dropped leaves nothing.
        let server = tokio::select! {
            server = starting => server.map_err(|error| Interrupted::Failed(DemoError::Server(error)))?,
            _ = ended(ending) => return Err(Interrupted::Ended),
        };
        let failed = |error| Interrupted::Failed(DemoError::Settings(error));
        settings.set("database_url", &server.url()).map_err(failed)?;
        Ok(Some(server))
    }

    /// Lets the workload run until the end, then lets what is under way come to its own.
    async fn work(
        &self,
        pool: &Pool,
        screen: &Screen,
        mut serving: JoinHandle<Result<(), ExporterError>>,
        end: &watch::Sender<Option<Ending>>,
        ending: &mut watch::Receiver<Option<Ending>>,
    ) -> Result<(), DemoError> {
        let started = Instant::now();
        let workload = Workload::start(pool);
        let showing = show(pool, screen, started);
        let time = async {
            match self.duration {
                Some(duration) => sleep(duration).await,
                None => std::future::pending().await,
            }
        };
        let mut served = Ok(());
        tokio::select! {
            _ = ended(ending) => {}
            () = showing => {}
            () = time => drop(end.send_replace(Some(Ending::Time))),
            exporter = &mut serving => {
                served = exporter.map_err(DemoError::system).and_then(|result| result.map_err(DemoError::Exporter));
                end.send_replace(Some(Ending::Failure));
            }
        }
        workload.stop();
        screen.settle();
        let why = *ending.borrow();
        if let Some(words) = why.and_then(Ending::words) {
            screen.lines(format!("{words}\n"));
        }
        let closed = pool.close_within(CLOSE_WITHIN).await;
        workload.abort().await;
        if let Err(error) = closed {
            tracing::warn!(%error, "the workload was cut off");
        }
        screen.lines(format!("\n{}", summary(&pool.snapshot(), started.elapsed())));
        match &*screen.output().borrow() {
            Output::Failed(error) => Err(DemoError::Output(std::io::Error::new(error.kind(), error.to_string()))),
            Output::Open | Output::Unread => served,
        }
    }
}

/// Why there is no server.
enum Interrupted {
    /// Somebody ended the demo first. That is no error.
    Ended,
    Failed(DemoError),
}

/// Shows the pool's state, for ever.
async fn show(pool: &Pool, screen: &Screen, started: Instant) {
    let apart = if screen.is_live() { LIVE } else { LINES };
    let mut ticks = interval_at(started + apart, apart);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let (mut before, mut at) = (pool.snapshot(), started);
    loop {
        ticks.tick().await;
        let (now, tick) = (pool.snapshot(), Instant::now());
        screen.status(Status::new(&now, &before, tick - at, tick - started));
        (before, at) = (now, tick);
    }
}

/// Ends the demo when nobody reads its output any more.
fn watch_output(mut output: watch::Receiver<Output>, end: watch::Sender<Option<Ending>>) {
    tokio::spawn(async move {
        if let Ok(output) = output.wait_for(|output| !matches!(output, Output::Open)).await {
            let why = if matches!(*output, Output::Unread) { Ending::Unread } else { Ending::Failure };
            end.send_if_modified(|ending| {
                let first = ending.is_none();
                ending.get_or_insert(why);
                first
            });
        }
    });
}

/// Where to look, and how to stop.
fn greeting(address: SocketAddr, server: Option<&Server>, url: &DatabaseUrl, duration: Option<Duration>) -> String {
    let database = match server {
        Some(server) => {
            format!("psql -h {} -p {} -U postgres postgres", server.dir().join("run").display(), server.port())
        }
        None => url.to_string(),
    };
    let stop = match duration {
        Some(duration) => format!("ends after {}, or with Ctrl-C", humantime::format_duration(duration)),
        None => "Ctrl-C".to_owned(),
    };
    format!("\n  metrics   http://{address}/metrics\n  database  {database}\n  stop      {stop}\n\n")
}
