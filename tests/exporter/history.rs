//! The last 15 minutes as JSON.

use std::time::Duration;

use serde_json::{Value, json};

use super::harness::{FrozenClock, Running};
use super::pools_api::{Fixture, held, keys, waiting};

/// The exporter's, and a little more, since timers have a resolution of a millisecond.
pub(crate) const SAMPLE_INTERVAL: Duration = Duration::from_millis(1010);

async fn history(running: &Running, query: &str) -> Value {
    let response = running.get(&format!("/api/v1/history{query}")).await;
    assert_eq!((response.status, &*response.headers["content-type"]), (200, "application/json"), "{}", response.body);
    serde_json::from_str(&response.body).unwrap()
}

/// Lets the exporter sample its pools this many times, and waits until it did.
pub(crate) async fn samples(clock: &FrozenClock, running: &Running, count: usize) {
    for _ in 0..count {
        let before = tick(&history(running, "?pool=none").await);
        clock.advance(SAMPLE_INTERVAL).await;
        while tick(&history(running, "?pool=none").await) == before {
            tokio::task::yield_now().await;
        }
    }
}

fn tick(history: &Value) -> u64 {
    history["id"].as_str().unwrap().split_once('-').unwrap().1.parse().unwrap()
}

#[tokio::test]
async fn fields_are_stable() {
    let clock = FrozenClock::new();
    let fixture = Fixture::new().await;
    let pool = fixture.pool("shop", 2);
    let running = fixture.serve().await;
    samples(&clock, &running, 1).await;
    let held = held(&pool, "list_orders").await;
    let _other = super::pools_api::held(&pool, "add_order").await;
    let _waiter = waiting(&pool, "add_order");
    samples(&clock, &running, 2).await;

    let json = history(&running, "").await;
    assert_eq!(keys(&json), ["id", "pools", "resolution_seconds"]);
    let pool = &json["pools"][0];
    let expected = [
        "cause",
        "closing",
        "creating",
        "errors",
        "held",
        "idle",
        "in_flight",
        "kind",
        "max",
        "name",
        "oldest_wait_seconds",
        "operations",
        "outcomes",
        "retries",
        "seconds",
        "server_slots",
        "server_slots_left",
        "suspected_leaks",
        "time",
        "truncated",
        "used",
        "wait_p50_seconds",
        "wait_p99_seconds",
        "waiting",
    ];
    assert_eq!(keys(pool), expected);
    let points = pool["time"].as_array().unwrap().len();
    for column in ["used", "max", "waiting", "cause", "server_slots", "wait_p99_seconds", "retries", "seconds"] {
        assert_eq!(pool[column].as_array().unwrap().len(), points, "{column}");
    }
    assert_eq!(keys(&pool["outcomes"]), ["cancelled", "closed", "error", "ok", "shed", "timeout"]);
    assert_eq!(keys(&pool["held"]), ["executing", "idle", "idle_in_transaction"]);
    assert_eq!((pool["used"].as_array().unwrap().last(), &pool["max"][0]), (Some(&json!(2)), &json!(2)));
    assert_eq!(pool["waiting"].as_array().unwrap().last(), Some(&json!(1)));
    let ok: u64 = pool["outcomes"]["ok"].as_array().unwrap().iter().map(|count| count.as_u64().unwrap()).sum();
    assert_eq!(ok, 2, "both checkouts, once");
    let names: Vec<_> = pool["operations"].as_array().unwrap().iter().map(|of| of["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"list_orders") && names.contains(&"add_order"), "{names:?}");
    assert_eq!(pool["operations"][0]["idle"].as_array().unwrap().len(), points);
    drop(held);
}

#[tokio::test]
async fn pool_and_since_select_points() {
    let clock = FrozenClock::new();
    let fixture = Fixture::new().await;
    let _pools = [fixture.pool("shop", 1), fixture.pool("my jobs", 1)];
    let running = fixture.serve().await;
    samples(&clock, &running, 3).await;

    let all = history(&running, "").await;
    let names: Vec<_> = all["pools"].as_array().unwrap().iter().map(|pool| pool["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["shop", "my jobs"]);
    let one = history(&running, "?pool=my%20jobs").await;
    assert_eq!(one["pools"].as_array().unwrap().len(), 1);
    let times = one["pools"][0]["time"].as_array().unwrap();
    let since = history(&running, &format!("?pool=my%20jobs&since={}", times[times.len() - 2])).await;
    assert_eq!(since["pools"][0]["time"], json!([times.last().unwrap()]));
    assert_eq!(history(&running, "?pool=none").await["pools"], json!([]));

    for (query, message) in [
        ("?since=yesterday", "since is not a number; give seconds since the Unix epoch, as in since=1764591600"),
        ("?limit=1", "unknown parameter `limit`; there are pool=NAME and since=SECONDS"),
        ("?since=1&since=2", "since is given twice; give it once, or leave it out for all that is kept"),
    ] {
        let response = running.get(&format!("/api/v1/history{query}")).await;
        assert_eq!((response.status, &*response.body), (400, &*json!({ "error": message }).to_string()));
    }
}

/// A collector is sampled by each of its exporters, and has one history.
#[tokio::test]
async fn exporters_of_one_collector_share_the_history() {
    let clock = FrozenClock::new();
    let fixture = Fixture::new().await;
    let _pool = fixture.pool("shop", 1);
    let (one, other) = (fixture.serve().await, fixture.serve().await);
    samples(&clock, &one, 3).await;
    clock.settle(Duration::from_millis(50)).await;
    let (one, other) = (history(&one, "").await, history(&other, "").await);
    assert_eq!(one, other);
    let times: Vec<_> = one["pools"][0]["time"].as_array().unwrap().iter().map(|time| time.as_f64().unwrap()).collect();
    assert!((3..=4).contains(&times.len()), "one point for each second: {times:?}");
}
