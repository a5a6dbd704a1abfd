//! Each scenario of the demo: its fault is really brought about, shows in the metrics, and is over when it is said to be.

use poolscope_cli::demo::Scenario;

use crate::run::{Up, demo, up, wait_until};
use poolscope_testing::scrape::Scrape;

/// Those that have a test here.
const TESTED: [&str; 14] = [
    // In the other files.
    "shop",
    "healthy",
    "undersized",
    "slow_queries",
    "held_idle",
    "idle_in_transaction",
    "leak",
    "self_deadlock",
    "server_down",
    "server_full",
    "connect_slow",
    "churn",
    "retry_storm",
    "dirty",
];

const EXECUTING: (&str, &str) = ("activity", "executing");
const IDLE: (&str, &str) = ("activity", "idle");
const IDLE_IN_TRANSACTION: (&str, &str) = ("activity", "idle_in_transaction");

fn scrape(up: &Up) -> Scrape {
    let scrape = Scrape::parse(&up.get("/metrics").expect("an answer").1);
    scrape.assert_adds_up("shop");
    scrape
}

/// A demo whose fault begins soon.
fn played(scenario: &str, arguments: &[&str]) -> Up {
    let mut command = demo(&["--scenario", scenario, "--scenario-after", "500ms"]);
    let up = up(command.args(arguments));
    assert!(up.seen.contains(&format!("\n  plays    {scenario}: ")), "{}", up.seen);
    up
}

/// Waits for a scrape that shows it.
fn shows(up: &Up, what: &str, mut holds: impl FnMut(&Scrape) -> bool) {
    wait_until(what, || holds(&scrape(up)));
}

/// For how long an operation held connections, and did this.
fn held(scrape: &Scrape, operation: &str, activity: (&str, &str)) -> f64 {
    scrape.sum("poolscope_connection_use_seconds_total", &[("operation", operation), activity])
}

/// For how long all did this.
fn held_by_all(scrape: &Scrape, activity: (&str, &str)) -> f64 {
    scrape.sum("poolscope_connection_use_seconds_total", &[activity])
}

fn saturated(scrape: &Scrape) -> f64 {
    scrape.sum("poolscope_saturated_seconds_total", &[])
}

/// How many checkouts ended well.
fn ok(scrape: &Scrape) -> f64 {
    scrape.sum("poolscope_checkouts_total", &[("outcome", "ok")])
}

#[test]
fn every_scenario_has_a_test() {
    let all: Vec<_> = Scenario::all().iter().map(Scenario::name).collect();
    assert_eq!(all, TESTED);
}

#[test]
fn a_healthy_load_has_nothing_to_complain_of() {
    let mut up = up(&mut demo(&["--scenario", "healthy", "--duration", "4s"]));
    let mut last = None;
    while let Some((_, text)) = up.get("/metrics") {
        let scrape = Scrape::parse(&text);
        last = Some(scrape).filter(|scrape| ok(scrape) > 0.0).or(last);
    }
    let last = last.expect("a scrape under load");
    assert!(ok(&last) > 40.0, "{}", ok(&last));
    for complaint in [
        "db_client_connection_timeouts_total",
        "poolscope_connection_errors_total",
        "poolscope_query_errors_total",
        "poolscope_dirty_returns_total",
        "poolscope_request_warnings_total",
        "poolscope_retries_total",
        "poolscope_retry_exhausted_total",
        "poolscope_saturated_seconds_total",
        "poolscope_self_deadlocks_total",
        "poolscope_suspected_leaks",
    ] {
        assert!(last.sum(complaint, &[]) <= 0.0, "{complaint}");
    }
    for outcome in ["error", "cancelled", "shed"] {
        assert!(last.sum("poolscope_request_duration_seconds_count", &[("outcome", outcome)]) <= 0.0, "{outcome}");
    }
    assert_eq!(up.run.wait().code(), Some(0));
    assert_eq!(up.run.stderr(), "");
}

#[test]
fn a_pool_that_is_too_small_is_used_up_by_work() {
    let up = played("undersized", &[]);
    shows(&up, "a pool that is used up", |scrape| {
        saturated(scrape) > 1.0 && scrape.sum("db_client_connection_pending_requests", &[]) > 0.0
    });
    let scrape = scrape(&up);
    let executing = held_by_all(&scrape, EXECUTING);
    assert!(executing > 4.0 * (held_by_all(&scrape, IDLE) + held_by_all(&scrape, IDLE_IN_TRANSACTION)), "{executing}");
}

#[test]
fn slow_queries_make_the_server_the_one_that_holds_the_pool() {
    let up = played("slow_queries", &[]);
    shows(&up, "orders that are listed slowly", |scrape| {
        held(scrape, "list_orders", EXECUTING) > 5.0 && saturated(scrape) > 0.0
    });
    let scrape = scrape(&up);
    assert!(held(&scrape, "list_orders", EXECUTING) > 0.5 * held_by_all(&scrape, EXECUTING));
}

#[test]
fn connections_are_held_idly_while_something_else_is_called() {
    let up = played("held_idle", &[]);
    shows(&up, "connections that are held idly", |scrape| {
        let warnings = [("route", "/orders"), ("kind", "held_elsewhere")];
        held(scrape, "list_orders", IDLE) > 5.0
            && saturated(scrape) > 0.0
            && scrape.sum("poolscope_request_warnings_total", &warnings) > 0.0
    });
    assert!(held(&scrape(&up), "list_orders", EXECUTING) < 1.0);
}

#[test]
fn transactions_are_left_open_while_the_payment_service_takes_its_time() {
    let up = played("idle_in_transaction", &[]);
    shows(&up, "transactions that are left open", |scrape| {
        held(scrape, "place_order", IDLE_IN_TRANSACTION) > 5.0 && saturated(scrape) > 0.0
    });
}

#[test]
fn what_leaks_is_suspected_and_comes_back_when_the_fault_is_over() {
    let mut command = demo(&["--scenario", "leak", "--scenario-after", "500ms", "--scenario-for", "5s"]);
    let up = up(command.env("POOLSCOPE_LEAK_THRESHOLD", "1s"));
    let leaks = |scrape: &Scrape| scrape.sum("poolscope_suspected_leaks", &[]);
    shows(&up, "suspected leaks", |scrape| leaks(scrape) > 1.5);
    assert!(held(&scrape(&up), "GET /customers/count", IDLE) > 2.0);
    up.run.line_containing("the fault is over");
    shows(&up, "nothing that leaks", |scrape| leaks(scrape) < 0.5);
}

#[test]
fn a_rush_that_takes_two_connections_each_waits_for_itself() {
    let up = played("self_deadlock", &[]);
    shows(&up, "tasks that wait for themselves", |scrape| {
        let audit = [("operation", "write_audit"), ("outcome", "timeout")];
        scrape.sum("poolscope_self_deadlocks_total", &[]) > 0.0
            && scrape.sum("poolscope_checkouts_total", &audit) > 0.0
            && saturated(scrape) > 0.0
    });
}

#[test]
fn a_server_that_was_down_serves_again_when_it_is_up() {
    let up = played("server_down", &["--scenario-for", "3s"]);
    let suspended = |scrape: &Scrape| scrape.sum("poolscope_connecting_suspended_seconds", &[]);
    let connect = [("phase", "connect")];
    shows(&up, "connecting that fails", |scrape| {
        suspended(scrape) > 0.0 && scrape.sum("poolscope_connection_errors_total", &connect) > 0.0
    });
    assert!(scrape(&up).sum("poolscope_checkouts_total", &[("outcome", "error")]) > 0.0);
    up.run.line_containing("the fault is over");
    let before = ok(&scrape(&up));
    shows(&up, "checkouts that succeed again", |scrape| suspended(scrape) <= 0.0 && ok(scrape) > before + 20.0);
}

#[test]
fn a_server_whose_slots_are_taken_refuses_and_takes_connections_when_they_are_free() {
    let up = played("server_full", &["--scenario-for", "10s"]);
    let refused = [("phase", "connect"), ("sqlstate", "53300")];
    shows(&up, "connections that are refused", |scrape| {
        scrape.sum("poolscope_connection_errors_total", &refused) > 0.0
    });
    up.run.line_containing("the fault is over");
    let before = ok(&scrape(&up));
    shows(&up, "checkouts that succeed", |scrape| ok(scrape) > before + 20.0);
}

#[test]
fn connections_that_take_a_second_to_make_show_in_the_time_of_connecting() {
    let up = played("connect_slow", &[]);
    shows(&up, "connections that took a second", |scrape| {
        let quick = scrape.sum("db_client_connection_create_time_seconds_bucket", &[("le", "0.5")]);
        scrape.sum("db_client_connection_create_time_seconds_count", &[]) > quick + 1.5
            && scrape.sum("poolscope_checkout_phase_seconds_total", &[("phase", "connect")]) > 2.0
    });
}

#[test]
fn connections_that_are_thrown_away_are_made_anew() {
    let up = played("churn", &[]);
    shows(&up, "connections that are thrown away", |scrape| {
        scrape.sum("poolscope_connections_closed_total", &[("reason", "discarded")]) > 20.0
    });
}

#[test]
fn retries_in_vain_spend_the_budget() {
    let up = played("retry_storm", &[]);
    shows(&up, "a budget that is spent", |scrape| {
        scrape.sum("poolscope_retry_exhausted_total", &[("operation", "reserve_stock"), ("reason", "budget")]) > 0.0
            && scrape.sum("poolscope_retry_budget_available", &[]) < 1.0
    });
    assert!(scrape(&up).sum("poolscope_retries_total", &[("sqlstate", "55P03")]) > 50.0);
}

#[test]
fn connections_that_come_back_dirty_are_counted_by_who_left_them_so() {
    let up = played("dirty", &[]);
    shows(&up, "dirty returns of both kinds", |scrape| {
        let dirty = |operation, kind| {
            scrape.sum("poolscope_dirty_returns_total", &[("operation", operation), ("kind", kind)]) > 2.0
        };
        dirty("update_stock", "in_transaction") && dirty("list_orders", "busy")
    });
}

#[test]
fn a_scenario_ends_in_good_order_in_the_midst_of_its_fault() {
    // What is left out of the pool for ever, locked or down would hold up the end.
    let scenarios = ["leak", "retry_storm", "server_down", "server_full"];
    for (scenario, mut up) in scenarios.map(|scenario| (scenario, played(scenario, &["--duration", "1500ms"]))) {
        assert_eq!(up.run.wait().code(), Some(0), "{scenario}");
        let (out, err) = (up.run.remaining_output(), up.run.stderr());
        assert!(out.contains("the fault begins: ") && out.contains("directory are gone."), "{scenario}: {out}");
        assert!(!err.contains("cut off") && !err.contains("ERROR"), "{scenario}: {err}");
        up.run.assert_no_leftovers();
    }
}
