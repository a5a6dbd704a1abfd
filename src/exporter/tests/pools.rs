use std::pin::Pin;
use std::task::{Context, Waker};
use std::thread;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::*;
use crate::telemetry::Collector;
use crate::{Connection, Pool};

/// AuthenticationOk, BackendKeyData of process 4711, ReadyForQuery.
const GREETING: &[u8] = b"R\0\0\0\x08\0\0\0\0K\0\0\0\x0c\0\0\x12\x67\0\0\0\x01Z\0\0\0\x05I";

/// As much of a PostgreSQL server as it takes to be connected to: it lets everybody in, and never says more.
async fn server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut streams = Vec::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            // What they say first is who they are, which does not matter.
            stream.readable().await.unwrap();
            assert_eq!(stream.try_write(GREETING).unwrap(), GREETING.len());
            streams.push(stream);
        }
    });
    address
}

/// Pools of that server, and what lists them.
struct Rig {
    server: SocketAddr,
    collector: Collector,
}

impl Rig {
    async fn new() -> Self {
        Self { server: server().await, collector: Collector::new() }
    }

    fn pool(&self, name: &str, size: usize) -> Pool {
        let url = format!("postgres://app@{}/shop?sslmode=disable", self.server);
        let builder = Pool::builder().url(&url).name(name).pool_size(size).max_overflow(0);
        builder.checkout_timeout(PATIENCE).collector(self.collector.clone()).build().unwrap()
    }

    fn exporter(&self) -> Exporter {
        Exporter::new(Registry::new()).collector(self.collector.clone())
    }

    async fn serve(&self) -> Running {
        Running::start(&self.exporter()).await
    }
}

/// A checkout that has begun to wait.
type Pending = Pin<Box<dyn Future<Output = Connection> + Send>>;

fn waits(checkout: impl Future<Output = Connection> + Send + 'static) -> Pending {
    let mut checkout = Box::pin(checkout);
    assert!(checkout.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    checkout
}

async fn held(pool: &Pool, operation: &str) -> Connection {
    patiently(pool.operation(operation).get()).await.unwrap()
}

fn waiting(pool: &Pool, operation: &str) -> Pending {
    let operation = pool.operation(operation);
    waits(async move { operation.get().await.unwrap() })
}

async fn listing(running: &Running, query: &str) -> Value {
    let answer = running.get(&format!("/api/v1/pools{query}")).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    serde_json::from_str(&answer.body).unwrap()
}

/// The values of a field of each object in a list.
fn each<'a>(list: &'a Value, field: &str) -> Vec<&'a Value> {
    list.as_array().unwrap().iter().map(|object| &object[field]).collect()
}

fn keys(object: &Value) -> Vec<&str> {
    let mut keys: Vec<_> = object.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

#[tokio::test]
async fn a_collector_that_no_pool_has_joined_lists_none() {
    let answer = Rig::new().await.serve().await.get("/api/v1/pools").await;
    assert_eq!((answer.status, &*answer.body), (200, r#"{"pools":[]}"#));
    assert_eq!(answer.headers["content-type"], "application/json");
    assert_eq!(answer.headers["cache-control"], "no-store");
    assert_eq!(answer.headers["x-content-type-options"], "nosniff");
}

#[tokio::test]
async fn the_shape_is_what_readers_rely_on() {
    let rig = Rig::new().await;
    let pool = rig.pool("shop", 1);
    let _held = held(&pool, "list_orders").await;
    let _waiter = waiting(&pool, "add_order");

    let answer = rig.serve().await.get("/api/v1/pools").await;
    let listing: Value = serde_json::from_str(&answer.body).unwrap();
    let shop = &listing["pools"][0];
    let (holder, waiter) = (&shop["holders"][0], &shop["waiters"][0]);

    assert_eq!(keys(&listing), ["pools"]);
    let pool_keys = ["holders", "holders_omitted", "name", "state", "suspected_leaks", "waiters", "waiters_omitted"];
    assert_eq!(keys(shop), pool_keys);
    assert_eq!(shop["name"], "shop");
    assert_eq!(shop["state"], json!({"used": 1, "idle": 0, "creating": 0, "waiting": 1, "max": 1}));
    assert_eq!(shop["suspected_leaks"], 0);
    assert_eq!((&shop["holders_omitted"], &shop["waiters_omitted"]), (&json!(0), &json!(0)));

    let holder_keys = [
        "activity",
        "age_seconds",
        "backend_pid",
        "call_site",
        "maintenance",
        "operation",
        "queries",
        "silent_seconds",
        "suspected_leak",
        "trace_id",
    ];
    assert_eq!(keys(holder), holder_keys);
    assert_eq!(holder["operation"], "list_orders");
    assert!(holder["call_site"].as_str().unwrap().starts_with("src/exporter/tests/pools.rs:"), "{holder}");
    assert!(holder["age_seconds"].as_f64().unwrap() > 0.0, "{holder}");
    assert!(holder["silent_seconds"].as_f64().unwrap() <= holder["age_seconds"].as_f64().unwrap(), "{holder}");
    assert_eq!((&holder["activity"], &holder["backend_pid"]), (&json!("idle"), &json!(4711)));
    assert_eq!((&holder["queries"], &holder["trace_id"]), (&json!(0), &Value::Null));
    assert_eq!((&holder["maintenance"], &holder["suspected_leak"]), (&json!(false), &json!(false)));

    assert_eq!(keys(waiter), ["age_seconds", "call_site", "operation", "own", "phase", "trace_id"]);
    assert_eq!((&waiter["operation"], &waiter["phase"]), (&json!("add_order"), &json!("queue")));
    assert!(waiter["call_site"].as_str().unwrap().starts_with("src/exporter/tests/pools.rs:"), "{waiter}");
    assert!(waiter["age_seconds"].as_f64().unwrap() > 0.0, "{waiter}");

    // In the order that the documentation shows, for people who read it unformatted.
    let first = r#"{"pools":[{"name":"shop","state":{"used":1,"idle":0,"creating":0,"waiting":1,"max":1},"holders":[{"operation":"list_orders","call_site":"#;
    assert!(answer.body.starts_with(first), "{}", answer.body);
}

#[tokio::test]
async fn holders_and_waiters_are_listed_oldest_first() {
    let rig = Rig::new().await;
    let pool = rig.pool("shop", 3);
    let mut connections = Vec::new();
    for operation in ["first", "second", "third"] {
        connections.push(held(&pool, operation).await);
    }
    let _waiters = ["fourth", "fifth"].map(|operation| waiting(&pool, operation));

    let running = rig.serve().await;
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
async fn a_waiter_shows_the_connection_that_its_own_task_holds() {
    let rig = Rig::new().await;
    let pool = rig.pool("shop", 1);
    let (ready, is_ready) = oneshot::channel();
    let waiter = tokio::spawn(async move {
        let _own = held(&pool, "outer").await;
        let inner = waiting(&pool, "inner");
        ready.send(()).unwrap();
        inner.await
    });
    patiently(is_ready).await.unwrap();

    let running = rig.serve().await;
    // It is looked for when it has waited for 10 ms.
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
async fn a_waiter_that_connects_is_listed_and_holds_nothing_itself() {
    let rig = Rig::new().await;
    // The kernel takes the connection, and nobody answers.
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let pool = Rig { server: mute.local_addr().unwrap(), collector: rig.collector.clone() }.pool("shop", 1);
    let _waiter = waiting(&pool, "add_order");

    let shop = &listing(&rig.serve().await, "").await["pools"][0];
    assert_eq!(shop["state"], json!({"used": 0, "idle": 0, "creating": 1, "waiting": 0, "max": 1}));
    let waiter = &shop["waiters"][0];
    assert_eq!((&waiter["phase"], &waiter["own"]), (&json!("connect"), &Value::Null));
}

#[tokio::test]
async fn a_suspected_leak_is_marked() {
    let rig = Rig::new().await;
    let url = format!("postgres://app@{}/shop?sslmode=disable&leak_threshold=1ms", rig.server);
    let pool = Pool::builder().url(&url).name("shop").collector(rig.collector.clone()).build().unwrap();
    let _held = held(&pool, "forgotten").await;
    thread::sleep(Duration::from_millis(2));

    let shop = &listing(&rig.serve().await, "").await["pools"][0];
    assert_eq!(shop["suspected_leaks"], 1);
    assert_eq!(each(&shop["holders"], "suspected_leak"), [true]);
}

#[tokio::test]
async fn of_many_waiters_the_oldest_are_listed_and_the_rest_is_counted() {
    let rig = Rig::new().await;
    let pool = rig.pool("shop", 1);
    let _held = held(&pool, "list_orders").await;
    let _first = waiting(&pool, "first");
    let _others: Vec<_> = (0..1004).map(|_| waiting(&pool, "other_order")).collect();

    let shop = &listing(&rig.serve().await, "").await["pools"][0];
    assert_eq!(shop["state"]["waiting"], 1005);
    assert_eq!(shop["waiters"].as_array().unwrap().len(), 1000);
    assert_eq!(shop["waiters_omitted"], 5);
    assert_eq!(shop["waiters"][0]["operation"], "first");
}

#[tokio::test]
async fn a_query_picks_the_pool() {
    let rig = Rig::new().await;
    let _pools = ["shop", "my shop", "a+b&c=d/ü"].map(|name| rig.pool(name, 1));
    let running = rig.serve().await;
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
async fn an_unknown_parameter_is_refused_as_json() {
    let running = Rig::new().await.serve().await;
    for (query, complaint) in [
        ("?name=shop", "unknown parameter `name`; the only one is pool=NAME"),
        ("?pool=shop&%22%5C%0A=", "unknown parameter `\"\\\n`; the only one is pool=NAME"),
        ("?pool=%ff", "pool is not UTF-8 once percent-decoded; give UTF-8"),
    ] {
        let answer = running.get(&format!("/api/v1/pools{query}")).await;
        assert_eq!(answer.status, 400, "{query}");
        assert_eq!(answer.headers["content-type"], "application/json");
        assert_eq!(answer.headers["cache-control"], "no-store");
        let said: Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(said, json!({ "error": complaint }));
    }
}

#[tokio::test]
async fn head_says_how_long_the_listing_is_and_sends_none_of_it() {
    let rig = Rig::new().await;
    let pool = rig.pool("shop", 1);
    let running = rig.serve().await;
    // One connection, so that a stray body would be taken for the next answer. Nothing ages while nobody holds any.
    let mut client = running.connect().await;
    let head = client.request("HEAD", "/api/v1/pools?pool=shop").await;
    let get = client.request("GET", "/api/v1/pools?pool=shop").await;
    assert_eq!((head.status, get.status), (200, 200));
    assert_eq!(head.headers["content-type"], "application/json");
    assert_eq!(head.headers["content-length"], get.body.len().to_string());
    drop(pool);
}

#[tokio::test]
async fn a_collector_that_hangs_does_not_hide_who_holds_the_pool() {
    let rig = Rig::new().await;
    let _pool = rig.pool("shop", 1);
    let (registry, mut gate) = Gate::new();
    let mut exporter = Exporter::new(registry).collector(rig.collector.clone());
    exporter.limits.scrapes = 1;
    let running = Running::start(&exporter).await;
    let mut scraper = running.connect().await;
    scraper.ask("GET", "/metrics").await;
    gate.entered().await;

    assert_eq!(each(&listing(&running, "").await["pools"], "name"), ["shop"]);

    gate.open();
    assert_eq!(scraper.answer(true).await.status, 200);
}

#[tokio::test]
async fn listings_that_find_no_turn_are_told_to_come_back_and_keep_no_scrape_waiting() {
    let mut exporter = Rig::new().await.exporter();
    exporter.limits.listings = 0;
    exporter.limits.turn_wait = SHORT;
    let running = Running::start(&exporter).await;

    let refused = running.get("/api/v1/pools").await;
    assert_eq!(refused.status, 503);
    assert_eq!(refused.headers["retry-after"], "5");
    assert_eq!(refused.headers["content-type"], "application/json");
    let said: Value = serde_json::from_str(&refused.body).unwrap();
    let complaint = "too many listings are under way: 0 are being made, and none was done within 50ms; ask less often";
    assert_eq!(said, json!({ "error": complaint }));

    assert_eq!(running.get("/metrics").await.status, 200);
}

/// Names that break what is put together by hand.
const HOSTILE: [&str; 8] = [
    r#"","operation":"forged"#,
    r"C:\new\table\u0041",
    "two\nlines\r\n\tand\0more\u{1}\u{1f}\u{7f}",
    "\u{2028}\u{2029}\u{feff}\u{202e}",
    "Bestellungen für 東京 🦀",
    "</script><!--",
    "{{}}${PATH}%00%s",
    "\u{fffd}\u{10ffff}",
];

/// What a pool lists whose name this is, and whose only holder has this operation.
async fn listed(rig: &Rig, running: &Running, name: &str) -> Result<(), TestCaseError> {
    // No pool can be called what has control characters.
    let pool_name: String = "pool ".chars().chain(name.chars()).filter(|c| !c.is_control()).collect();
    let pool = rig.pool(&pool_name, 1);
    let held = held(&pool, name).await;
    let query = format!("?pool={}", utf8_percent_encode(&pool_name, NON_ALPHANUMERIC));
    let answer = running.get(&format!("/api/v1/pools{query}")).await;
    drop((held, pool));

    prop_assert_eq!(answer.status, 200);
    prop_assert!(!answer.body.contains(|c| c < ' '), "{}", answer.body);
    let listing: Value = serde_json::from_str(&answer.body).unwrap();
    prop_assert_eq!(each(&listing["pools"], "name"), vec![&pool_name]);
    let holders = &listing["pools"][0]["holders"];
    prop_assert_eq!(each(holders, "operation"), vec![name]);
    Ok(())
}

#[test]
fn whatever_a_pool_and_an_operation_are_called_is_read_back() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let rig = runtime.block_on(Rig::new());
    let running = runtime.block_on(rig.serve());
    for name in HOSTILE {
        runtime.block_on(listed(&rig, &running, name)).unwrap();
    }
    // Short enough to be cut neither as a pool's name nor as an operation's.
    let name = proptest::collection::vec(any::<char>(), 1..=30).prop_map(String::from_iter);
    let mut runner = TestRunner::new(ProptestConfig { cases: 100, failure_persistence: None, ..Default::default() });
    runner.run(&name, |name| runtime.block_on(listed(&rig, &running, &name))).unwrap();
}
