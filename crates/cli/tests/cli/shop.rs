//! The demo's shop: an HTTP service whose requests are accounted to their routes.

use std::collections::BTreeSet;

use serde_json::Value;
use tokio_postgres::NoTls;

use crate::run::{Up, demo, up, wait_until};
use poolscope_testing::http;
use poolscope_testing::scrape::Scrape;

/// All that the shop has.
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

fn scrape(up: &Up) -> Scrape {
    let scrape = Scrape::parse(&up.get("/metrics").expect("an answer").1);
    scrape.assert_adds_up("shop");
    scrape
}

/// How many requests of this route ended so.
fn requests(scrape: &Scrape, route: &str, outcome: &str) -> u64 {
    scrape.count("poolscope_request_duration_seconds_count", &[("route", route), ("outcome", outcome)])
}

#[test]
fn each_route_shows_as_what_it_is_and_never_as_a_path() {
    let up = up(&mut demo(&[]));
    assert_eq!(http::get(up.shop, "/made/up/by/anyone").expect("an answer").0, 404);
    assert_eq!(http::get(up.shop, "/products/1234567890123").expect("an answer").0, 404);
    let mut seen = BTreeSet::new();
    wait_until("requests of each route", || {
        let scrape = scrape(&up);
        seen = scrape.values("poolscope_request_in_flight", "route").into_iter().map(str::to_owned).collect();
        ROUTES.iter().all(|route| seen.contains(*route) && requests(&scrape, route, "ok") > 0)
    });
    let known: BTreeSet<_> = ROUTES.iter().chain(&["unknown"]).map(|route| (*route).to_owned()).collect();
    assert_eq!(seen, known);
    let scrape = scrape(&up);
    assert_eq!(requests(&scrape, "unknown", "ok"), 2);
    for method in ["GET", "POST"] {
        let orders = [("route", "/orders"), ("method", method)];
        assert!(scrape.sum("poolscope_request_checkouts_total", &orders) > 0.0, "{method}");
        assert!(scrape.sum("poolscope_request_use_seconds_total", &orders) > 0.0, "{method}");
    }
    // What has a name keeps it, and what has none is named after its route.
    let started = |operation: &str| scrape.sum("poolscope_checkouts_started_total", &[("operation", operation)]);
    assert!(started("GET /customers/count") > 0.0 && started("list_orders") > 0.0);
    let unnamed = scrape.values("poolscope_checkouts_started_total", "operation").into_iter();
    for operation in unnamed.filter(|name| name.contains('/') && *name != "GET /customers/count") {
        // The old code, whose connections are its own.
        assert!(started(operation) < 0.5, "{operation}");
    }
}

#[test]
fn anybody_can_ask_the_shop() {
    let up = up(&mut demo(&[]));
    let json = |path: &str| {
        let (status, body) = http::get(up.shop, path).expect("an answer");
        assert_eq!(status, 200, "{body}");
        serde_json::from_str::<Value>(&body).expect("JSON")
    };
    let product = json("/products/7");
    assert_eq!((&product["id"], &product["name"]), (&7.into(), &"product 7".into()));
    assert!(json("/orders?customer=17").as_array().is_some_and(|orders| !orders.is_empty()));
    assert!(json("/customers/count")["customers"].is_u64());
    assert_eq!(http::get(up.shop, "/products/501").expect("an answer").0, 404);
    assert_eq!(http::get(up.shop, "/checkout").expect("an answer").0, 405);
    let (status, body) = http::get(up.shop, "/").expect("an answer");
    assert!(status == 404 && body.contains("\nPUT  /products/{id}/stock\n"), "{body}");
}

#[test]
fn a_customer_who_leaves_cancels_the_request() {
    let up = up(&mut demo(&[]));
    let cancelled = |route: &str| requests(&scrape(&up), route, "cancelled");
    assert_eq!(cancelled("/reports/sales"), 0);
    let begun = |scrape: &Scrape| scrape.count("poolscope_checkouts_started_total", &[("operation", "sales_report")]);
    let before = begun(&scrape(&up));
    let asked = http::send_request(up.shop, "GET", "/reports/sales").expect("a connection");
    wait_until("a report under way", || begun(&scrape(&up)) > before);
    drop(asked);
    wait_until("a report that is cancelled", || cancelled("/reports/sales") == 1);

    // The demo's own customers leave when the list of their orders takes too long.
    assert_eq!(cancelled("/orders"), 0);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut config = tokio_postgres::Config::new();
    config.host_path(up.sockets()).user("postgres").dbname("postgres");
    let locked = runtime.block_on(async {
        let (client, connection) = config.connect(NoTls).await.expect("a connection");
        tokio::spawn(connection);
        client.batch_execute("BEGIN; LOCK TABLE poolscope_demo.orders IN ACCESS EXCLUSIVE MODE").await.expect("a lock");
        client
    });
    wait_until("a list of orders that is cancelled", || cancelled("/orders") > 0);
    drop(locked);
}

#[test]
fn the_shop_is_closed_when_the_demo_has_ended() {
    let mut up = up(&mut demo(&["--duration", "1s"]));
    // It keeps a connection, and asks for nothing.
    let idle = std::net::TcpStream::connect(up.shop).expect("a connection");
    assert_eq!(up.run.wait().code(), Some(0));
    assert_eq!(up.run.stderr(), "");
    assert!(http::get(up.shop, "/products/7").is_err());
    drop(idle);
}
