//! The demo under load: what it serves while it runs, and what it says when it ends.

use crate::run::{demo, up, wait_until};
use poolscope_testing::scrape::Scrape;

fn operations(scrape: &Scrape) -> Vec<&str> {
    scrape.values("poolscope_checkouts_started_total", "operation")
}

#[test]
fn a_demo_of_three_seconds_serves_a_pool_under_load_whose_numbers_add_up() {
    let mut up = up(&mut demo(&["--duration", "3s"]));
    assert!(up.seen.contains("pool shop, 5 + 5 connections, checkout timeout 2s"), "{}", up.seen);
    assert_eq!(up.get("/-/healthy").map(|(status, _)| status), Some(200));

    let (mut scrapes, mut used, mut last) = (0, 0.0_f64, None);
    while let Some((status, text)) = up.get("/metrics") {
        assert_eq!(status, 200, "{text}");
        let scrape = Scrape::parse(&text);
        scrape.assert_adds_up("shop");
        used = used.max(scrape.sum("db_client_connection_count", &[("db_client_connection_state", "used")]));
        scrapes += 1;
        // The pool's series go with it, a moment before the exporter does.
        last = Some(scrape).filter(|scrape| !operations(scrape).is_empty()).or(last);
    }
    assert!(scrapes > 3 && used > 0.0, "{scrapes} scrapes, {used} used");
    let last = last.expect("a scrape under load");
    let operations = operations(&last);
    for operation in ["get_product", "list_orders", "place_order", "update_stock", "sales_report"] {
        assert!(operations.contains(&operation), "{operations:?}");
    }
    // Nobody has named this one, so it has its route's name.
    assert!(operations.contains(&"GET /customers/count"), "{operations:?}");

    assert_eq!(up.run.wait().code(), Some(0));
    let (out, err) = (up.run.remaining_output(), up.run.stderr());
    assert!(out.starts_with("\nTime is up: "), "{out}");
    assert!(out.contains(" checkouts from pool shop in 3s, "), "{out}");
    for part in ["operation ", "\n  get_product ", "\n  wait ", "\n  use ", "\n  connections "] {
        assert!(out.contains(part), "{part:?} is not in: {out}");
    }
    assert!(out.ends_with("\nThe private server and its directory are gone.\n"), "{out}");
    // On a machine that is short of time, transactions that get into each other's way may do so once too often.
    let expected = |line: &str| line.contains("operation failed; not retrying") && line.contains("40001");
    assert!(err.lines().all(expected), "{err}");
    assert!(!out.contains('\x1b') && !up.seen.contains('\x1b'), "escapes where there is no terminal");
    up.run.assert_no_leftovers();
}

#[test]
fn a_rush_reaches_into_overflow() {
    let up = up(&mut demo(&[]));
    wait_until("more connections than pool_size", || {
        let scrape = Scrape::parse(&up.get("/metrics").expect("an answer").1);
        scrape.assert_adds_up("shop");
        let rush = scrape.sum("poolscope_checkouts_started_total", &[("operation", "checkout_rush")]);
        rush > 0.0 && scrape.sum("poolscope_connections_closed_total", &[("reason", "overflow")]) > 0.0
    });
}

#[test]
fn retries_show_by_operation_and_reason_and_so_does_what_is_outside_the_pool() {
    let up = up(&mut demo(&[]));
    wait_until("retries of each kind", || {
        let scrape = Scrape::parse(&up.get("/metrics").expect("an answer").1);
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
fn a_setting_in_the_environment_overrides_the_demos_own() {
    let mut command = demo(&["--duration", "1s"]);
    command.env("POOLSCOPE_POOL_SIZE", "2").env("POOLSCOPE_MAX_OVERFLOW", "1").env("POOLSCOPE_NAME", "tiny");
    let mut up = up(&mut command);
    assert!(up.seen.contains("pool tiny, 2 + 1 connections"), "{}", up.seen);
    let (_, text) = up.get("/metrics").expect("an answer");
    assert!(text.contains("db_client_connection_max{db_client_connection_pool_name=\"tiny\"} 3\n"), "{text}");
    assert_eq!(up.run.wait().code(), Some(0));
}

#[test]
fn the_log_goes_to_standard_error_without_escapes() {
    let mut command = demo(&["--duration", "1s"]);
    let mut up = up(command.env("RUST_LOG", "poolscope=debug"));
    assert_eq!(up.run.wait().code(), Some(0));
    let (out, err) = (up.run.remaining_output(), up.run.stderr());
    assert!(err.contains(" INFO poolscope") && err.contains("pool opened"), "{err}");
    assert!(!err.contains('\x1b'), "{err}");
    assert!(!out.contains("INFO") && !out.contains("DEBUG"), "{out}");
}
