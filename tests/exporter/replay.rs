//! A recording in the place of pools.

use std::time::Duration;

use poolscope::Collector;
use poolscope::exporter::Exporter;
use poolscope::recording::Recording;
use serde_json::{Value, json};

use super::harness::{FrozenClock, Running, in_time};
use super::pools_api::Fixture;
use super::streams::Viewer;

/// 2026-12-01T21:00:00Z.
const STARTED: f64 = 1_796_158_800.0;

/// Twenty seconds, of which the problem begins with the fourth. It ends without its last line.
fn recording() -> Recording {
    let verdict = |cause: &str| {
        let evidence = json!([{"name": "used_share", "value": 1.0, "unit": "ratio"}]);
        json!({"cause": cause, "since_seconds": 1.0, "finding": "f", "advice": "a", "evidence": evidence})
    };
    let mut lines = vec![json!({"format": "poolscope-recording", "version": {"major": 1}, "pool": "shop",
        "library_version": "0.1.0", "started": "2026-12-01T21:00:00Z", "incident": {"cause": "leak", "at_seconds": 4.0}})];
    for second in 1..=20 {
        let is_problem = second >= 4;
        let holders = json!([{"operation": "report", "call_site": "a.rs:1", "connections": 3, "oldest": 9.0,
            "activities": {"idle": 2, "executing": 1}, "suspected_leaks": 3}]);
        let interval = json!({"seconds": 1.0, "max": 10, "used": second.min(10), "queued": if is_problem { second } else { 0 },
            "outcomes": {"ok": 5, "timeout": 1}, "held": {"idle": 2.5}, "errors": {"40001": 2, "NOT A CODE": 1},
            "operations": [{"name": "report", "held": {"idle": 2.5}}], "waits": {"0.001": 10},
            "server": {"slots": 100, "slots_left": 40}, "holders": holders});
        let mut line = json!({"t": second, "interval": interval});
        if second == 1 {
            line["verdict"] = verdict("healthy");
        } else if second == 4 {
            line["verdict"] = verdict("leak");
        }
        lines.push(line);
        if second == 4 {
            let holder = json!({"operation": "report", "age_seconds": 3.0, "request": "GET /report"});
            lines.push(json!({"t": 4, "listing": {"holders": [holder], "waiters": [{"operation": "pay", "call_site": "b.rs:2"}]}}));
        }
    }
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    Recording::read(text.as_bytes()).unwrap()
}

async fn start() -> Running {
    Running::start(&Exporter::new(Collector::new()).recording(recording())).await
}

async fn json_of(running: &Running, path: &str) -> Value {
    let response = running.get(path).await;
    assert_eq!(response.status, 200, "{path}: {}", response.body);
    serde_json::from_str(&response.body).unwrap()
}

#[tokio::test]
async fn api_answers_for_a_moment() {
    let running = start().await;
    // Without a moment, at the beginning of the problem.
    let pool = json_of(&running, "/api/v1/pools").await["pools"][0].clone();
    assert_eq!(pool["state"], json!({"used": 4, "idle": 0, "creating": 0, "closing": 0, "waiting": 4, "max": 10}));
    assert_eq!((&pool["diagnosis"]["cause"], &pool["holders"][0]["request"]), (&json!("leak"), &json!("GET /report")));
    assert_eq!(pool["waiters"][0]["operation"], "pay");
    let at = |second: f64| format!("at={}", STARTED + second);
    let pool = json_of(&running, &format!("/api/v1/pools?pool=shop&{}", at(9.5))).await["pools"][0].clone();
    assert_eq!((&pool["state"]["waiting"], &pool["diagnosis"]["since_seconds"]), (&json!(9), &json!(6.0)));
    // Holders are grouped, since their listing is older.
    assert_eq!(pool["holders"][0]["operation"], "report (3 connections)");
    assert_eq!(pool["holders"][0]["activity"], "idle");
    let pools = json_of(&running, &format!("/api/v1/pools?pool=other&{}", at(9.0))).await;
    assert_eq!(pools["pools"], json!([]));
    // Before the beginning and after the end are the first and the last second.
    for (moment, used) in [("at=0".to_owned(), 1), (at(1e6), 10)] {
        let pool = json_of(&running, &format!("/api/v1/pools?{moment}")).await["pools"][0].clone();
        assert_eq!(pool["state"]["used"], used, "{moment}");
    }
    let history = json_of(&running, "/api/v1/history").await["pools"][0].clone();
    assert_eq!(history["time"].as_array().unwrap().len(), 20);
    let query = format!("/api/v1/history?since={}&{}", STARTED + 2.0, at(5.0));
    let history = json_of(&running, &query).await["pools"][0].clone();
    assert_eq!(history["used"], json!([3, 4, 5]));
    assert_eq!((&history["server_slots_left"][0], &history["wait_p50_seconds"][0]), (&json!(40), &json!(0.00075)));
    assert_eq!(history["errors"][0], json!({"sqlstate": "40001", "count": [2, 2, 2]}));
    assert_eq!(history["cause"], json!(["healthy", "leak", "leak"]));
    for path in ["pools?at=now", "history?at=-1", "stream?at="] {
        let response = running.get(&format!("/api/v1/{path}")).await;
        assert_eq!(response.status, 400, "{path}");
        assert!(response.body.contains("at is not a number"), "{}", response.body);
    }
    let live = Fixture::new().await.serve().await;
    assert_eq!(live.get("/api/v1/pools?at=1").await.status, 400);
}

#[tokio::test]
async fn stream_goes_on_to_the_end() {
    let clock = FrozenClock::new();
    let running = start().await;
    let mut viewer = Viewer::open(&running, &format!("?pool=shop&at={}", STARTED + 17.0), "").await;
    let snapshot = viewer.event("snapshot").await;
    let replay = &snapshot.data["replay"];
    assert_eq!((&replay["begin"], &replay["end"]), (&json!(STARTED + 1.0), &json!(STARTED + 20.0)));
    assert_eq!(replay["incident"], json!({"time": STARTED + 4.0, "cause": "leak"}));
    let changes = json!([{"time": STARTED + 1.0, "cause": "healthy"}, {"time": STARTED + 4.0, "cause": "leak"}]);
    assert_eq!(replay["changes"], changes);
    let truncation = replay["truncation"].as_str().unwrap();
    assert!(truncation.starts_with("the recording is readable for 20 s, up to line "), "{truncation}");
    assert_eq!(snapshot.data["history"]["time"].as_array().unwrap().len(), 17);
    assert_eq!(snapshot.data["pool"]["state"]["waiting"], 17);

    let second = Duration::from_millis(1010);
    let mut last = String::new();
    for expected in [18, 19, 20] {
        clock.advance(second).await;
        assert_eq!(viewer.event("pool").await.data["state"]["waiting"], expected);
        let delta = viewer.event("delta").await;
        assert_eq!(delta.data["pools"][0]["waiting"], expected);
        if expected == 18 {
            last = delta.id;
        }
    }
    clock.advance(second).await;
    assert!(viewer.next().await.is_none(), "the recording has ended");

    // A client that reconnects goes on after the last event that it has.
    let mut viewer = Viewer::open(&running, "", &format!("Last-Event-ID: {last}\r\n")).await;
    clock.advance(second).await;
    assert_eq!(viewer.event("delta").await.data["pools"][0]["waiting"], 19);
    let served = running.stop();
    assert!(viewer.next().await.is_none(), "the exporter stops");
    in_time(served).await.unwrap().unwrap();
}

#[tokio::test]
async fn recording_without_seconds_has_no_pool() {
    let header = r#"{"format": "poolscope-recording", "version": {"major": 1}, "pool": "shop"}"#;
    let recording = Recording::read(format!("{header}\n").as_bytes()).unwrap();
    let running = Running::start(&Exporter::new(Collector::new()).recording(recording)).await;
    assert_eq!(json_of(&running, "/api/v1/pools?at=5").await["pools"], json!([]));
    assert_eq!(json_of(&running, "/api/v1/history").await["pools"][0]["time"], json!([]));
    let mut viewer = Viewer::open(&running, "?pool=shop", "").await;
    assert_eq!(viewer.event("snapshot").await.data["pools"], json!([]));
}
