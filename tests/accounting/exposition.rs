//! The metrics as Prometheus reads them.

use std::collections::BTreeMap;

use poolscope::labels::{CloseReason, ErrorPhase, Outcome, Phase};
use poolscope::pool::Pool;
use poolscope::telemetry::BOUNDS_SECONDS;
use poolscope::telemetry::catalogue::{Kind, METRICS, POOL_LABEL};
use poolscope::{Collector, RetryPolicy};
use prometheus::{Encoder, Registry, TextEncoder};

use super::backend::{Behavior, Completion, ScriptedBackend};
use super::harness::{TestPool, ms, settings};

/// The labels and the value of one sample.
type Sample = (BTreeMap<String, String>, f64);

/// A page in the text format; samples are grouped by name.
struct Page {
    samples: BTreeMap<String, Vec<Sample>>,
    kinds: BTreeMap<String, String>,
}

impl Page {
    fn of(collector: &Collector) -> Self {
        let registry = Registry::new();
        registry.register(Box::new(collector.clone())).unwrap();
        let mut text = Vec::new();
        TextEncoder::new().encode(&registry.gather(), &mut text).unwrap();
        Self::parse(std::str::from_utf8(&text).unwrap())
    }

    fn parse(text: &str) -> Self {
        let mut page = Self { samples: BTreeMap::new(), kinds: BTreeMap::new() };
        for line in text.lines() {
            if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').unwrap();
                assert!(page.kinds.insert(name.to_owned(), kind.to_owned()).is_none(), "duplicate metric {name}");
            } else if !line.starts_with('#') {
                let (series, value) = line.rsplit_once(' ').unwrap();
                let (name, labels) = match series.split_once('{') {
                    Some((name, labels)) => (name, Self::labels(labels.strip_suffix('}').unwrap())),
                    None => (series, BTreeMap::new()),
                };
                let samples = page.samples.entry(name.to_owned()).or_default();
                assert!(samples.iter().all(|(others, _)| *others != labels), "duplicate series {series}");
                samples.push((labels, value.parse().unwrap()));
            }
        }
        page
    }

    /// Parses `name="value",…`. The values of these tests need no escapes.
    fn labels(text: &str) -> BTreeMap<String, String> {
        let pairs = text.split("\",").filter(|pair| !pair.is_empty());
        pairs
            .map(|pair| {
                let (name, value) = pair.split_once("=\"").unwrap();
                (name.to_owned(), value.trim_end_matches('"').to_owned())
            })
            .collect()
    }

    /// Returns the samples of one name that have at least these labels.
    fn select(&self, name: &str, labels: &[(&str, &str)]) -> Vec<&Sample> {
        let matches = |sample: &Sample| {
            labels.iter().all(|(label, value)| sample.0.get(*label).is_some_and(|found| found == value))
        };
        self.samples.get(name).into_iter().flatten().filter(|sample| matches(sample)).collect()
    }

    fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.select(name, labels).iter().map(|(_, value)| value).sum()
    }

    fn pools(&self) -> Vec<&str> {
        self.select("db_client_connection_max", &[]).iter().map(|(labels, _)| labels[POOL_LABEL].as_str()).collect()
    }

    /// Checks the invariants from the page alone.
    #[track_caller]
    fn check(&self) {
        for pool in self.pools() {
            let pool = (POOL_LABEL, pool);
            let sum = |name: &str| self.sum(name, &[pool]);
            assert_eq!(
                sum("poolscope_checkouts_started_total"),
                sum("poolscope_checkouts_total") + sum("poolscope_checkouts_in_flight"),
            );
            for (labels, started) in self.select("poolscope_checkouts_started_total", &[pool]) {
                let operation = ("operation", labels["operation"].as_str());
                assert!(*started >= self.sum("poolscope_checkouts_total", &[pool, operation]));
            }
            let [creating, closing] = ["poolscope_connections_creating", "poolscope_connections_closing"].map(sum);
            let live = sum("db_client_connection_count") + creating + closing;
            assert_eq!(sum("poolscope_connections_created_total"), sum("poolscope_connections_closed_total") + live);
            assert!(live <= sum("db_client_connection_max"));
            assert_eq!(sum("db_client_connection_wait_time_seconds_count"), sum("poolscope_checkouts_total"));
            assert_eq!(
                sum("db_client_connection_timeouts_total"),
                self.sum("poolscope_checkouts_total", &[pool, ("outcome", "timeout")]),
            );
            let waits = sum("poolscope_operation_wait_seconds_total") - sum("poolscope_checkout_phase_seconds_total");
            assert!(waits.abs() < 1e-9, "{waits}");
            assert!(sum("db_client_connection_pending_requests") <= sum("poolscope_checkouts_in_flight"));
        }
        for metric in METRICS.iter().filter(|metric| metric.kind == Kind::Histogram && metric.has_pool_label()) {
            for (labels, count) in self.select(&format!("{}_count", metric.name), &[]) {
                let labels: Vec<_> = labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
                let buckets = self.select(&format!("{}_bucket", metric.name), &labels);
                assert_eq!(buckets.len(), BOUNDS_SECONDS.len() + 1, "{}", metric.name);
                let counts: Vec<_> = buckets.iter().map(|(_, count)| *count).collect();
                assert!(counts.is_sorted(), "buckets are cumulative: {counts:?}");
                assert_eq!(counts.last(), Some(count), "the last bucket counts all");
                assert_eq!(buckets.last().unwrap().0["le"], "+Inf");
            }
        }
    }
}

/// Produces every outcome, phase and close reason, and leaves connections in every state.
async fn exercise(test: &TestPool) {
    let run = |name: &str| test.pool.operation(name).run(async |_| Ok::<_, std::convert::Infallible>(()));
    run("run").await.unwrap();
    #[cfg(feature = "middleware")]
    super::requests::serve_one(test);
    retry(test).await;
    drop(test.get_many("pair", 2));
    test.advance(ms(600)).await;
    test.backend.set_ping(Behavior::Error);
    test.backend.push_connect(Behavior::Error);
    drop(test.checkout("fails").poll().unwrap());
    test.backend.recover();
    drop(test.get_many("many", 3));
    test.get("discards").discard();
    test.advance(ms(10_000)).await;
    drop(test.get("aged"));
    for phase in [Phase::Connect, Phase::Ping] {
        test.advance(ms(600)).await;
        test.backend.set_ping(Behavior::Blocked);
        test.backend.set_connect(Behavior::Blocked);
        let attempts = (test.checkout("leaves").assert_pending(), test.checkout("leaves").assert_pending());
        test.advance(ms(10)).await;
        drop(attempts);
        test.release_all(Completion::Panic).await;
        test.backend.recover();
        if phase == Phase::Connect {
            drop(test.get("again"));
        }
    }
    let held = test.get_many("holder", 3);
    let mut late = test.checkout("late").assert_pending();
    test.advance(ms(1100)).await;
    assert!(late.poll().unwrap().is_err());
    held[0].mark_broken();
    drop(held);
    for _ in 0..20 {
        test.advance(ms(1000)).await;
        // Enough for a recommended size, for which snapshots read the load.
        for _ in 0..20 {
            drop(test.get("steady"));
        }
        test.snapshot();
    }
}

/// Runs an operation that succeeds at its second attempt, and one that fails at its only attempt.
async fn retry(test: &TestPool) {
    let run = |attempts| {
        // Forces the operation to connect.
        test.get("discards").discard();
        test.backend.push_connect(Behavior::Error);
        let operation = test.pool.operation("retried").retry(RetryPolicy::default().attempts(attempts));
        operation.run(async |_| Ok::<_, std::convert::Infallible>(()))
    };
    run(2).await.unwrap();
    run(1).await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn invariants_hold_on_the_rendered_page() {
    let test = TestPool::new(2, 1);
    Page::of(&test.collector).check();
    exercise(&test).await;
    let held = test.get_many("holder", 3);
    let waiting = test.checkout("waiter").assert_pending();
    test.advance(ms(250)).await;
    let page = Page::of(&test.collector);
    page.check();
    let value = |name: &str, labels: &[(&str, &str)]| {
        let found = page.select(name, labels);
        assert_eq!(found.len(), 1, "{name} {labels:?}");
        found[0].1
    };
    assert_eq!(value("db_client_connection_count", &[("db_client_connection_state", "used")]), 3.0);
    assert_eq!(value("db_client_connection_count", &[("db_client_connection_state", "idle")]), 0.0);
    assert_eq!(value("db_client_connection_max", &[]), 3.0);
    assert_eq!(value("db_client_connection_idle_max", &[]), 2.0);
    assert_eq!(value("db_client_connection_idle_min", &[]), 0.0);
    assert_eq!(value("db_client_connection_pending_requests", &[]), 1.0);
    assert_eq!(value("poolscope_checkouts_in_flight", &[]), 1.0);
    assert_eq!(value("poolscope_checkout_wait_oldest_seconds", &[]), 0.25);
    assert_eq!(value("poolscope_operation_wait_seconds_total", &[("operation", "waiter")]), 0.25);
    assert_eq!(value("poolscope_saturated_seconds_total", &[]), 1.35);
    assert_eq!(value("poolscope_checkouts_started_total", &[("operation", "holder")]), 6.0);
    let ok = [("operation", "holder"), ("outcome", "ok")];
    assert_eq!(value("poolscope_checkouts_total", &ok), 6.0);
    assert_eq!(value("db_client_connection_timeouts_total", &[]), 1.0);
    let run = [("operation", "run"), ("outcome", "ok")];
    assert_eq!(value("poolscope_operation_duration_seconds_count", &run), 1.0);
    let errors = [("phase", "connect"), ("sqlstate", "57P03")];
    assert_eq!(value("poolscope_connection_errors_total", &errors), 3.0);
    let retried = [("operation", "retried"), ("sqlstate", "57P03")];
    assert_eq!(value("poolscope_retries_total", &retried), 1.0);
    assert_eq!(value("poolscope_retry_recovered_total", &[("operation", "retried")]), 1.0);
    let exhausted = [retried[0], retried[1], ("reason", "attempts")];
    assert_eq!(value("poolscope_retry_exhausted_total", &exhausted), 1.0);
    drop((held, waiting));
    Page::of(&test.collector).check();
}

/// Prefixes of metrics that need the protocol observer, PostgreSQL, or a problem after a healthy time. The tests against a
/// real server and those of the encoder cover them.
const ON_A_SERVER: &[&str] = &[
    "db_client_operation_duration_seconds",
    "poolscope_cache_",
    "poolscope_diagnosis_evidence_usual",
    "poolscope_dirty_returns_total",
    "poolscope_query_errors_total",
    "poolscope_redis_",
    "poolscope_server_",
    "poolscope_unpooled_",
];

#[tokio::test(start_paused = true)]
async fn every_catalogued_metric_has_its_type_and_labels() {
    let test = TestPool::new(2, 1);
    exercise(&test).await;
    let page = Page::of(&test.collector);
    let of_a_pool = METRICS.iter().filter(|metric| metric.has_pool_label());
    let of_a_pool =
        of_a_pool.filter(|metric| cfg!(feature = "middleware") || !metric.name.starts_with("poolscope_request_"));
    for metric in of_a_pool.filter(|metric| !ON_A_SERVER.iter().any(|begin| metric.name.starts_with(begin))) {
        assert_eq!(page.kinds.get(metric.name).map(String::as_str), Some(metric.kind.as_str()), "{}", metric.name);
        let suffix = if metric.kind == Kind::Histogram { "_count" } else { "" };
        for (labels, _) in page.select(&format!("{}{suffix}", metric.name), &[]) {
            let mut expected: Vec<_> = metric.labels.to_vec();
            expected.push(POOL_LABEL);
            expected.sort_unstable();
            assert_eq!(labels.keys().map(String::as_str).collect::<Vec<_>>(), expected, "{}", metric.name);
        }
    }
    let known: Vec<_> = METRICS.iter().map(|metric| metric.name).collect();
    assert!(page.kinds.keys().all(|name| known.contains(&name.as_str())), "only catalogued metrics");
}

#[tokio::test(start_paused = true)]
async fn labels_have_exactly_the_documented_values() {
    let test = TestPool::new(2, 1);
    exercise(&test).await;
    let page = Page::of(&test.collector);
    let values = |name: &str, label: &str| {
        let mut values: Vec<_> = page.select(name, &[]).iter().map(|(labels, _)| labels[label].clone()).collect();
        values.sort_unstable();
        values.dedup();
        values
    };
    let labels = |labels: &mut dyn Iterator<Item = &'static str>| {
        let mut labels: Vec<_> = labels.map(str::to_owned).collect();
        labels.sort_unstable();
        labels
    };
    let outcomes = labels(&mut Outcome::ALL.iter().map(|label| label.as_str()));
    assert_eq!(values("poolscope_checkouts_total", "outcome"), outcomes);
    let reasons = labels(&mut CloseReason::ALL.iter().map(|label| label.as_str()));
    assert_eq!(values("poolscope_connections_closed_total", "reason"), reasons);
    let phases = labels(&mut Phase::ALL.iter().map(|label| label.as_str()));
    assert_eq!(values("poolscope_checkout_phase_seconds_total", "phase"), phases);
    let without_wire = [ErrorPhase::Connect, ErrorPhase::Ping, ErrorPhase::Checkout];
    let errors = labels(&mut without_wire.iter().map(|label| label.as_str()));
    assert_eq!(values("poolscope_connection_errors_total", "phase"), errors);
    // Every reason but those that need a closed pool, the protocol observer, a proxy, or a pool with other settings.
    let excluded = [
        CloseReason::Shutdown,
        CloseReason::Dirty,
        CloseReason::ReadOnly,
        CloseReason::IdleTimeout,
        CloseReason::Resized,
        CloseReason::HookFailed,
        CloseReason::HookAbandoned,
        CloseReason::ClientClosed,
        CloseReason::ClientLost,
    ];
    for reason in CloseReason::ALL.iter().filter(|reason| !excluded.contains(reason)) {
        let closed = page.sum("poolscope_connections_closed_total", &[("reason", reason.as_str())]);
        assert!(closed > 0.0, "{reason:?} did not occur");
    }
}

#[tokio::test(start_paused = true)]
async fn collector_without_pools_can_be_gathered() {
    let page = Page::of(&Collector::new());
    assert_eq!(page.kinds.keys().collect::<Vec<_>>(), ["poolscope_build_info"]);
    let version = ("version", env!("CARGO_PKG_VERSION"));
    assert_eq!(page.select("poolscope_build_info", &[version]).len(), 1);
    assert!(page.pools().is_empty());
}

#[tokio::test(start_paused = true)]
async fn equal_names_are_numbered_and_dropped_pools_go() {
    let collector = Collector::new();
    let new_pool =
        || Pool::with_mock_clock(ScriptedBackend::default(), "orders", &settings(1, 0), &collector).unwrap().0;
    let (first, second, third) = (new_pool(), new_pool(), new_pool());
    assert_eq!([first.name(), second.name(), third.name()], ["orders", "orders-2", "orders-3"]);
    let page = Page::of(&collector);
    page.check();
    assert_eq!(page.pools(), ["orders", "orders-2", "orders-3"]);

    drop(first);
    let page = Page::of(&collector);
    assert_eq!(page.pools(), ["orders-2", "orders-3"]);
    for samples in page.samples.values().flatten() {
        assert_ne!(samples.0.get(POOL_LABEL).map(String::as_str), Some("orders"), "{samples:?}");
    }
    // The name is free again. A dropped pool stays until its last connection is returned.
    let held = second.operation("holder").get().await.unwrap();
    drop(second);
    let next = new_pool();
    assert_eq!(Page::of(&collector).pools(), ["orders", "orders-2", "orders-3"]);
    drop(held);
    assert_eq!(Page::of(&collector).pools(), ["orders", "orders-3"]);
    drop((next, third));
    assert!(Page::of(&collector).pools().is_empty());
}
