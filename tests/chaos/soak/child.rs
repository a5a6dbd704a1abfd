//! The process that is measured: a pool under load, and its exporter.

use std::env;
use std::io::{self, Read as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use poolscope::exporter::Exporter;
use poolscope::labels::Outcome;
use poolscope::{Collector, Pool};
use prometheus::{Gauge, IntGauge, Registry};
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};

use super::load::{Callers, Load};
use super::{POOL, READY, run_time};
use crate::world::{PROBE_TIMEOUT, eventually};

/// The variable with the URL of the server.
pub(crate) const URL: &str = "POOLSCOPE_SOAK_SERVER";

/// Ends the process with the one that started it, however that ends.
fn end_with_parent() {
    std::thread::spawn(|| {
        let _ = io::stdin().read(&mut [0]);
        std::process::exit(1);
    });
}

fn pool(url: &str, collector: Collector) -> Pool {
    Pool::builder()
        .url(url)
        .name(POOL)
        .application_name(POOL)
        .collector(collector)
        .pool_size(12)
        .max_overflow(4)
        .checkout_timeout(Duration::from_secs(2))
        .connect_timeout(Duration::from_secs(2))
        .pre_ping_idle(Duration::from_millis(100))
        .clean_timeout(Duration::from_millis(500))
        .recycle_after(Some(Duration::from_secs(10)))
        .idle_timeout(Some(Duration::from_secs(1)))
        .min_idle(2)
        .reset_session(true)
        .slow_query_threshold(Some(Duration::from_millis(10)))
        .build()
        .unwrap()
}

/// The test's own metrics: of the process, and of what callers saw.
struct OwnMetrics {
    alive_tasks: IntGauge,
    recoveries: IntGauge,
    recovery_seconds: Gauge,
    quiet: IntGauge,
}

impl OwnMetrics {
    fn register(registry: &Registry, callers: &Callers) -> Self {
        let gauge = |name, help| {
            let gauge = IntGauge::new(name, help).unwrap();
            registry.register(Box::new(gauge.clone())).unwrap();
            gauge
        };
        let recovery_seconds = Gauge::new("soak_recovery_seconds", "Time until the pool worked again.").unwrap();
        registry.register(Box::new(recovery_seconds.clone())).unwrap();
        for counter in [&callers.handed_out, &callers.walked] {
            registry.register(Box::new(counter.clone())).unwrap();
        }
        registry.register(Box::new(callers.work.clone())).unwrap();
        Self {
            alive_tasks: gauge("soak_alive_tasks", "Tasks of the runtime."),
            recoveries: gauge("soak_recoveries", "How often the pool worked again after a restart."),
            recovery_seconds,
            quiet: gauge("soak_quiet", "Whether the load has ended."),
        }
    }
}

/// Waits until a query succeeds. Each attempt is limited, as that of a caller.
async fn recovered(callers: &Callers) -> Duration {
    let begun = Instant::now();
    eventually("the pool works again", PROBE_TIMEOUT, async || {
        let attempt = async {
            let connection = callers.pool.operation("probe").get().await.ok()?;
            callers.handed_out.inc();
            connection.simple_query("SELECT 1").await.ok()
        };
        attempt.await.is_some()
    })
    .await;
    begun.elapsed()
}

/// Ends the load at SIGTERM, and waits for another. SIGUSR1 means that the server has been restarted.
async fn serve(callers: &Callers, load: Load, own: &OwnMetrics) {
    let mut terminate = signal(SignalKind::terminate()).unwrap();
    let mut restarted = signal(SignalKind::user_defined1()).unwrap();
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    loop {
        tokio::select! {
            _ = tick.tick() => own.alive_tasks.set(Handle::current().metrics().num_alive_tasks() as i64),
            _ = restarted.recv() => {
                own.recovery_seconds.set(recovered(callers).await.as_secs_f64());
                own.recoveries.inc();
            }
            _ = terminate.recv() => break,
        }
    }
    load.stop().await;
    eventually("nothing is used", PROBE_TIMEOUT, async || {
        let status = callers.pool.status();
        (status.used, status.creating, status.closing, status.in_flight) == (0, 0, 0, 0)
    })
    .await;
    own.quiet.set(1);
    terminate.recv().await;
}

/// Checks that the pool counted what its callers did, and that it closes everything.
async fn assert_whole(callers: &Callers) {
    callers.pool.close().await;
    let snapshot = callers.pool.snapshot();
    assert_eq!(snapshot.connections.live(), 0);
    assert_eq!(snapshot.created, snapshot.closed.iter().sum::<u64>());
    let ok: u64 = snapshot.operations.iter().map(|totals| totals.outcomes[Outcome::Ok.index()]).sum();
    let returned: u64 = snapshot.operations.iter().map(|totals| totals.returned).sum();
    let handed_out = callers.handed_out.get();
    assert_eq!((ok, returned), (handed_out, handed_out), "handed out and returned");
}

#[test]
#[ignore = "the process that load_lets_nothing_grow measures"]
#[allow(clippy::print_stdout, reason = "tells the address")]
fn serves_under_load() {
    let Ok(url) = env::var(URL) else { return };
    end_with_parent();
    // The log is written, with all its texts, and not kept.
    tracing_subscriber::fmt().with_writer(io::sink).init();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let (collector, registry) = (Collector::new(), Registry::new());
        let callers = Arc::new(Callers::new(pool(&url, collector.clone())));
        let own = OwnMetrics::register(&registry, &callers);
        let exporter = Exporter::new(collector).registry(registry).bind("127.0.0.1:0").await.unwrap();
        let address = exporter.local_addr();
        tokio::spawn(exporter.serve(std::future::pending()));
        tokio::spawn(callers.pool.watch_server(Duration::from_secs(2)));
        let load = Load::start(&callers, run_time()).await;
        println!("\n{READY}{address}");
        serve(&callers, load, &own).await;
        assert_whole(&callers).await;
    });
}
