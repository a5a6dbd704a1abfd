//! The demo under load: its metrics, and its summary.

use poolscope_testing::scrape::Scrape;

use crate::run::{demo, start, wait_until};

fn operations(scrape: &Scrape) -> Vec<&str> {
    scrape.values("poolscope_checkouts_started_total", "operation")
}

#[test]
fn metrics_add_up_and_the_summary_is_printed() {
    let mut demo = start(&mut demo(&["--duration", "3s"]));
    assert!(demo.banner.starts_with(&format!("Live page: http://{}/\n", demo.address)), "{}", demo.banner);
    assert!(demo.banner.contains("pool shop, 5 + 5 connections, checkout timeout 2s"), "{}", demo.banner);
    assert_eq!(demo.get("/-/healthy").map(|(status, _)| status), Some(200));

    let (mut scrapes, mut used, mut last) = (0, 0.0_f64, None);
    while let Some((status, text)) = demo.get("/metrics") {
        assert_eq!(status, 200, "{text}");
        let scrape = Scrape::parse(&text);
        scrape.assert_adds_up("shop");
        used = used.max(scrape.sum("db_client_connection_count", &[("db_client_connection_state", "used")]));
        scrapes += 1;
        // The pool's series disappear shortly before the exporter stops.
        last = Some(scrape).filter(|scrape| !operations(scrape).is_empty()).or(last);
    }
    assert!(scrapes > 3 && used > 0.0, "{scrapes} scrapes, {used} used");
    let last = last.expect("a scrape under load");
    let operations = operations(&last);
    for operation in ["get_product", "list_orders", "place_order", "update_stock", "sales_report"] {
        assert!(operations.contains(&operation), "{operations:?}");
    }
    // A checkout without an operation is counted under its route.
    assert!(operations.contains(&"GET /customers/count"), "{operations:?}");

    assert_eq!(demo.run.wait().code(), Some(0));
    let (out, err) = (demo.run.remaining_output(), demo.run.stderr());
    assert!(out.starts_with("\nDuration elapsed: "), "{out}");
    assert!(out.contains(" checkouts from pool shop in 3s, "), "{out}");
    for part in ["operation ", "\n  get_product ", "\n  wait ", "\n  use ", "\n  connections "] {
        assert!(out.contains(part), "{part:?} is not in: {out}");
    }
    assert!(out.ends_with("\nThe private server was stopped, and its directory removed.\n"), "{out}");
    // On a slow machine, a serialization failure may exhaust the retries.
    let expected = |line: &str| line.contains("operation failed; not retrying") && line.contains("40001");
    assert!(err.lines().all(expected), "{err}");
    assert!(!out.contains('\x1b') && !demo.banner.contains('\x1b'), "escapes without a terminal");
    demo.run.assert_no_leftovers();
}

#[test]
fn bursts_use_the_overflow() {
    let demo = start(&mut demo(&[]));
    wait_until("more connections than pool_size", || {
        let scrape = Scrape::parse(&demo.get("/metrics").expect("a response").1);
        scrape.assert_adds_up("shop");
        let burst = scrape.sum("poolscope_checkouts_started_total", &[("operation", "checkout_rush")]);
        burst > 0.0 && scrape.sum("poolscope_connections_closed_total", &[("reason", "overflow")]) > 0.0
    });
}

#[test]
fn retries_and_unpooled_connections_are_counted() {
    let demo = start(&mut demo(&[]));
    wait_until("retries of each kind", || {
        let scrape = Scrape::parse(&demo.get("/metrics").expect("a response").1);
        let count =
            |name: &str, operation: &str, label: (&str, &str)| scrape.sum(name, &[("operation", operation), label]);
        count("poolscope_retries_total", "reserve_stock", ("sqlstate", "40001")) > 0.0
            && count("poolscope_retries_total", "move_stock", ("sqlstate", "40P01")) > 0.0
            && count("poolscope_retry_exhausted_total", "place_order", ("reason", "permanent")) > 0.0
            && scrape.sum("poolscope_retry_recovered_total", &[]) > 0.0
            && scrape.sum("poolscope_unpooled_connections_total", &[]) > 0.0
    });
}

#[test]
fn environment_overrides_the_defaults() {
    let mut command = demo(&["--duration", "1s"]);
    command.env("POOLSCOPE_POOL_SIZE", "2").env("POOLSCOPE_MAX_OVERFLOW", "1").env("POOLSCOPE_NAME", "tiny");
    let mut demo = start(&mut command);
    assert!(demo.banner.contains("pool tiny, 2 + 1 connections"), "{}", demo.banner);
    let (_, text) = demo.get("/metrics").expect("a response");
    assert!(text.contains("db_client_connection_max{db_client_connection_pool_name=\"tiny\"} 3\n"), "{text}");
    assert_eq!(demo.run.wait().code(), Some(0));
}

#[test]
fn log_goes_to_standard_error_without_escapes() {
    let mut command = demo(&["--duration", "1s"]);
    let mut demo = start(command.env("RUST_LOG", "poolscope=debug"));
    assert_eq!(demo.run.wait().code(), Some(0));
    let (out, err) = (demo.run.remaining_output(), demo.run.stderr());
    assert!(err.contains(" INFO poolscope") && err.contains("pool opened"), "{err}");
    assert!(!err.contains('\x1b'), "{err}");
    assert!(!out.contains("INFO") && !out.contains("DEBUG"), "{out}");
}
