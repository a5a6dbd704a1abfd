use std::error::Error;

use super::*;

#[tokio::test]
async fn an_address_in_use_is_named_with_what_to_do() {
    let running = Running::start(&Exporter::new(Registry::new())).await;
    let taken = running.address;
    let error = Exporter::new(Registry::new()).bind(taken).await.expect_err("in use");
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
async fn a_busy_address_leaves_the_registry_as_it_was() {
    let running = Running::start(&Exporter::new(Registry::new())).await;
    let registry = Registry::new();
    let exporter = Exporter::new(registry.clone());
    exporter.bind(running.address).await.expect_err("in use");
    assert!(registry.gather().is_empty());
}

#[tokio::test]
async fn an_address_of_another_form_is_told_what_would_do() {
    let error = Exporter::new(Registry::new()).bind("9719").await.expect_err("no address");
    assert_eq!(
        error.to_string(),
        "`9719` is not an address to listen on; give host:port, such as 127.0.0.1:9719 or \
         [::1]:9719, or :9719 for all interfaces"
    );
}

#[tokio::test]
async fn a_port_alone_listens_on_all_interfaces() {
    let bound = Exporter::new(Registry::new()).bind(":0").await.unwrap();
    let address = bound.local_addr();
    assert!(address.ip().is_unspecified());
    assert_ne!(address.port(), 0);
    Client::connect(SocketAddr::from(([127, 0, 0, 1], address.port()))).await;
}

#[tokio::test]
async fn a_name_is_resolved() {
    let bound = Exporter::new(Registry::new()).bind("localhost:0").await.unwrap();
    assert!(bound.local_addr().ip().is_loopback());
}

#[tokio::test]
async fn an_ipv6_address_stands_in_brackets() {
    match Exporter::new(Registry::new()).bind("[::1]:0").await {
        Ok(bound) => assert!(bound.local_addr().is_ipv6()),
        // A machine without IPv6.
        Err(ExporterError::AddressNotAvailable { .. } | ExporterError::Listen { .. }) => {}
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn a_registry_is_served_by_one_exporter() {
    let registry = Registry::new();
    let first = Exporter::new(registry.clone());
    let running = Running::start(&first).await;

    let error = Exporter::new(registry).bind("127.0.0.1:0").await.expect_err("registered");
    assert!(matches!(error, ExporterError::Register { .. }));
    assert!(error.to_string().contains("poolscope_scrapes_total"));

    let clone = Running::start(&first.clone()).await;
    assert_eq!(running.get("/metrics").await.status, 200);
    let answer = clone.get("/metrics").await;
    let served = answer.sample(r#"poolscope_scrapes_total{code="200"}"#);
    assert_eq!(served, Some(1.0), "both count in one place");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn process_metrics_that_are_there_already_stay() {
    use prometheus::process_collector::ProcessCollector;

    let registry = Registry::new();
    registry.register(Box::new(ProcessCollector::for_self())).unwrap();
    let running = Running::start(&Exporter::new(registry)).await;
    let answer = running.get("/metrics").await;
    assert_eq!(answer.body.matches("\nprocess_threads ").count(), 1);
}

#[tokio::test]
async fn a_socket_that_is_given_is_served_as_one_that_was_opened() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // Whoever came before there was an exporter is not forgotten.
    let mut early = Client::connect(address).await;
    let bound = Exporter::new(Registry::new()).bind_to(listener).await.unwrap();
    assert_eq!((bound.local_addr(), bound.scheme()), (address, "http"));
    let served = tokio::spawn(bound.serve(std::future::pending()));
    assert_eq!(early.request("GET", "/metrics").await.status, 200);
    served.abort();
}

#[test]
fn no_error_says_what_its_source_says() {
    let address = || "db.example:9719".to_owned();
    let io = || io::Error::other("the source");
    for error in [
        ExporterError::Resolve { address: address(), source: io() },
        ExporterError::Listen { address: address(), source: io() },
        ExporterError::Register { source: prometheus::Error::Msg("the source".to_owned()) },
        ExporterError::Given { source: io() },
        ExporterError::Accept { source: io() },
    ] {
        assert!(error.source().is_some());
        assert!(!error.to_string().contains("the source"), "{error}");
    }
}
