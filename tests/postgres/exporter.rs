//! From a pool under load to what Prometheus reads.

use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use poolscope::Pool;
use poolscope::demo::server::Server;
use poolscope::exporter::Exporter;
use prometheus::{IntCounter, Registry};
use tokio::task::JoinSet;

use crate::support::{Counted, Growth, Scrape, http_get, patiently, until};

/// An exporter of this registry, which serves until the test's runtime ends.
async fn serve(registry: &Registry) -> SocketAddr {
    let bound = Exporter::new(registry.clone()).bind("127.0.0.1:0").await.unwrap();
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

/// How long the workload comes, and how long it then stays away.
const BURST: Duration = Duration::from_millis(300);

/// A workload with every outcome that a healthy server allows: it comes in bursts, and some are impatient.
struct Load {
    tasks: JoinSet<()>,
    ending: Arc<AtomicBool>,
}

impl Load {
    fn start(pool: &Pool) -> Self {
        let ending = Arc::new(AtomicBool::new(false));
        let begun = Instant::now();
        let mut tasks = JoinSet::new();
        // More than the connections can serve within the deadline: some time out, on any machine.
        for task in 0..26 {
            let (pool, ending) = (pool.clone(), Arc::clone(&ending));
            let operation = pool.operation(["list_orders", "place_order", "sales_report"][task % 3]);
            tasks.spawn(async move {
                let mut random = fastrand::Rng::new();
                while !ending.load(Ordering::Relaxed) {
                    if begun.elapsed().as_millis() / BURST.as_millis() % 2 == 1 {
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
        Self { tasks, ending }
    }

    async fn end(mut self) {
        self.ending.store(true, Ordering::Relaxed);
        patiently("the end of every task", std::mem::take(&mut self.tasks).join_all()).await;
    }
}

/// Tasks that are never refused a step cannot be stopped from outside, and would keep a test that fails from ending.
impl Drop for Load {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
    }
}

/// What promtool has to say.
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
    // It reads everything before it answers.
    child.stdin.take().unwrap().write_all(metrics.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].map(|said| String::from_utf8(said).unwrap());
    let said: Vec<_> = said.iter().flat_map(|said| said.lines()).map(str::to_owned).collect();
    // 3: it can be read, but is not as it should be.
    assert!(matches!(output.status.code(), Some(0 | 3)), "{}: {said:?}", output.status);
    assert_eq!(output.status.success(), said.is_empty(), "{}: {said:?}", output.status);
    said
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scrapes_under_load_add_up_and_pass_promtool() {
    let server = Server::builder().start().await.unwrap();
    let counted = Counted::new("exporter_load", &server.url(), |builder| {
        let age = Some(Duration::from_millis(400));
        // As long as it takes to connect on a machine that is busy with other tests, or nobody would be served.
        let deadline = Duration::from_millis(80);
        builder.pool_size(2).max_overflow(4).pre_ping_idle(Duration::ZERO).recycle_after(age).checkout_timeout(deadline)
    });
    let theirs = IntCounter::new("shop_orders_total", "Orders placed.").unwrap();
    theirs.inc_by(17);
    counted.registry().register(Box::new(theirs)).unwrap();
    let address = serve(counted.registry()).await;

    let load = Load::start(&counted.pool);
    let mut growth = Growth::default();
    let mut checked = 0;
    let seen_all = |scrape: &Scrape| {
        let outcome = |outcome| scrape.count("poolscope_checkouts_total", &[("outcome", outcome)]);
        let closed = |reason| scrape.count("poolscope_connections_closed_total", &[("reason", reason)]);
        ["ok", "timeout", "cancelled"].map(outcome).iter().all(|count| *count >= 20)
            && ["overflow", "recycled", "discarded"].map(closed).iter().all(|count| *count >= 5)
    };
    let text = until("every outcome, and 100 scrapes", async || {
        let text = metrics(address).await;
        let scrape = Scrape::parse(&text);
        scrape.assert_adds_up("exporter_load");
        growth.next(&scrape);
        checked += 1;
        (checked >= 100 && seen_all(&scrape)).then_some(text)
    })
    .await;
    load.end().await;

    let scrape = Scrape::parse(&text);
    assert_eq!(scrape.sum("shop_orders_total", &[]), 17.0);
    assert_eq!(scrape.count("poolscope_scrapes_total", &[("code", "200")]), checked - 1);
    assert_eq!(scrape.values("poolscope_checkouts_started_total", "db_client_connection_pool_name"), ["exporter_load"]);

    // The name is OpenTelemetry's `db.client.connection.count` as its own translation to Prometheus gives it.
    let accepted =
        r#"db_client_connection_count non-histogram and non-summary metrics should not have "_count" suffix"#;
    let complaints: Vec<_> = promtool(&text).into_iter().filter(|complaint| complaint != accepted).collect();
    assert_eq!(complaints, Vec::<String>::new());
    assert!(
        !promtool("# TYPE shop_orders counter\nshop_orders 1\n").is_empty(),
        "promtool finds no fault with anything"
    );

    // At rest every operation is even.
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
