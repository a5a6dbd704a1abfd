//! What Prometheus is shown.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use poolscope::exporter::Exporter;
use poolscope::telemetry::catalogue::{METRICS, Source};
use poolscope::{Collector, Pool};
use prometheus::Registry;

use super::scrape::{Scrape, get};
use super::{PATIENCE, server};

/// OpenTelemetry's name for this gauge ends as Prometheus would have only histograms' and summaries' parts end.
/// It is kept, so that dashboards made for other languages' agents work.
const KNOWN_COMPLAINT: &str =
    "db_client_connection_count non-histogram and non-summary metrics should not have \"_count\" suffix";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scrape_under_load_adds_up_and_promtool_has_nothing_to_say() {
    let server = server().await;
    let collector = Collector::new();
    let pool = Pool::builder()
        .url(&server.url())
        .name("a \"quoted\\ name")
        .pool_size(2)
        .max_overflow(2)
        .collector(collector.clone())
        .build()
        .unwrap();
    let named =
        Pool::builder().url(&server.url()).name("shop").collector(collector.clone()).pool_size(2).max_overflow(2);
    let shop = named.build().unwrap();
    let registry = Registry::new();
    let theirs = prometheus::IntCounter::new("their_own_total", "A metric of the service's own.").unwrap();
    registry.register(Box::new(theirs.clone())).unwrap();
    registry.register(Box::new(collector)).unwrap();
    let exporter = Exporter::new(registry).bind("127.0.0.1:0").await.unwrap();
    let address = exporter.local_addr();
    tokio::spawn(exporter.serve(std::future::pending()));

    let stop = Arc::new(AtomicBool::new(false));
    let tasks: Vec<_> = (0..12)
        .map(|task| {
            let (shop, stop) = (shop.clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                let operation = shop.operation(["list", "add", "report"][task % 3]);
                while !stop.load(Ordering::Relaxed) {
                    let work = operation.clone().run(async |connection| connection.execute("SELECT 1", &[]).await);
                    let _ = tokio::time::timeout(Duration::from_millis(fastrand::u64(0..4)), work).await;
                }
            })
        })
        .collect();
    pool.get().await.unwrap().discard();
    let text = tokio::task::spawn_blocking(move || {
        for _ in 0..100 {
            let scrape = Scrape::of(address).unwrap();
            scrape.assert_adds_up("shop");
            assert!(scrape.operations().len() <= 4);
        }
        get(address, "/metrics").unwrap().1
    })
    .await
    .unwrap();
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        tokio::time::timeout(PATIENCE, task).await.unwrap().unwrap();
    }
    assert!(text.contains("their_own_total 0"), "{text}");
    for metric in METRICS.iter().filter(|metric| matches!(metric.source, Source::Pool(_) | Source::Exporter)) {
        let may_miss = ["poolscope_recommended_size", "poolscope_connection_errors_total"].contains(&metric.name);
        assert!(
            may_miss || text.contains(&format!("# TYPE {} {}", metric.name, metric.kind.as_str())),
            "{}",
            metric.name
        );
    }

    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("promtool is on the PATH: `scripts/setup test` installs it");
    std::io::Write::write_all(&mut promtool.stdin.take().unwrap(), text.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap() + &String::from_utf8(output.stdout).unwrap();
    let complaints: Vec<_> = said.lines().filter(|line| *line != KNOWN_COMPLAINT).collect();
    assert!(complaints.is_empty(), "{complaints:?}");
}

#[tokio::test]
async fn our_collector_goes_into_the_default_registry_too() {
    let server = server().await;
    let pool = Pool::builder().url(&server.url()).name("in the default registry").build().unwrap();
    drop(pool.get().await.unwrap());
    prometheus::register(Box::new(Collector::global())).unwrap();
    let text = prometheus::TextEncoder::new().encode_to_string(&prometheus::gather()).unwrap();
    assert!(text.contains("db_client_connection_max{db_client_connection_pool_name=\"in the default registry\"} 30"));
    drop(pool);
    let text = prometheus::TextEncoder::new().encode_to_string(&prometheus::gather()).unwrap();
    assert!(!text.contains("in the default registry"), "a pool's series go with it: {text}");
}
