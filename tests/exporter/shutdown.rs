//! Shutdown.

use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::Instant;

use super::harness::{FrozenClock, Gate, Running, assert_timed_out, exporter, in_time};

/// The exporter's time for requests in progress at shutdown.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

#[tokio::test]
async fn scrape_in_progress_is_answered() {
    let (registry, mut gate) = Gate::new();
    let running = Running::start(&exporter().registry(registry)).await;
    let address = running.address;
    let mut scraper = running.connect().await;
    scraper.send_request("GET", "/metrics").await;
    gate.entered().await;

    let served = running.stop();
    // The listener is closed first, and shows that the shutdown has begun.
    in_time(async { while TcpStream::connect(address).await.is_ok() {} }).await;
    assert!(!served.is_finished());

    gate.release_one();
    let response = scraper.response(true).await;
    assert_eq!(response.status, 200);
    assert_eq!(response.headers["connection"], "close");
    in_time(served).await.unwrap().unwrap();
}

#[tokio::test]
async fn idle_connection_does_not_delay_the_shutdown() {
    let _clock = FrozenClock::new();
    let running = Running::start(&exporter()).await;
    let mut idle = running.connect().await;
    idle.request("GET", "/-/healthy").await;
    let silent = running.connect().await;

    let begun = Instant::now();
    in_time(running.stop()).await.unwrap().unwrap();
    assert_eq!(idle.rest().await, "");
    assert_eq!(silent.rest().await, "");
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test]
async fn request_that_outlasts_the_grace_is_aborted() {
    let clock = FrozenClock::new();
    let (registry, mut gate) = Gate::new();
    let running = Running::start(&exporter().registry(registry)).await;
    let scraper = running.connect().await;
    scraper.send_request("GET", "/metrics").await;
    gate.entered().await;

    let (served, elapsed) = clock.advance_until(running.stop()).await;
    served.unwrap().unwrap();
    assert_timed_out(elapsed, SHUTDOWN_GRACE);
    assert_eq!(scraper.rest().await, "");
    gate.open();
}

#[tokio::test]
async fn dropped_server_closes_its_connections() {
    let running = Running::start(&exporter()).await;
    let mut client = running.connect().await;
    client.request("GET", "/-/healthy").await;
    running.served.abort();
    assert_eq!(client.rest().await, "");
}

#[tokio::test]
async fn exporter_can_listen_again() {
    let exporter = exporter();
    let first = Running::start(&exporter).await;
    in_time(first.stop()).await.unwrap().unwrap();
    let second = Running::start(&exporter).await;
    assert_eq!(second.get("/-/ready").await.status, 200);
    assert_eq!(second.get("/metrics").await.status, 200);
}
