//! Incident files on request.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use poolscope::recording::{IncidentRecorder, IncidentSettings};
use serde_json::{Value, json};
use tokio::runtime::Builder;

use super::exposition::fixtures::change_process_counters;
use super::harness::{Response, Running, TEST_TIMEOUT};
use super::pools_api::Fixture;

async fn post(running: &Running, path: &str, headers: &str) -> Response {
    let mut client = running.connect().await;
    client.send(format!("POST {path} HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n{headers}\r\n").as_bytes()).await;
    client.response(true).await
}

fn error(response: &Response) -> (u16, Value) {
    let body: Value = serde_json::from_str(&response.body).unwrap_or_default();
    (response.status, body["error"].clone())
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn files_are_begun_on_request_of_this_site() {
    let _alone = change_process_counters();
    Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(request_files());
}

async fn request_files() {
    let directory = tempfile::tempdir().unwrap();
    let fixture = Fixture::new().await;
    let _pools = (fixture.pool("shop", 1), fixture.pool("jobs", 1));
    let recorder = IncidentRecorder::start(&fixture.collector, IncidentSettings::new(directory.path())).unwrap();
    let running = Running::start(&fixture.exporter().record_on_request(recorder.clone())).await;

    let refused = post(&running, "/api/v1/record", "Sec-Fetch-Site: cross-site\r\n").await;
    assert_eq!(error(&refused), (403, json!("the request comes from a page of another site")));
    let refused = post(&running, "/api/v1/record", "Origin: http://evil.example\r\n").await;
    assert_eq!(refused.status, 403);
    let refused = post(&running, "/api/v1/record?all", "").await;
    assert_eq!(refused.status, 400);
    let refused = post(&running, "/api/v1/record?pool=none", "").await;
    assert_eq!(error(&refused), (404, json!("there is no such pool")));
    let refused = running.get("/api/v1/record").await;
    assert_eq!((refused.status, &*refused.headers["allow"]), (405, "POST"));
    assert!(running.get("/none").await.body.contains("/api/v1/record"));

    let begun = post(&running, "/api/v1/record?pool=shop", "Origin: http://test\r\n").await;
    assert_eq!((begun.status, &*begun.body), (202, r#"{"pools":["shop"]}"#));
    let again = post(&running, "/api/v1/record", "").await;
    assert_eq!((again.status, &*again.headers["retry-after"]), (429, "10"));

    // The pools are attached by the recorder's thread, which may do that after the request.
    let deadline = Instant::now() + TEST_TIMEOUT;
    while names(directory.path()).is_empty() {
        assert!(Instant::now() < deadline, "no file");
        recorder.record(Some("shop"));
        thread::sleep(Duration::from_millis(20));
    }
    let names = names(directory.path());
    assert!(names.iter().all(|name| name.starts_with("poolscope-shop-") && name.contains("-requested.")), "{names:?}");
    // Before the directory is removed.
    recorder.finish();
}

#[tokio::test]
async fn endpoint_is_off_by_default() {
    let running = Fixture::new().await.serve().await;
    let response = post(&running, "/api/v1/record", "").await;
    assert_eq!(response.status, 404);
    assert!(response.body.starts_with("Recording on request is not enabled"), "{}", response.body);
}
