//! Puts the demo's parts together, and takes them apart again.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::sync::watch;
#[cfg(feature = "jaeger")]
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep};

use super::banner::{Places, banner, left, stopping, turn};
use super::error::DemoError;
use super::scenario::{Cast, Director, Phase, Play};
use super::schema::{Keeper, SCHEMA};
use super::screen::{Output, Screen, Status, summary, watch_output};
use super::settings::resolve;
use super::shop::Shop;
use super::traces::Traces;
use super::workload::Workload;
use crate::service::{Ending, Manager, Web, WebSettings, ended, watch_signals};
use poolscope::config::env_vars;
use poolscope::exporter::Readiness;
use poolscope::{Collector, Pool, Settings};
use poolscope_testing::server::{Server, ServerError};

/// How often the status is shown: on a terminal, and elsewhere.
const LIVE: Duration = Duration::from_secs(1);
const LINES: Duration = Duration::from_secs(10);

/// How often the server is asked for its view.
const LOOK: Duration = Duration::from_secs(1);

/// How long requests under way may take when the demo ends, and what is left of the runtime after that.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);
const RUNTIME_WITHIN: Duration = Duration::from_secs(2);

/// How many connections a private server takes beside the pool's, and how many at most.
const SPARE_CONNECTIONS: usize = 20;
const MAX_CONNECTIONS: usize = 500;

/// The demo, as it was asked for.
pub struct Demo {
    /// The server to use; `None` for the environment's, or else a private one.
    pub database_url: Option<String>,
    /// Where the exporter listens, and by which rules it serves.
    pub web: WebSettings,
    /// Where the shop listens.
    pub shop_address: String,
    /// What is played.
    pub play: Play,
    /// When to end; `None` for at a signal only.
    pub duration: Option<Duration>,
    /// Where its spans go.
    pub traces: Traces,
    /// Where Jaeger's page with them listens.
    #[cfg(feature = "jaeger")]
    pub traces_address: String,
}

impl std::fmt::Debug for Demo {
    /// Leaves out the URL, which may hold a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Demo")
            .field("database_url", &self.database_url.is_some())
            .field("web", &self.web)
            .field("shop_address", &self.shop_address)
            .field("play", &self.play)
            .field("duration", &self.duration)
            .field("traces", &self.traces)
            .finish()
    }
}

impl Demo {
    /// Runs until something ends it, and cleans up.
    ///
    /// # Errors
    ///
    /// If it cannot start, or something cannot be cleaned up. A signal is no error.
    pub fn run(self, screen: &Screen) -> Result<(), DemoError> {
        let environment = env_vars().map_err(DemoError::Settings)?;
        let settings = resolve(self.play.scenario, environment, self.database_url.as_deref())?;
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("poolscope-demo")
            .enable_all()
            .build()
            .map_err(DemoError::system)?;
        let result = runtime.block_on(self.conduct(settings, screen));
        // A scrape that hangs would keep its thread, and the runtime would wait for it.
        runtime.shutdown_timeout(RUNTIME_WITHIN);
        result
    }

    async fn conduct(self, settings: Settings, screen: &Screen) -> Result<(), DemoError> {
        let (end, mut ending) = watch::channel(None);
        watch_signals(end.clone())?;
        watch_output(screen.output(), end.clone());
        let manager = Manager::from_env()?;

        let collector = Collector::new();
        let readiness = Readiness::new();
        let web = Web::start(self.web, collector.clone(), readiness.clone(), end).await?;

        // The page goes with its tasks.
        #[cfg(feature = "jaeger")]
        let mut tasks = JoinSet::new();
        #[cfg(feature = "jaeger")]
        let page = self.traces.serve(&self.traces_address, &mut tasks).await?;
        #[cfg(not(feature = "jaeger"))]
        let page = None::<String>;

        let Some(stage) = Stage::set(settings, &collector, screen, &mut ending).await? else {
            screen.lines("Ended before it began.\n");
            return Ok(web.stop().await?).and(printed(screen));
        };
        let shop = match Shop::open(&self.shop_address, &stage.pool).await {
            Ok(shop) => shop,
            Err(error) => {
                let struck = stage.strike().await.0;
                return Ok(web.stop().await?).and(struck).and(Err(error));
            }
        };
        let watch = tokio::spawn(stage.pool.watch_server(LOOK));
        readiness.ready();
        let _alive = manager.ready();
        let places = Places {
            metrics: &web.url(),
            shop: &shop.url(),
            page: page.as_deref(),
            collector: self.traces.destination(),
            server: stage.server.as_deref(),
        };
        screen.lines(banner(stage.pool.name(), &stage.settings, &places, &self.play, self.duration));
        let begun = Instant::now();
        let workload = Workload::start(&shop, self.play.scenario.load());
        let cast = Cast {
            shop: shop.handlers(),
            load: workload.load(),
            keeper: Arc::clone(&stage.keeper),
            server: stage.server.clone(),
        };
        let director = Director::start(self.play, cast);
        let why = Show { pool: &stage.pool, play: &self.play, screen }
            .run(self.duration, director.phase(), &mut ending)
            .await;

        screen.settle();
        screen.lines(stopping(why, stage.server.as_deref()));
        readiness.not_ready("the demo is ending");
        manager.stopping();
        workload.stop();
        shop.close();
        director.end().await;
        watch.abort();
        let elapsed = begun.elapsed();
        if let Err(error) = stage.pool.close_within(CLOSE_WITHIN).await {
            tracing::warn!(%error, "requests were cut off");
        }
        workload.abort().await;
        shop.abort().await;
        self.traces.end().await;
        let summary = summary(&stage.pool.snapshot(), elapsed);
        let (struck, left) = stage.strike().await;
        let served = web.stop().await.map_err(DemoError::from);
        screen.lines(format!("\n{summary}\n{left}"));
        struck.and(served).and(printed(screen))
    }
}

/// What is shown while the demo runs.
struct Show<'a> {
    pool: &'a Pool,
    play: &'a Play,
    screen: &'a Screen,
}

impl Show<'_> {
    /// Shows the pool's status, and how the scenario goes on, until something ends the demo.
    async fn run(
        &self,
        duration: Option<Duration>,
        mut phase: watch::Receiver<Phase>,
        ending: &mut watch::Receiver<Option<Ending>>,
    ) -> Ending {
        let Self { pool, play, screen } = *self;
        let begun = Instant::now();
        let (first, period) = if screen.is_live() { (begun, LIVE) } else { (begun + LINES, LINES) };
        let mut ticks = interval_at(first, period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let over = async {
            match duration {
                Some(duration) => sleep(duration).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(over);
        let (mut before, mut then) = (pool.snapshot(), begun);
        loop {
            tokio::select! {
                biased;
                why = ended(ending) => return why,
                () = &mut over => return Ending::Time,
                Ok(()) = phase.changed() => {
                    let phase = *phase.borrow_and_update();
                    screen.lines(turn(play, phase, begun.elapsed()));
                }
                now = ticks.tick() => {
                    let snapshot = pool.snapshot();
                    screen.status(Status::new(&snapshot, &before, now - then, now - begun));
                    (before, then) = (snapshot, now);
                }
            }
        }
    }
}

/// What the workload plays on: the server, the schema and the pool.
struct Stage {
    settings: Settings,
    pool: Pool,
    keeper: Arc<Keeper>,
    /// `None` where the server is somebody's own.
    server: Option<Arc<Server>>,
}

impl Stage {
    /// Sets everything up; `None` if the demo is to end before.
    async fn set(
        mut settings: Settings,
        collector: &Collector,
        screen: &Screen,
        ending: &mut watch::Receiver<Option<Ending>>,
    ) -> Result<Option<Self>, DemoError> {
        let mut server = None;
        if settings.database_url.is_none() {
            screen.lines("Starting a private PostgreSQL ...\n");
            let started = tokio::select! {
                started = start_server(&settings) => started.map_err(DemoError::Server)?,
                _ = ended(ending) => return Ok(None),
            };
            settings.set("database_url", &started.url()).map_err(DemoError::Settings)?;
            server = Some(Arc::new(started));
        }
        let keeper = Arc::new(Keeper::new(&settings).map_err(DemoError::Settings)?);
        let builder = Pool::builder().settings(settings.clone()).collector(collector.clone());
        let pool = builder.build().map_err(DemoError::Settings)?;
        let session = tokio::select! {
            session = keeper.connect() => session?,
            _ = ended(ending) => return Ok(None),
        };
        // Not to be cut short: nobody would know whether the server was told to commit.
        keeper.create(session).await?;
        Ok(Some(Self { settings, pool, keeper, server }))
    }

    /// Clears everything away, the pool being closed already. Says what is left, too.
    async fn strike(self) -> (Result<(), DemoError>, String) {
        let Self { keeper, server, .. } = self;
        let Some(server) = server else {
            let dropped = keeper.remove().await;
            let left = left(None, dropped.is_ok());
            return (dropped, left);
        };
        let directory = server.dir().to_owned();
        // Stopping a server blocks for a moment.
        let stopped = tokio::task::spawn_blocking(move || drop(server)).await;
        let gone = !directory.exists();
        (stopped.map_err(DemoError::system), left(Some((&directory, gone)), false))
    }
}

/// Whether standard output took what it was given.
fn printed(screen: &Screen) -> Result<(), DemoError> {
    match &*screen.output().borrow() {
        Output::Failed(error) => Err(DemoError::Output(error.clone())),
        Output::Open | Output::Unread => Ok(()),
    }
}

async fn start_server(settings: &Settings) -> Result<Server, ServerError> {
    let connections = settings.pool_size.saturating_add(settings.max_overflow).saturating_add(SPARE_CONNECTIONS);
    Server::builder()
        .setting("max_connections", connections.min(MAX_CONNECTIONS).to_string())
        // So that `psql` finds the tables by their bare names.
        .setting("search_path", format!("{SCHEMA}, public"))
        .setting("max_wal_size", "64MB")
        // Transactions that block each other are the demo's daily bread.
        .setting("deadlock_timeout", "20ms")
        .start()
        .await
}
