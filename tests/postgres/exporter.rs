//! From a pool under load to the page that Prometheus scrapes.

use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use poolscope::Pool;
use poolscope::exporter::Exporter;
use poolscope_testing::server::Server;
use prometheus::IntCounter;
use tokio::task::JoinSet;

use crate::support::{MonotonicCheck, Scrape, TestPool, http_get, poll_until, with_deadline};

/// Starts an exporter that serves until the test's runtime ends.
async fn serve(test: &TestPool) -> SocketAddr {
    let exporter = Exporter::new(test.collector()).registry(test.registry().clone());
    let bound = exporter.bind("127.0.0.1:0").await.unwrap();
    let address = bound.local_addr();
    tokio::spawn(bound.serve(std::future::pending()));
    address
}

async fn metrics(address: SocketAddr) -> String {
    let (head, body) = http_get(address, "/metrics").await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.to_lowercase().contains("content-type: text/plain; version=0.0.4"), "{head}");
    body
}

/// The length of a burst of load, and of the pause after it.
const BURST: Duration = Duration::from_millis(300);

/// A load with every outcome that a healthy server allows: it comes in bursts, and some checkouts are cancelled.
struct Load {
    tasks: JoinSet<()>,
    stopping: Arc<AtomicBool>,
}

impl Load {
    fn start(pool: &Pool) -> Self {
        let stopping = Arc::new(AtomicBool::new(false));
        let started = Instant::now();
        let mut tasks = JoinSet::new();
        // More than the connections can serve within the deadline, so that some time out on any machine.
        for task in 0..26 {
            let (pool, stopping) = (pool.clone(), Arc::clone(&stopping));
            let operation = pool.operation(["list_orders", "place_order", "sales_report"][task % 3]);
            tasks.spawn(async move {
                let mut random = fastrand::Rng::new();
                while !stopping.load(Ordering::Relaxed) {
                    if started.elapsed().as_millis() / BURST.as_millis() % 2 == 1 {
                        tokio::time::sleep(BURST / 10).await;
                        continue;
                    }
                    let hold = random.f64() * 0.04;
                    let work = operation
                        .clone()
                        .run(async |connection| connection.query_one("SELECT pg_sleep($1)", &[&hold]).await.map(drop));
                    match random.u8(..20) {
                        0..4 => drop(tokio::time::timeout(Duration::from_millis(random.u64(20..100)), work).await),
                        4 => {
                            if let Ok(connection) = pool.get().await {
                                let _ = connection.batch_execute("SELECT 1/0").await;
                                connection.discard();
                            }
                        }
                        _ => drop(work.await),
                    }
                }
            });
        }
        Self { tasks, stopping }
    }

    async fn end(mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        with_deadline("every task ends", std::mem::take(&mut self.tasks).join_all()).await;
    }
}

/// Tasks that never yield cannot be aborted, and would keep a failing test from ending.
impl Drop for Load {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
    }
}

/// Returns the lines that `promtool check metrics` prints.
fn promtool(metrics: &str) -> Vec<String> {
    let mut child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| {
            panic!("promtool, a part of Prometheus, does not run ({error}): `scripts/setup test` installs it")
        });
    // It reads everything before it prints.
    child.stdin.take().unwrap().write_all(metrics.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let lines = [output.stdout, output.stderr].map(|lines| String::from_utf8(lines).unwrap());
    let lines: Vec<_> = lines.iter().flat_map(|lines| lines.lines()).map(str::to_owned).collect();
    // Exit code 3: valid, with lint warnings.
    assert!(matches!(output.status.code(), Some(0 | 3)), "{}: {lines:?}", output.status);
    assert_eq!(output.status.success(), lines.is_empty(), "{}: {lines:?}", output.status);
    lines
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scrapes_under_load_add_up_and_pass_promtool() {
    let server = Server::builder().start().await.unwrap();
    let test = TestPool::new("exporter_load", &server.url(), |builder| {
        let age = Some(Duration::from_millis(400));
        // Long enough to connect on a machine that is busy with other tests.
        let deadline = Duration::from_millis(80);
        builder.pool_size(2).max_overflow(4).pre_ping_idle(Duration::ZERO).recycle_after(age).checkout_timeout(deadline)
    });
    let application_metric = IntCounter::new("shop_orders_total", "Orders placed.").unwrap();
    application_metric.inc_by(17);
    test.registry().register(Box::new(application_metric)).unwrap();
    let address = serve(&test).await;

    let load = Load::start(&test.pool);
    let mut monotonic = MonotonicCheck::default();
    let mut checked = 0;
    let has_every_outcome = |scrape: &Scrape| {
        let outcome = |outcome| scrape.count("poolscope_checkouts_total", &[("outcome", outcome)]);
        let closed = |reason| scrape.count("poolscope_connections_closed_total", &[("reason", reason)]);
        ["ok", "timeout", "cancelled"].map(outcome).iter().all(|count| *count >= 20)
            && ["overflow", "recycled", "discarded"].map(closed).iter().all(|count| *count >= 5)
    };
    let text = poll_until("every outcome, and 100 scrapes", async || {
        let text = metrics(address).await;
        let scrape = Scrape::parse(&text);
        scrape.assert_adds_up("exporter_load");
        monotonic.observe(&scrape);
        checked += 1;
        (checked >= 100 && has_every_outcome(&scrape)).then_some(text)
    })
    .await;
    load.end().await;

    let scrape = Scrape::parse(&text);
    assert_eq!(scrape.sum("shop_orders_total", &[]), 17.0);
    assert_eq!(scrape.count("poolscope_scrapes_total", &[("code", "200")]), checked - 1);
    assert_eq!(scrape.values("poolscope_checkouts_started_total", "db_client_connection_pool_name"), ["exporter_load"]);

    // OpenTelemetry's `db.client.connection.count`, in its own translation to Prometheus.
    let accepted =
        r#"db_client_connection_count non-histogram and non-summary metrics should not have "_count" suffix"#;
    let problems: Vec<_> = promtool(&text).into_iter().filter(|problem| problem != accepted).collect();
    assert_eq!(problems, Vec::<String>::new());
    assert!(!promtool("# TYPE shop_orders counter\nshop_orders 1\n").is_empty(), "promtool reports a problem");

    // At rest, each operation has as many outcomes as starts.
    let scrape = Scrape::parse(&metrics(address).await);
    scrape.assert_adds_up("exporter_load");
    for operation in scrape.values("poolscope_checkouts_started_total", "operation") {
        let of = |name| scrape.count(name, &[("operation", operation)]);
        assert_eq!(of("poolscope_checkouts_started_total"), of("poolscope_checkouts_total"), "{operation}");
    }
    let ok = scrape.count("poolscope_checkouts_total", &[("outcome", "ok")]);
    assert_eq!(scrape.count("db_client_connection_use_time_seconds_count", &[]), ok);
    assert_eq!(scrape.sum("db_client_connection_count", &[("db_client_connection_state", "used")]), 0.0);
}
