//! The demo's shop, and the pool usage of its routes.

use std::collections::BTreeSet;

use poolscope_testing::http;
use poolscope_testing::scrape::Scrape;
use serde_json::Value;
use tokio_postgres::NoTls;

use crate::run::{RunningDemo, demo, start, wait_until};

/// The routes of the shop.
const ROUTES: [&str; 9] = [
    "/checkout",
    "/customers/count",
    "/invoices/{id}",
    "/moves",
    "/orders",
    "/products/{id}",
    "/products/{id}/stock",
    "/reports/sales",
    "/reservations",
];

fn scrape(demo: &RunningDemo) -> Scrape {
    let scrape = Scrape::parse(&demo.get("/metrics").expect("a response").1);
    scrape.assert_adds_up("shop");
    scrape
}

/// Returns the number of requests of a route with this outcome.
fn requests(scrape: &Scrape, route: &str, outcome: &str) -> u64 {
    scrape.count("poolscope_request_duration_seconds_count", &[("route", route), ("outcome", outcome)])
}

#[test]
fn requests_are_counted_by_route() {
    let demo = start(&mut demo(&[]));
    assert_eq!(http::get(demo.shop, "/made/up/by/anyone").expect("a response").0, 404);
    assert_eq!(http::get(demo.shop, "/products/1234567890123").expect("a response").0, 404);
    let mut routes = BTreeSet::new();
    wait_until("requests of each route", || {
        let scrape = scrape(&demo);
        routes = scrape.values("poolscope_request_in_flight", "route").into_iter().map(str::to_owned).collect();
        ROUTES.iter().all(|route| routes.contains(*route) && requests(&scrape, route, "ok") > 0)
    });
    let known: BTreeSet<_> = ROUTES.iter().chain(&["unknown"]).map(|route| (*route).to_owned()).collect();
    assert_eq!(routes, known);
    let scrape = scrape(&demo);
    assert_eq!(requests(&scrape, "unknown", "ok"), 2);
    for method in ["GET", "POST"] {
        let orders = [("route", "/orders"), ("method", method)];
        assert!(scrape.sum("poolscope_request_checkouts_total", &orders) > 0.0, "{method}");
        assert!(scrape.sum("poolscope_request_use_seconds_total", &orders) > 0.0, "{method}");
    }
    // Checkouts without an operation are counted under their route.
    let started = |operation: &str| scrape.sum("poolscope_checkouts_started_total", &[("operation", operation)]);
    assert!(started("GET /customers/count") > 0.0 && started("list_orders") > 0.0);
    let unnamed = scrape.values("poolscope_checkouts_started_total", "operation").into_iter();
    for operation in unnamed.filter(|name| name.contains('/') && *name != "GET /customers/count") {
        // Call sites of unpooled connections.
        assert!(started(operation) < 0.5, "{operation}");
    }
}

#[test]
fn endpoints_respond() {
    let demo = start(&mut demo(&[]));
    let json = |path: &str| {
        let (status, body) = http::get(demo.shop, path).expect("a response");
        assert_eq!(status, 200, "{body}");
        serde_json::from_str::<Value>(&body).expect("JSON")
    };
    let product = json("/products/7");
    assert_eq!((&product["id"], &product["name"]), (&7.into(), &"product 7".into()));
    assert!(json("/orders?customer=17").as_array().is_some_and(|orders| !orders.is_empty()));
    assert!(json("/customers/count")["customers"].is_u64());
    assert_eq!(http::get(demo.shop, "/products/501").expect("a response").0, 404);
    assert_eq!(http::get(demo.shop, "/checkout").expect("a response").0, 405);
    let (status, body) = http::get(demo.shop, "/").expect("a response");
    assert!(status == 404 && body.contains("\nPUT  /products/{id}/stock\n"), "{body}");
}

#[test]
fn disconnected_client_cancels_the_request() {
    let demo = start(&mut demo(&[]));
    let cancelled = |route: &str| requests(&scrape(&demo), route, "cancelled");
    assert_eq!(cancelled("/reports/sales"), 0);
    let started = |scrape: &Scrape| scrape.count("poolscope_checkouts_started_total", &[("operation", "sales_report")]);
    let before = started(&scrape(&demo));
    let connection = http::send_request(demo.shop, "GET", "/reports/sales").expect("a connection");
    wait_until("a report in flight", || started(&scrape(&demo)) > before);
    drop(connection);
    wait_until("a cancelled report", || cancelled("/reports/sales") == 1);

    // The demo's own clients cancel requests for the order list after a second.
    assert_eq!(cancelled("/orders"), 0);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut config = tokio_postgres::Config::new();
    config.host_path(demo.sockets()).user("postgres").dbname("postgres");
    let locked = runtime.block_on(async {
        let (client, connection) = config.connect(NoTls).await.expect("a connection");
        tokio::spawn(connection);
        client.batch_execute("BEGIN; LOCK TABLE poolscope_demo.orders IN ACCESS EXCLUSIVE MODE").await.expect("a lock");
        client
    });
    wait_until("a cancelled order list", || cancelled("/orders") > 0);
    drop(locked);
}

#[test]
fn shop_stops_with_the_demo() {
    let mut demo = start(&mut demo(&["--duration", "1s"]));
    // An idle connection does not delay the shutdown.
    let idle = std::net::TcpStream::connect(demo.shop).expect("a connection");
    assert_eq!(demo.run.wait().code(), Some(0));
    let errors = demo.run.stderr();
    // Concurrent reservations of one product may exhaust their attempts.
    let is_unexpected = |line: &&str| !line.contains(r#"operation="reserve_stock" sqlstate="40001" reason="attempts""#);
    assert_eq!(errors.lines().filter(is_unexpected).collect::<Vec<_>>(), Vec::<&str>::new());
    assert!(http::get(demo.shop, "/products/7").is_err());
    drop(idle);
}
