//! The stream of server-sent events.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::TcpSocket;
use tokio::time::Instant;

use super::harness::{Client, FrozenClock, MAX_CONNECTIONS, Running, in_time};
use super::history::{SAMPLE_INTERVAL, samples};
use super::pools_api::{Fixture, held, keys, waiting};

const MAX_VIEWERS: usize = 16;

/// The exporter's time in which a client may read nothing.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// An event.
#[derive(Debug)]
pub(crate) struct Event {
    name: String,
    pub(crate) id: String,
    pub(crate) data: Value,
}

/// A client that reads events.
pub(crate) struct Viewer {
    client: Client,
    /// What was received of the body, without the framing of chunks.
    body: String,
    raw: Vec<u8>,
}

impl Viewer {
    pub(crate) async fn open(running: &Running, query: &str, headers: &str) -> Self {
        let client = running.connect().await;
        client.send(format!("GET /api/v1/stream{query} HTTP/1.1\r\nHost: test\r\n{headers}\r\n").as_bytes()).await;
        Self::of(client).await
    }

    async fn of(mut client: Client) -> Self {
        let response = client.head().await;
        assert_eq!((response.status, &*response.headers["content-type"]), (200, "text/event-stream"));
        assert_eq!((&*response.headers["cache-control"], &*response.headers["connection"]), ("no-store", "close"));
        Self { client, body: String::new(), raw: Vec::new() }
    }

    /// Moves whole chunks from `raw` to `body`.
    fn decode(&mut self) {
        while let Some(line) = self.raw.windows(2).position(|end| end == b"\r\n") {
            let len = usize::from_str_radix(std::str::from_utf8(&self.raw[..line]).unwrap(), 16).unwrap();
            if self.raw.len() < line + 2 + len + 2 {
                return;
            }
            self.body.push_str(std::str::from_utf8(&self.raw[line + 2..line + 2 + len]).unwrap());
            self.raw.drain(..line + 2 + len + 2);
        }
    }

    /// Waits for the next event; `None` at the end of the stream.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        in_time(async {
            loop {
                if let Some(end) = self.body.find("\n\n") {
                    let text: String = self.body.drain(..end + 2).collect();
                    let field = |name: &str| {
                        text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().to_owned()
                    };
                    if text.starts_with("retry: ") {
                        continue;
                    }
                    let data = serde_json::from_str(&field("data: ")).unwrap();
                    return Some(Event { name: field("event: "), id: field("id: "), data });
                }
                let received = self.client.take_received();
                if received.is_empty() && !self.client.receive().await {
                    return None;
                }
                self.raw.extend(received);
                self.decode();
            }
        })
        .await
    }

    pub(crate) async fn event(&mut self, name: &str) -> Event {
        let event = self.next().await.expect("an event");
        assert_eq!(event.name, name);
        event
    }
}

fn tick(id: &str) -> u64 {
    id.split_once('-').unwrap().1.parse().unwrap()
}

#[tokio::test]
async fn snapshot_is_followed_by_a_delta_each_second() {
    let clock = FrozenClock::new();
    let fixture = Fixture::new().await;
    let shop = fixture.pool("shop", 1);
    let _jobs = fixture.pool("jobs", 1);
    let running = fixture.serve().await;
    samples(&clock, &running, 1).await;
    let _held = held(&shop, "list_orders").await;
    let _waiter = waiting(&shop, "add_order");
    samples(&clock, &running, 1).await;

    let mut viewer = Viewer::open(&running, "?pool=shop", "").await;
    let snapshot = viewer.event("snapshot").await;
    assert_eq!(keys(&snapshot.data), ["history", "id", "pool", "pools", "replay", "trace_url", "version"]);
    assert_eq!(snapshot.data["id"], snapshot.id);
    assert_eq!(snapshot.data["pools"].as_array().unwrap().len(), 2);
    assert_eq!(keys(&snapshot.data["pools"][0]), ["last", "time", "used", "waiting"]);
    assert_eq!(snapshot.data["history"]["name"], "shop");
    assert_eq!(snapshot.data["pool"]["waiters"][0]["operation"], "add_order");

    let mut last = tick(&snapshot.id);
    for _ in 0..3 {
        clock.advance(SAMPLE_INTERVAL).await;
        let pool = viewer.event("pool").await;
        // The same object as that of `/api/v1/pools`.
        let listed: Value = serde_json::from_str(&running.get("/api/v1/pools?pool=shop").await.body).unwrap();
        assert_eq!(keys(&pool.data), keys(&listed["pools"][0]));
        assert_eq!(pool.data["state"], listed["pools"][0]["state"]);
        assert_eq!(pool.data["holders"][0]["operation"], "list_orders");
        let delta = viewer.event("delta").await;
        last += 1;
        assert_eq!(tick(&delta.id), last);
        let rows = delta.data["pools"].as_array().unwrap();
        let state = |row: &Value| (row["name"].clone(), row["used"].clone(), row["waiting"].clone());
        assert_eq!(
            rows.iter().map(state).collect::<Vec<_>>(),
            [(json!("shop"), json!(1), json!(1)), (json!("jobs"), json!(0), json!(0))]
        );
    }
    // A row has what the history has in columns.
    let response = running.get("/api/v1/history?pool=shop").await;
    let history: Value = serde_json::from_str(&response.body).unwrap();
    let row = viewer_row(&mut viewer, &clock).await;
    let mut columns = keys(&history["pools"][0]);
    columns.retain(|column| *column != "truncated");
    assert_eq!(keys(&row), columns);
}

async fn viewer_row(viewer: &mut Viewer, clock: &FrozenClock) -> Value {
    clock.advance(SAMPLE_INTERVAL).await;
    viewer.event("pool").await;
    viewer.event("delta").await.data["pools"][0].clone()
}

#[tokio::test]
async fn reconnecting_viewer_receives_what_it_missed() {
    let clock = FrozenClock::new();
    let fixture = Fixture::new().await;
    let _pool = fixture.pool("shop", 1);
    let running = fixture.serve().await;
    samples(&clock, &running, 1).await;
    let mut viewer = Viewer::open(&running, "", "").await;
    let snapshot = viewer.event("snapshot").await;
    drop(viewer);

    samples(&clock, &running, 3).await;
    let mut again = Viewer::open(&running, "", &format!("Last-Event-ID: {}\r\n", snapshot.id)).await;
    clock.advance(SAMPLE_INTERVAL).await;
    let mut times = Vec::new();
    for missed in 1..=4 {
        let delta = again.event("delta").await;
        assert_eq!(tick(&delta.id), tick(&snapshot.id) + missed);
        times.push(delta.data["pools"][0]["time"].as_f64().unwrap());
    }
    assert!(times.is_sorted(), "{times:?}");

    // Another process, or this one before a restart.
    let mut other = Viewer::open(&running, "", "Last-Event-ID: 0000000000000001-1\r\n").await;
    other.event("snapshot").await;
    let mut wrong = Viewer::open(&running, "", "Last-Event-ID: nonsense\r\n").await;
    wrong.event("snapshot").await;
}

#[tokio::test]
async fn viewers_are_limited() {
    let running = Fixture::new().await.serve().await;
    let mut viewers = Vec::new();
    for _ in 0..MAX_VIEWERS {
        let mut viewer = Viewer::open(&running, "", "").await;
        viewer.event("snapshot").await;
        viewers.push(viewer);
    }
    let refused = running.get("/api/v1/stream").await;
    assert_eq!((refused.status, &*refused.headers["retry-after"]), (503, "5"));
    assert_eq!(refused.body, r#"{"error":"too many viewers: 16 streams are open; close one, or try again later"}"#);
    // Metrics and health are not affected, and the headers are answered without a place.
    assert_eq!(running.get("/metrics").await.status, 200);
    assert_eq!(running.connect().await.request("HEAD", "/api/v1/stream").await.status, 200);

    // A viewer that leaves makes room.
    drop(viewers.pop());
    in_time(async { while running.status("/api/v1/stream").await != 200 {} }).await;
}

#[tokio::test]
async fn wrong_queries_are_rejected() {
    let running = Fixture::new().await.serve().await;
    let response = running.get("/api/v1/stream?poll=shop").await;
    assert_eq!(response.status, 400);
    assert_eq!(response.body, r#"{"error":"unknown parameter `poll`; the only one is pool=NAME"}"#);
}

#[tokio::test]
async fn shutdown_ends_the_streams_at_once() {
    let clock = FrozenClock::new();
    let running = Fixture::new().await.serve().await;
    let mut viewer = Viewer::open(&running, "", "").await;
    viewer.event("snapshot").await;
    let begun = Instant::now();
    in_time(running.stop()).await.unwrap().unwrap();
    assert!(viewer.next().await.is_none());
    assert_eq!(begun.elapsed(), Duration::ZERO);
    drop(clock);
}

/// So that a client whose password was changed is authorized again.
#[tokio::test]
async fn streams_end_after_ten_minutes() {
    let clock = FrozenClock::new();
    let running = Fixture::new().await.serve().await;
    let mut viewer = Viewer::open(&running, "", "").await;
    viewer.event("snapshot").await;
    clock.advance(Duration::from_secs(599)).await;
    viewer.event("delta").await;
    clock.advance(2 * SAMPLE_INTERVAL).await;
    in_time(async { while viewer.next().await.is_some() {} }).await;
}

/// A stream is a request under way, though each of its events is written completely.
#[tokio::test]
async fn open_streams_are_not_closed_for_others() {
    let running = Fixture::new().await.serve().await;
    let mut viewer = Viewer::open(&running, "", "").await;
    viewer.event("snapshot").await;
    viewer.event("delta").await;
    let _idle = running.idle_connections(MAX_CONNECTIONS + 20).await;
    viewer.event("delta").await;
    viewer.event("delta").await;
}

#[tokio::test]
async fn viewer_that_stops_reading_is_dropped() {
    let clock = FrozenClock::new();
    let fixture = Fixture::new().await;
    let _pools: Vec<_> = (0..80).map(|number| fixture.pool(&format!("{number}{}", "x".repeat(190)), 1)).collect();
    let running = fixture.serve().await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let greedy = Client::new(socket.connect(running.address).await.unwrap());
    greedy.send_request("GET", "/api/v1/stream").await;
    // Six megabytes, of which the sockets' buffers take four.
    samples(&clock, &running, 100).await;
    clock.advance(WRITE_TIMEOUT + SAMPLE_INTERVAL).await;
    clock.settle(Duration::from_millis(50)).await;
    // Otherwise it would go on until 600 s have passed.
    let (_, elapsed) = clock.advance_until(greedy.rest()).await;
    assert!(elapsed < Duration::from_secs(60), "{elapsed:?}");
}
