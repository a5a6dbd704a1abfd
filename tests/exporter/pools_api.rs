//! The pools as JSON.

use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Waker};
use std::thread;
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use poolscope::exporter::Exporter;
use poolscope::labels::{ErrorCode, ErrorPhase, Phase};
use poolscope::telemetry::catalogue::METRICS;
use poolscope::text::printable;
use poolscope::{Collector, Connection, Pool};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::harness::{Gate, Running, TEST_TIMEOUT, in_time};

/// AuthenticationOk, BackendKeyData of process 4711, ReadyForQuery.
const GREETING: &[u8] = b"R\0\0\0\x08\0\0\0\0K\0\0\0\x0c\0\0\x12\x67\0\0\0\x01Z\0\0\0\x05I";

/// Starts a server that completes the startup of the PostgreSQL protocol, and sends nothing more.
async fn server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut streams = Vec::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            // The startup message is ignored.
            stream.readable().await.unwrap();
            assert_eq!(stream.try_write(GREETING).unwrap(), GREETING.len());
            streams.push(stream);
        }
    });
    address
}

/// Pools of that server, and their collector.
pub(crate) struct Fixture {
    server: SocketAddr,
    pub(crate) collector: Collector,
}

impl Fixture {
    pub(crate) async fn new() -> Self {
        Self { server: server().await, collector: Collector::new() }
    }

    pub(crate) fn pool(&self, name: &str, size: usize) -> Pool {
        let url = format!("postgres://app@{}/shop?sslmode=disable", self.server);
        let builder = Pool::builder().url(&url).name(name).pool_size(size).max_overflow(0);
        builder.checkout_timeout(TEST_TIMEOUT).collector(self.collector.clone()).build().unwrap()
    }

    pub(crate) fn exporter(&self) -> Exporter {
        Exporter::new(self.collector.clone())
    }

    pub(crate) async fn serve(&self) -> Running {
        Running::start(&self.exporter()).await
    }
}

/// A checkout that has begun to wait.
pub(crate) type Pending = Pin<Box<dyn Future<Output = Connection> + Send>>;

fn poll_pending(checkout: impl Future<Output = Connection> + Send + 'static) -> Pending {
    let mut checkout = Box::pin(checkout);
    assert!(checkout.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    checkout
}

pub(crate) async fn held(pool: &Pool, operation: &str) -> Connection {
    in_time(pool.operation(operation).get()).await.unwrap()
}

pub(crate) fn waiting(pool: &Pool, operation: &str) -> Pending {
    let operation = pool.operation(operation);
    poll_pending(async move { operation.get().await.unwrap() })
}

async fn listing(running: &Running, query: &str) -> Value {
    let response = running.get(&format!("/api/v1/pools{query}")).await;
    assert_eq!(response.status, 200, "{}", response.body);
    serde_json::from_str(&response.body).unwrap()
}

/// The values of a field of each object in a list.
fn each<'a>(list: &'a Value, field: &str) -> Vec<&'a Value> {
    list.as_array().unwrap().iter().map(|object| &object[field]).collect()
}

pub(crate) fn keys(object: &Value) -> Vec<&str> {
    let mut keys: Vec<_> = object.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

#[tokio::test]
async fn empty_collector_has_no_pools() {
    let response = Fixture::new().await.serve().await.get("/api/v1/pools").await;
    assert_eq!((response.status, &*response.body), (200, r#"{"pools":[]}"#));
    assert_eq!(response.headers["content-type"], "application/json");
    assert_eq!(response.headers["cache-control"], "no-store");
    assert_eq!(response.headers["x-content-type-options"], "nosniff");
}

#[tokio::test]
async fn landing_page_names_exhausted_pools() {
    let fixture = Fixture::new().await;
    let (shop, _jobs) = (fixture.pool("shop", 1), fixture.pool("jobs", 1));
    let running = fixture.serve().await;
    let held = held(&shop, "list_orders").await;
    assert!(running.get("/").await.body.contains(">Ready</p>"), "no checkout waits");
    let waiter = waiting(&shop, "add_order");
    let page = running.get("/").await.body;
    let expected = ">Ready, but checkouts wait: pool `shop`: 1 of 1 connections used, 1 waiting</p>";
    assert!(page.contains(expected), "{page}");
    drop((waiter, held));
    assert!(running.get("/").await.body.contains(">Ready</p>"));
}

#[tokio::test]
async fn fields_are_stable() {
    let fixture = Fixture::new().await;
    let pool = fixture.pool("shop", 1);
    // In a task of its own, which is not the one that waits.
    let holder = pool.clone();
    let _held = tokio::spawn(async move { held(&holder, "list_orders").await }).await.unwrap();
    let _waiter = waiting(&pool, "add_order");

    let response = fixture.serve().await.get("/api/v1/pools").await;
    let listing: Value = serde_json::from_str(&response.body).unwrap();
    let shop = &listing["pools"][0];
    let (holder, waiter) = (&shop["holders"][0], &shop["waiters"][0]);

    assert_eq!(keys(&listing), ["pools"]);
    let pool_keys = [
        "diagnosis",
        "holders",
        "holders_omitted",
        "kind",
        "name",
        "sizing",
        "state",
        "suspected_leaks",
        "waiters",
        "waiters_omitted",
    ];
    assert_eq!(keys(shop), pool_keys);
    assert_eq!(shop["name"], "shop");
    assert_eq!(shop["kind"], "pool");
    assert_eq!(shop["state"], json!({"used": 1, "idle": 0, "creating": 0, "closing": 0, "waiting": 1, "max": 1}));
    assert_eq!(shop["suspected_leaks"], 0);
    assert_eq!((&shop["holders_omitted"], &shop["waiters_omitted"]), (&json!(0), &json!(0)));

    let diagnosis_keys = [
        "advice",
        "call_site",
        "cause",
        "consequences",
        "evidence",
        "finding",
        "operation",
        "sample_interval_seconds",
        "since_seconds",
    ];
    let diagnosis = &shop["diagnosis"];
    assert_eq!(keys(diagnosis), diagnosis_keys);
    assert_eq!((&diagnosis["cause"], &diagnosis["operation"]), (&json!("not_enough_data"), &Value::Null));
    assert_eq!(keys(&diagnosis["evidence"][0]), ["name", "unit", "usual", "value"]);
    assert_eq!((&diagnosis["evidence"][0]["name"], &diagnosis["consequences"]), (&json!("sampled"), &json!([])));

    let sizing = json!({
        "recommended_size": null,
        "withheld_by": null,
        "reason": "no size is recommended yet: at least 100 checkouts within 10s have to be recorded",
        "wait_target_seconds": 0.01,
        "available_slots": null,
    });
    assert_eq!(shop["sizing"], sizing);

    let holder_keys = [
        "activity",
        "age_seconds",
        "backend_pid",
        "call_site",
        "maintenance",
        "operation",
        "queries",
        "request",
        "silent_seconds",
        "suspected_leak",
        "trace_id",
        "waits_for_own_pool",
    ];
    assert_eq!(keys(holder), holder_keys);
    assert_eq!(holder["operation"], "list_orders");
    assert!(holder["call_site"].as_str().unwrap().starts_with("tests/exporter/pools_api.rs:"), "{holder}");
    assert!(holder["age_seconds"].as_f64().unwrap() > 0.0, "{holder}");
    assert!(holder["silent_seconds"].as_f64().unwrap() <= holder["age_seconds"].as_f64().unwrap(), "{holder}");
    assert_eq!((&holder["activity"], &holder["backend_pid"]), (&json!("idle"), &json!(4711)));
    assert_eq!((&holder["queries"], &holder["trace_id"]), (&json!(0), &Value::Null));
    let flags = ["maintenance", "suspected_leak", "waits_for_own_pool"].map(|flag| &holder[flag]);
    assert_eq!(flags, [&json!(false); 3]);

    assert_eq!(keys(waiter), ["age_seconds", "call_site", "operation", "own", "phase", "request", "trace_id"]);
    assert_eq!((&waiter["operation"], &waiter["phase"]), (&json!("add_order"), &json!("queue")));
    assert!(waiter["call_site"].as_str().unwrap().starts_with("tests/exporter/pools_api.rs:"), "{waiter}");
    assert!(waiter["age_seconds"].as_f64().unwrap() > 0.0, "{waiter}");

    // In the documented order, for people who read it unformatted.
    let first = r#"{"pools":[{"name":"shop","kind":"pool","state":{"used":1,"idle":0,"creating":0,"closing":0,"waiting":1,"max":1},"holders":[{"operation":"list_orders","call_site":"#;
    assert!(response.body.starts_with(first), "{}", response.body);
}

#[tokio::test]
async fn holders_and_waiters_are_listed_oldest_first() {
    let fixture = Fixture::new().await;
    let pool = fixture.pool("shop", 3);
    let mut connections = Vec::new();
    for operation in ["first", "second", "third"] {
        connections.push(held(&pool, operation).await);
    }
    let _waiters = ["fourth", "fifth"].map(|operation| waiting(&pool, operation));

    let running = fixture.serve().await;
    let shop = &listing(&running, "").await["pools"][0];
    assert_eq!(each(&shop["holders"], "operation"), ["first", "second", "third"]);
    assert_eq!(each(&shop["waiters"], "operation"), ["fourth", "fifth"]);
    for list in ["holders", "waiters"] {
        let ages: Vec<_> = each(&shop[list], "age_seconds").into_iter().map(|age| age.as_f64().unwrap()).collect();
        assert!(ages.is_sorted_by(|older, younger| older >= younger), "{ages:?}");
    }

    drop(connections.remove(0));
    let shop = &listing(&running, "").await["pools"][0];
    assert_eq!(each(&shop["holders"], "operation"), ["second", "third"]);
}

#[tokio::test]
async fn waiter_shows_what_its_own_task_holds() {
    let fixture = Fixture::new().await;
    let pool = fixture.pool("shop", 1);
    let (ready, is_ready) = oneshot::channel();
    let waiter = tokio::spawn(async move {
        let _own = held(&pool, "outer").await;
        let inner = waiting(&pool, "inner");
        ready.send(()).unwrap();
        inner.await
    });
    in_time(is_ready).await.unwrap();

    let running = fixture.serve().await;
    // It is determined once the waiter has waited for 10 ms.
    let shop = loop {
        let shop = listing(&running, "").await["pools"][0].take();
        if !shop["waiters"][0]["own"].is_null() {
            break shop;
        }
    };
    let waiter_shown = &shop["waiters"][0];
    assert_eq!((&waiter_shown["operation"], &waiter_shown["phase"]), (&json!("inner"), &json!("queue")));
    assert_eq!(keys(&waiter_shown["own"]), ["call_site", "operation"]);
    assert_eq!(waiter_shown["own"]["operation"], "outer");
    assert_eq!(waiter_shown["own"]["call_site"], shop["holders"][0]["call_site"]);
    waiter.abort();
}

#[tokio::test]
async fn connecting_waiter_is_listed() {
    let fixture = Fixture::new().await;
    // The kernel accepts the connection, and nothing responds.
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let pool = Fixture { server: mute.local_addr().unwrap(), collector: fixture.collector.clone() }.pool("shop", 1);
    let _waiter = waiting(&pool, "add_order");

    let shop = &listing(&fixture.serve().await, "").await["pools"][0];
    assert_eq!(shop["state"], json!({"used": 0, "idle": 0, "creating": 1, "closing": 0, "waiting": 0, "max": 1}));
    let waiter = &shop["waiters"][0];
    assert_eq!((&waiter["phase"], &waiter["own"]), (&json!("connect"), &Value::Null));
}

#[tokio::test]
async fn suspected_leak_is_marked() {
    let fixture = Fixture::new().await;
    let url = format!("postgres://app@{}/shop?sslmode=disable&leak_threshold=1ms", fixture.server);
    let pool = Pool::builder().url(&url).name("shop").collector(fixture.collector.clone()).build().unwrap();
    let _held = held(&pool, "forgotten").await;
    thread::sleep(Duration::from_millis(2));

    let shop = &listing(&fixture.serve().await, "").await["pools"][0];
    assert_eq!(shop["suspected_leaks"], 1);
    assert_eq!(each(&shop["holders"], "suspected_leak"), [true]);
}

#[tokio::test]
async fn oldest_waiters_are_listed_and_others_counted() {
    let fixture = Fixture::new().await;
    let pool = fixture.pool("shop", 1);
    let _held = held(&pool, "list_orders").await;
    let _first = waiting(&pool, "first");
    let _others: Vec<_> = (0..1004).map(|_| waiting(&pool, "other_order")).collect();

    let shop = &listing(&fixture.serve().await, "").await["pools"][0];
    assert_eq!(shop["state"]["waiting"], 1005);
    assert_eq!(shop["waiters"].as_array().unwrap().len(), 1000);
    assert_eq!(shop["waiters_omitted"], 5);
    assert_eq!(shop["waiters"][0]["operation"], "first");
}

#[tokio::test]
async fn query_selects_a_pool() {
    let fixture = Fixture::new().await;
    let _pools = ["shop", "my shop", "a+b&c=d/ü"].map(|name| fixture.pool(name, 1));
    let running = fixture.serve().await;
    for (query, names) in [
        ("", &["shop", "my shop", "a+b&c=d/ü"][..]),
        ("?", &["shop", "my shop", "a+b&c=d/ü"]),
        ("?pool=shop", &["shop"]),
        ("?pool=my%20shop", &["my shop"]),
        ("?pool=a+b%26c%3Dd/%C3%BC", &["a+b&c=d/ü"]),
        ("?pool=", &[]),
        ("?pool=sho", &[]),
        ("?pool=SHOP", &[]),
    ] {
        let listing = listing(&running, query).await;
        assert_eq!(each(&listing["pools"], "name"), names, "{query}");
    }
}

#[tokio::test]
async fn unknown_parameter_is_a_json_error() {
    let running = Fixture::new().await.serve().await;
    for (query, message) in [
        ("?name=shop", "unknown parameter `name`; the only one is pool=NAME"),
        ("?pool=shop&%22%5C%0A=", "unknown parameter `\"\\\\n`; the only one is pool=NAME"),
        ("?pool=%ff", "pool is not UTF-8 once percent-decoded; give UTF-8"),
    ] {
        let response = running.get(&format!("/api/v1/pools{query}")).await;
        assert_eq!(response.status, 400, "{query}");
        assert_eq!(response.headers["content-type"], "application/json");
        assert_eq!(response.headers["cache-control"], "no-store");
        let json: Value = serde_json::from_str(&response.body).unwrap();
        assert_eq!(json, json!({ "error": message }));
    }
}

#[tokio::test]
async fn head_has_the_length_of_get() {
    let fixture = Fixture::new().await;
    let pool = fixture.pool("shop", 1);
    let running = fixture.serve().await;
    // On one connection, a stray body would be parsed as the next response. Without holders, no age changes.
    let mut client = running.connect().await;
    let head = client.request("HEAD", "/api/v1/pools?pool=shop").await;
    let get = client.request("GET", "/api/v1/pools?pool=shop").await;
    assert_eq!((head.status, get.status), (200, 200));
    assert_eq!(head.headers["content-type"], "application/json");
    assert_eq!(head.headers["content-length"], get.body.len().to_string());
    drop(pool);
}

#[tokio::test]
async fn hanging_collector_does_not_hide_holders() {
    let fixture = Fixture::new().await;
    let _pool = fixture.pool("shop", 1);
    let (registry, mut gate) = Gate::new();
    let running = Running::start(&fixture.exporter().registry(registry)).await;
    // As many as the exporter runs at once.
    let mut scrapers = Vec::new();
    for _ in 0..4 {
        let scraper = running.connect().await;
        scraper.send_request("GET", "/metrics").await;
        gate.entered().await;
        scrapers.push(scraper);
    }

    assert_eq!(each(&listing(&running, "").await["pools"], "name"), ["shop"]);

    gate.open();
    for mut scraper in scrapers {
        assert_eq!(scraper.response(true).await.status, 200);
    }
}

/// Names that break hand-written encoders.
const HOSTILE: [&str; 10] = [
    r#"","operation":"forged"#,
    r"C:\new\table\u0041",
    "two\nlines\r\n\tand\0more\u{1}\u{1f}\u{7f}",
    "\u{2028}\u{2029}\u{feff}\u{202e}",
    "Bestellungen für 東京 🦀",
    "</script><!--",
    "{{}}${PATH}%00%s",
    "\u{fffd}\u{10ffff}",
    "\0\u{1b}[2J\r\n\u{9b}31m\u{85}",
    "\u{202e}txt\u{2066}\u{200f}\u{61c}\u{2028}",
];

/// Asserts that a pool of this name, whose holder has an operation of this name, is listed with both, escaped as they
/// are on the metrics page.
async fn assert_listed(fixture: &Fixture, running: &Running, name: &str) -> Result<(), TestCaseError> {
    // The name of a pool must not have control characters, nor whitespace around it.
    let inner: String = name.chars().filter(|c| !c.is_control()).collect();
    let pool_name = format!("pool {inner}.");
    let pool = fixture.pool(&pool_name, 1);
    let held = held(&pool, name).await;
    let query = format!("?pool={}", utf8_percent_encode(&pool_name, NON_ALPHANUMERIC));
    let response = running.get(&format!("/api/v1/pools{query}")).await;
    let page = running.get("/metrics").await;
    drop((held, pool));

    prop_assert_eq!((response.status, page.status), (200, 200));
    for body in [response.body.as_str(), &page.body.replace('\n', "")] {
        prop_assert_eq!(body.find(|c: char| c.is_control() || BIDIRECTIONAL.contains(&c)), None, "{:?}", body);
    }
    let listing: Value = serde_json::from_str(&response.body).unwrap();
    let (pool_name, name) = (printable(&pool_name), printable(name));
    prop_assert_eq!(each(&listing["pools"], "name"), vec![&*pool_name]);
    let holders = &listing["pools"][0]["holders"];
    prop_assert_eq!(each(holders, "operation"), vec![truncated(&name, 120)]);
    let label = |text: &str| text.replace('\\', r"\\").replace('"', r#"\""#);
    let label = format!("operation=\"{}\"", label(truncated(&name, 120)));
    prop_assert!(page.body.contains(&label), "{} in {}", label, page.body);
    Ok(())
}

const BIDIRECTIONAL: [char; 4] = ['\u{202e}', '\u{2066}', '\u{200f}', '\u{61c}'];

/// Returns the beginning of the text, of at most `length` bytes.
fn truncated(text: &str, length: usize) -> &str {
    let end = (0..=text.len().min(length)).rev().find(|end| text.is_char_boundary(*end)).unwrap();
    &text[..end]
}

#[test]
fn any_names_are_read_back() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let fixture = runtime.block_on(Fixture::new());
    let running = runtime.block_on(fixture.serve());
    for name in HOSTILE {
        runtime.block_on(assert_listed(&fixture, &running, name)).unwrap();
    }
    // Short enough not to be truncated.
    let name = proptest::collection::vec(any::<char>(), 1..=30).prop_map(String::from_iter);
    let mut runner = TestRunner::new(ProptestConfig { cases: 100, failure_persistence: None, ..Default::default() });
    runner.run(&name, |name| runtime.block_on(assert_listed(&fixture, &running, &name))).unwrap();
}

/// The values of labels that the documentation lists are those of the code.
#[test]
fn documented_phases_and_codes_are_complete() {
    let api = include_str!("../../docs/api.yaml");
    let phases: Vec<_> = Phase::ALL.iter().map(|phase| phase.as_str()).collect();
    assert!(api.contains(&format!("phase: {{ enum: [{}] }}", phases.join(", "))), "{phases:?}");
    let codes = [
        ErrorCode::IO,
        ErrorCode::TIMEOUT,
        ErrorCode::TOO_SLOW,
        ErrorCode::DROPPED,
        ErrorCode::TLS,
        ErrorCode::AUTH,
        ErrorCode::HOOK,
    ];
    let codes: Vec<_> = codes.iter().map(ErrorCode::as_str).collect();
    assert!(api.contains(&format!("SQLSTATE, or {} or other.", codes.join(", "))), "{codes:?}");
    let help = |name: &str| METRICS.iter().find(|metric| metric.name == name).unwrap().help;
    let errors = help("poolscope_connection_errors_total").split(" error_type is ").next().unwrap();
    assert!(ErrorPhase::ALL.iter().all(|phase| errors.contains(&format!(" {}", phase.as_str()))), "{errors}");
    let waits = help("poolscope_checkout_phase_seconds_total");
    assert!(phases.iter().all(|phase| waits.contains(&format!(" {phase}"))), "{waits}");
}
