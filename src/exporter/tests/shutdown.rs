use hyper::StatusCode;

use super::*;
use crate::exporter::Readiness;
use crate::exporter::api::Api;
use crate::exporter::limits::Limits;
use crate::exporter::routes::Routes;
use crate::exporter::scrape::Scraper;
use crate::exporter::turns::Turns;
use crate::telemetry::Collector;

#[tokio::test]
async fn a_scrape_under_way_is_answered_before_the_server_ends() {
    let (registry, mut gate) = Gate::new();
    let running = Running::start(&Exporter::new(registry)).await;
    let address = running.address;
    let mut scraper = running.connect().await;
    scraper.ask("GET", "/metrics").await;
    gate.entered().await;

    let served = running.stop();
    // The listener is the first to go, and shows that the shutdown has begun.
    patiently(async { while TcpStream::connect(address).await.is_ok() {} }).await;
    assert!(!served.is_finished());

    gate.release_one();
    let answer = scraper.answer(true).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["connection"], "close");
    patiently(served).await.unwrap().unwrap();
}

#[tokio::test]
async fn an_idle_connection_does_not_hold_up_the_shutdown() {
    let mut exporter = Exporter::new(Registry::new());
    exporter.limits.shutdown_grace = Duration::from_secs(3600);
    let running = Running::start(&exporter).await;
    let mut idle = running.connect().await;
    idle.request("GET", "/-/healthy").await;
    let silent = running.connect().await;

    patiently(running.stop()).await.unwrap().unwrap();
    assert_eq!(idle.rest().await, "");
    assert_eq!(silent.rest().await, "");
}

#[tokio::test]
async fn what_outlasts_the_grace_is_cut_off() {
    let (registry, mut gate) = Gate::new();
    let mut exporter = Exporter::new(registry);
    exporter.limits.shutdown_grace = SHORT;
    let running = Running::start(&exporter).await;
    let scraper = running.connect().await;
    scraper.ask("GET", "/metrics").await;
    gate.entered().await;

    patiently(running.stop()).await.unwrap().unwrap();
    assert_eq!(scraper.rest().await, "");
    gate.open();
}

#[tokio::test]
async fn a_dropped_server_closes_its_connections() {
    let running = Running::start(&Exporter::new(Registry::new())).await;
    let mut client = running.connect().await;
    client.request("GET", "/-/healthy").await;
    running.served.abort();
    assert_eq!(client.rest().await, "");
}

#[tokio::test]
async fn an_exporter_can_listen_again_after_it_was_stopped() {
    let exporter = Exporter::new(Registry::new());
    let first = Running::start(&exporter).await;
    patiently(first.stop()).await.unwrap().unwrap();
    let second = Running::start(&exporter).await;
    assert_eq!(second.get("/-/ready").await.status, 200);
    assert_eq!(second.get("/metrics").await.status, 200);
}

#[tokio::test]
async fn a_server_that_stops_is_not_ready_whatever_the_latch_says() {
    let scraper = Scraper::register(Registry::new(), &Limits::default()).await.unwrap();
    let readiness = Readiness::new();
    readiness.ready();
    let api = Api::new(Collector::new(), Turns::new(1, SHORT));
    let routes = Routes::new(scraper, api, readiness, &[]);
    let (request, ()) = hyper::Request::get("/-/ready").body(()).unwrap().into_parts();
    let ready = async || routes.answer(&request).await.status();

    assert_eq!(ready().await, StatusCode::OK);
    routes.stop();
    assert_eq!(ready().await, StatusCode::SERVICE_UNAVAILABLE);
}
