//! Listening, and the exporter's own metrics.

use std::error::Error;
use std::net::SocketAddr;

use poolscope::exporter::ExporterError;
use prometheus::Registry;

use super::harness::{Client, Running, exporter};

#[tokio::test]
async fn address_in_use_is_an_error_with_advice() {
    let running = Running::start(&exporter()).await;
    let taken = running.address;
    let error = exporter().bind(taken).await.expect_err("in use");
    assert_eq!(
        error.to_string(),
        format!(
            "cannot listen on {taken}: address already in use; stop the other process or choose \
             another with --web.listen-address"
        )
    );
    assert!(error.source().is_none());
}

#[tokio::test]
async fn address_in_use_leaves_the_registry_unchanged() {
    let running = Running::start(&exporter()).await;
    let registry = Registry::new();
    exporter().registry(registry.clone()).bind(running.address).await.expect_err("in use");
    assert!(registry.gather().is_empty());
}

#[tokio::test]
async fn invalid_address_is_an_error_with_examples() {
    let error = exporter().bind("9719").await.expect_err("no address");
    assert_eq!(
        error.to_string(),
        "invalid listen address `9719`; give host:port, such as 127.0.0.1:9719 or [::1]:9719, or :9719 for all \
         interfaces"
    );
}

#[tokio::test]
async fn port_alone_listens_on_all_interfaces() {
    let bound = exporter().bind(":0").await.unwrap();
    let address = bound.local_addr();
    assert!(address.ip().is_unspecified());
    assert_ne!(address.port(), 0);
    Client::connect(SocketAddr::from(([127, 0, 0, 1], address.port()))).await;
}

#[tokio::test]
async fn host_name_is_resolved() {
    let bound = exporter().bind("localhost:0").await.unwrap();
    assert!(bound.local_addr().ip().is_loopback());
}

#[tokio::test]
async fn ipv6_address_is_in_brackets() {
    match exporter().bind("[::1]:0").await {
        Ok(bound) => assert!(bound.local_addr().is_ipv6()),
        // A machine without IPv6.
        Err(ExporterError::AddressNotAvailable { .. } | ExporterError::Listen { .. }) => {}
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn registry_is_served_by_one_exporter_and_its_clones() {
    let registry = Registry::new();
    let first = exporter().registry(registry.clone());
    let running = Running::start(&first).await;

    let error = exporter().registry(registry).bind("127.0.0.1:0").await.expect_err("registered");
    assert!(matches!(error, ExporterError::Register { .. }));
    assert!(error.to_string().contains("poolscope_scrapes_total"));

    let clone = Running::start(&first.clone()).await;
    assert_eq!(running.get("/metrics").await.status, 200);
    let response = clone.get("/metrics").await;
    let served = response.sample(r#"poolscope_scrapes_total{code="200"}"#);
    assert_eq!(served, Some(1.0), "both share the counters");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn existing_process_metrics_are_kept() {
    use prometheus::process_collector::ProcessCollector;

    let registry = Registry::new();
    registry.register(Box::new(ProcessCollector::for_self())).unwrap();
    let running = Running::start(&exporter().registry(registry)).await;
    let response = running.get("/metrics").await;
    assert_eq!(response.body.matches("\nprocess_threads ").count(), 1);
}

#[tokio::test]
async fn existing_listener_is_served() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // A client that connects before the exporter exists is served too.
    let mut early = Client::connect(address).await;
    let bound = exporter().bind_to(listener).await.unwrap();
    assert_eq!((bound.local_addr(), bound.scheme()), (address, "http"));
    let served = tokio::spawn(bound.serve(std::future::pending()));
    assert_eq!(early.request("GET", "/metrics").await.status, 200);
    served.abort();
}
