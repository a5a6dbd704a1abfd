//! Runs the demo.

use std::sync::Arc;
use std::time::Duration;

use poolscope::config::env_vars;
use poolscope::exporter::{Exporter, Readiness};
use poolscope::telemetry::PoolSnapshot;
use poolscope::{Collector, Pool, Settings};
use tokio::runtime::Builder;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};

use super::banner::{Addresses, banner, phase_notice, remains_notice, shutdown_notice};
use super::client::{CLIENT_SCENARIOS, Client, Interpreter, POOL_NAME};
use super::environment::Environment;
use super::error::DemoError;
use super::scenario::{FaultInjector, Phase, ScenarioPlan, Targets};
use super::screen::{Status, clock, proxied_summary, summary, watch_output};
use super::settings::resolve;
use super::shop::Shop;
use super::traces::Traces;
use super::workload::Workload;
use crate::output::Console;
use crate::service::{
    ExporterTask, Incidents, RecordSettings, ServiceManager, ShutdownReason, WebSettings, shutdown_requested,
    watch_signals,
};

/// The time between two statuses on a terminal, and in a log.
const TERMINAL_STATUS_INTERVAL: Duration = Duration::from_secs(1);
const LOG_STATUS_INTERVAL: Duration = Duration::from_secs(10);

/// The time between two queries of the server's view.
const SERVER_VIEW_INTERVAL: Duration = Duration::from_secs(1);

/// How long shutdown waits for requests in flight before it closes the pool, which refuses further checkouts; then for
/// the connections that are held; and then for blocking threads of the runtime.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
const RUNTIME_SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

/// After which time from the first signal the process exits, whatever shutdown waits for. A watchdog process then stops the
/// private server.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(30);

/// The demo.
pub(crate) struct Demo {
    /// The server to use; `None` for that of the environment, or a private one.
    pub(crate) database_url: Option<String>,
    /// The exporter's listener and web configuration.
    pub(crate) web: WebSettings,
    /// The address of the shop.
    pub(crate) shop_address: String,
    /// The scenario and its timing.
    pub(crate) plan: ScenarioPlan,
    /// Whether products are read through a cache in a private Redis server.
    pub(crate) cache: bool,
    /// Whether a client in Python uses the database too, through a proxy, and has the fault.
    pub(crate) python_client: bool,
    /// When to stop; `None` to run until a signal arrives.
    pub(crate) duration: Option<Duration>,
    /// Where incident files are written, if they are.
    pub(crate) record: RecordSettings,
    /// The export of spans.
    pub(crate) traces: Traces,
    /// The address of the Jaeger UI.
    #[cfg(feature = "jaeger")]
    pub(crate) traces_address: String,
}

impl std::fmt::Debug for Demo {
    /// Omits the URL, which may contain a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Demo")
            .field("database_url", &self.database_url.is_some())
            .field("web", &self.web)
            .field("shop_address", &self.shop_address)
            .field("plan", &self.plan)
            .field("duration", &self.duration)
            .field("traces", &self.traces)
            .finish()
    }
}

impl Demo {
    /// Runs until the duration elapses or a signal arrives, and cleans up.
    ///
    /// # Errors
    ///
    /// Returns an error if the demo cannot start or clean up. A signal is not an error.
    pub(crate) fn run(self, console: &Console) -> Result<(), DemoError> {
        let environment = env_vars().map_err(DemoError::Settings)?;
        let settings = resolve(self.plan.scenario, environment, self.database_url.as_deref())?;
        let interpreter = match self.python_client {
            true => Some(self.find_interpreter(&settings)?),
            false => None,
        };
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("poolscope-demo")
            .enable_all()
            .build()
            .map_err(DemoError::system)?;
        let result = runtime.block_on(self.run_async(settings, interpreter, console));
        // Dropping the runtime would wait for the blocking thread of a scrape that hangs.
        runtime.shutdown_timeout(RUNTIME_SHUTDOWN_TIMEOUT);
        result
    }

    /// Returns the interpreter of the client, before anything is started.
    fn find_interpreter(&self, settings: &Settings) -> Result<Interpreter, DemoError> {
        let scenario = self.plan.scenario.name();
        if !CLIENT_SCENARIOS.contains(&scenario) {
            return Err(DemoError::ClientScenario { scenario });
        }
        if settings.database_url.is_some() {
            return Err(DemoError::ClientNeedsPrivateServer);
        }
        Interpreter::find()
    }

    async fn run_async(
        self,
        settings: Settings,
        interpreter: Option<Interpreter>,
        console: &Console,
    ) -> Result<(), DemoError> {
        let (request_shutdown, mut shutdown) = watch::channel(None);
        watch_signals(request_shutdown.clone(), SHUTDOWN_TIMEOUT)?;
        watch_output(console.state(), request_shutdown.clone());
        let manager = ServiceManager::from_env()?;

        let collector = Collector::new();
        let incidents = Incidents::start(self.record, &collector)?;
        let readiness = Readiness::new();
        // Dropping the tasks stops the Jaeger UI.
        #[cfg(feature = "jaeger")]
        let mut tasks = JoinSet::new();
        #[cfg(feature = "jaeger")]
        let jaeger = self.traces.serve(&self.traces_address, &mut tasks).await?;
        #[cfg(not(feature = "jaeger"))]
        let jaeger = None::<String>;

        let registry = console.registry().map_err(DemoError::system)?;
        let mut exporter = Exporter::new(collector.clone()).registry(registry).readiness(readiness.clone());
        if let Some(jaeger) = &jaeger {
            exporter = exporter.trace_url(format!("{jaeger}/trace/{{trace_id}}"));
        }
        let exporter = ExporterTask::start(self.web, incidents.enable(exporter), request_shutdown).await?;
        // The first line: starting the server takes a while.
        console.print(format!("Live page: {}/\n", exporter.url()));

        let with_cache = self.cache || self.plan.scenario.uses_cache();
        let Some(environment) = Environment::set_up(settings, with_cache, &collector, console, &mut shutdown).await?
        else {
            console.print("Stopped before the start was complete.\n");
            return Ok(exporter.stop().await?).and(output_result(console));
        };
        let mut client = match (&interpreter, environment.server.as_deref()) {
            (Some(interpreter), Some(server)) => {
                match Client::start(interpreter, server, &environment.settings, &collector).await {
                    Ok(client) => Some(client),
                    Err(error) => {
                        let (torn_down, _) = environment.tear_down().await;
                        return Ok(exporter.stop().await?).and(torn_down).and(Err(error));
                    }
                }
            }
            _ => None,
        };
        let products = environment.cache.as_ref().map(|cache| cache.products.clone());
        let shop = match Shop::open(&self.shop_address, &environment.pool, products).await {
            Ok(shop) => shop,
            Err(error) => {
                if let Some(client) = client {
                    client.stop().await;
                }
                let (torn_down, _) = environment.tear_down().await;
                return Ok(exporter.stop().await?).and(torn_down).and(Err(error));
            }
        };
        let mut server_watches = JoinSet::new();
        server_watches.spawn(environment.pool.watch_server(SERVER_VIEW_INTERVAL));
        if let Some(cache) = &environment.cache {
            server_watches.spawn(cache.pool.watch_server(SERVER_VIEW_INTERVAL));
        }
        readiness.ready();
        let _watchdog = manager.ready();
        let addresses = Addresses {
            exporter: &exporter.url(),
            shop: &shop.url(),
            jaeger: jaeger.as_deref(),
            collector: self.traces.destination(),
            server: environment.server.as_deref(),
            cache: environment.cache.as_ref().map(|cache| cache.server.dir()),
            client: client.as_ref().map(Client::directory),
        };
        let pool = &environment.pool;
        console.print(banner(pool.name(), &environment.settings, &addresses, &self.plan, self.duration));
        let started_at = Instant::now();
        let workload = Workload::start(&shop, self.plan.scenario.load());
        let targets = Targets {
            shop: shop.handlers(),
            load: workload.load(),
            schema: Arc::clone(&environment.schema),
            server: environment.server.clone(),
            cache: environment.cache.clone(),
            client: client.as_ref().map(Client::control),
        };
        let injector = FaultInjector::start(self.plan, targets);
        let client_pool = client.as_ref().map(|_| &collector);
        let status = StatusLoop { pool, client_pool, plan: &self.plan, console };
        let lines = client.as_mut().and_then(Client::lines);
        let reason = status.run(self.duration, injector.phase(), lines, &mut shutdown).await;

        console.keep_status();
        console.print(shutdown_notice(reason, environment.server.as_deref()));
        readiness.not_ready("the demo is shutting down");
        manager.stopping();
        workload.drain();
        shop.drain();
        injector.stop().await;
        server_watches.abort_all();
        let mut of_client = None;
        if let Some(client) = client {
            of_client = client_snapshot(&collector);
            client.stop().await;
        }
        let elapsed = started_at.elapsed();
        let _ = timeout(DRAIN_TIMEOUT, workload.drained()).await;
        if let Err(error) = pool.close_within(CLOSE_TIMEOUT).await {
            tracing::warn!(%error, "requests aborted");
        }
        workload.abort().await;
        shop.abort().await;
        self.traces.shutdown().await;
        incidents.finish().await;
        let mut summary = summary(&pool.snapshot(), elapsed);
        summary.extend(of_client.as_ref().map(proxied_summary));
        let (torn_down, remains) = environment.tear_down().await;
        let served = exporter.stop().await.map_err(DemoError::from);
        console.print(format!("\n{summary}\n{}", remains_notice(&remains)));
        torn_down.and(served).and(output_result(console))
    }
}

/// Prints the pool's status and the scenario's progress.
struct StatusLoop<'a> {
    pool: &'a Pool,
    /// The collector with the pool of the client, which is shown instead, once it exists.
    client_pool: Option<&'a Collector>,
    plan: &'a ScenarioPlan,
    console: &'a Console,
}

impl StatusLoop<'_> {
    /// Runs until the duration elapses or shutdown is requested. Returns the reason.
    async fn run(
        &self,
        duration: Option<Duration>,
        mut phase: watch::Receiver<Phase>,
        mut client_lines: Option<UnboundedReceiver<String>>,
        shutdown: &mut watch::Receiver<Option<ShutdownReason>>,
    ) -> ShutdownReason {
        let Self { pool, client_pool, plan, console } = *self;
        let snapshot = || client_pool.and_then(client_snapshot).unwrap_or_else(|| pool.snapshot());
        let started_at = Instant::now();
        let (first, period) = if console.is_terminal() {
            (started_at, TERMINAL_STATUS_INTERVAL)
        } else {
            (started_at + LOG_STATUS_INTERVAL, LOG_STATUS_INTERVAL)
        };
        let mut ticks = interval_at(first, period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let elapsed = async {
            match duration {
                Some(duration) => sleep(duration).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(elapsed);
        let (mut previous, mut previous_at) = (snapshot(), started_at);
        loop {
            tokio::select! {
                biased;
                reason = shutdown_requested(shutdown) => return reason,
                () = &mut elapsed => return ShutdownReason::DurationElapsed,
                Ok(()) = phase.changed() => {
                    let phase = *phase.borrow_and_update();
                    console.print(phase_notice(plan, phase, started_at.elapsed()));
                }
                Some(line) = next_line(&mut client_lines) => {
                    console.print(format!("{} client: {line}\n", clock(started_at.elapsed())));
                }
                now = ticks.tick() => {
                    let snapshot = snapshot();
                    console.status(Status::new(&snapshot, &previous, now - previous_at, now - started_at));
                    (previous, previous_at) = (snapshot, now);
                }
            }
        }
    }
}

/// Returns the pool of the client, once it has a connection.
fn client_snapshot(collector: &Collector) -> Option<PoolSnapshot> {
    collector.snapshots().into_iter().find(|pool| *pool.name == *POOL_NAME)
}

/// Waits for a line of the client. Returns `None` after the last one.
async fn next_line(lines: &mut Option<UnboundedReceiver<String>>) -> Option<String> {
    match lines {
        Some(lines) => lines.recv().await,
        None => std::future::pending().await,
    }
}

/// Waits until everything is printed. Returns the error of standard output, if it failed.
fn output_result(console: &Console) -> Result<(), DemoError> {
    console.flush();
    console.result().map_err(DemoError::Output)
}
