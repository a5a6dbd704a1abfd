//! The scenarios of the demo: their faults show in the metrics, and are removed.

use poolscope_cli::demo::Scenario;
use poolscope_testing::scrape::Scrape;

use crate::run::{RunningDemo, demo, start, wait_until};

/// The scenarios with a test.
const TESTED: [&str; 16] = [
    // In other files.
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
    "cache_down",
    "cache_stampede",
];

const EXECUTING: (&str, &str) = ("activity", "executing");
const IDLE: (&str, &str) = ("activity", "idle");
const IDLE_IN_TRANSACTION: (&str, &str) = ("activity", "idle_in_transaction");

fn scrape(demo: &RunningDemo) -> Scrape {
    let scrape = Scrape::parse(&demo.get("/metrics").expect("a response").1);
    scrape.assert_adds_up("shop");
    scrape
}

/// Starts a demo whose fault is injected after half a second.
fn start_scenario(scenario: &str, arguments: &[&str]) -> RunningDemo {
    let mut command = demo(&["--scenario", scenario, "--scenario-after", "500ms"]);
    let demo = start(command.args(arguments));
    assert!(demo.banner.contains(&format!("\n  scenario {scenario}: ")), "{}", demo.banner);
    demo
}

/// Waits for a scrape that satisfies `holds`.
fn wait_until_scrape(demo: &RunningDemo, what: &str, mut holds: impl FnMut(&Scrape) -> bool) {
    wait_until(what, || holds(&scrape(demo)));
}

/// Returns how long an operation held connections with this activity, in seconds.
fn held(scrape: &Scrape, operation: &str, activity: (&str, &str)) -> f64 {
    scrape.sum("poolscope_connection_use_seconds_total", &[("operation", operation), activity])
}

/// Returns how long all operations held connections with this activity, in seconds.
fn held_by_all(scrape: &Scrape, activity: (&str, &str)) -> f64 {
    scrape.sum("poolscope_connection_use_seconds_total", &[activity])
}

fn saturated(scrape: &Scrape) -> f64 {
    scrape.sum("poolscope_saturated_seconds_total", &[])
}

/// Returns the number of successful checkouts.
fn ok(scrape: &Scrape) -> f64 {
    scrape.sum("poolscope_checkouts_total", &[("outcome", "ok")])
}

#[test]
fn every_scenario_has_a_test() {
    let all: Vec<_> = Scenario::all().iter().map(Scenario::name).collect();
    assert_eq!(all, TESTED);
}

#[test]
fn healthy_load_has_no_symptoms() {
    let mut demo = start(&mut demo(&["--scenario", "healthy", "--duration", "4s"]));
    let mut last = None;
    while let Some((_, text)) = demo.get("/metrics") {
        let scrape = Scrape::parse(&text);
        last = Some(scrape).filter(|scrape| ok(scrape) > 0.0).or(last);
    }
    let last = last.expect("a scrape under load");
    assert!(ok(&last) > 40.0, "{}", ok(&last));
    for metric in [
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
        assert!(last.sum(metric, &[]) <= 0.0, "{metric}");
    }
    for outcome in ["error", "cancelled", "shed"] {
        let requests = last.sum("poolscope_request_duration_seconds_count", &[("outcome", outcome)]);
        assert!(requests <= 0.0, "{requests} requests ended with {outcome}; the demo wrote:\n{}", demo.run.stderr());
    }
    assert_eq!(demo.run.wait().code(), Some(0));
    assert_eq!(demo.run.stderr(), "");
}

#[test]
fn undersized_pool_is_saturated_while_executing() {
    let demo = start_scenario("undersized", &[]);
    wait_until_scrape(&demo, "a saturated pool", |scrape| {
        saturated(scrape) > 1.0 && scrape.sum("db_client_connection_pending_requests", &[]) > 0.0
    });
    let scrape = scrape(&demo);
    let executing = held_by_all(&scrape, EXECUTING);
    assert!(executing > 4.0 * (held_by_all(&scrape, IDLE) + held_by_all(&scrape, IDLE_IN_TRANSACTION)), "{executing}");
}

#[test]
fn slow_queries_saturate_the_pool() {
    let demo = start_scenario("slow_queries", &[]);
    wait_until_scrape(&demo, "slow queries of the order list", |scrape| {
        held(scrape, "list_orders", EXECUTING) > 5.0 && saturated(scrape) > 0.0
    });
    let scrape = scrape(&demo);
    assert!(held(&scrape, "list_orders", EXECUTING) > 0.5 * held_by_all(&scrape, EXECUTING));
}

#[test]
fn idle_holds_saturate_the_pool() {
    let demo = start_scenario("held_idle", &[]);
    wait_until_scrape(&demo, "connections held idle", |scrape| {
        let warnings = [("route", "/orders"), ("kind", "held_elsewhere")];
        held(scrape, "list_orders", IDLE) > 5.0
            && saturated(scrape) > 0.0
            && scrape.sum("poolscope_request_warnings_total", &warnings) > 0.0
    });
    assert!(held(&scrape(&demo), "list_orders", EXECUTING) < 1.0);
}

#[test]
fn idle_transactions_saturate_the_pool() {
    let demo = start_scenario("idle_in_transaction", &[]);
    wait_until_scrape(&demo, "idle transactions", |scrape| {
        held(scrape, "place_order", IDLE_IN_TRANSACTION) > 5.0 && saturated(scrape) > 0.0
    });
}

#[test]
fn leaks_are_suspected_until_the_fault_is_removed() {
    let mut command = demo(&["--scenario", "leak", "--scenario-after", "500ms", "--scenario-for", "5s"]);
    let demo = start(command.env("POOLSCOPE_LEAK_THRESHOLD", "1s"));
    let leaks = |scrape: &Scrape| scrape.sum("poolscope_suspected_leaks", &[]);
    wait_until_scrape(&demo, "suspected leaks", |scrape| leaks(scrape) > 1.5);
    assert!(held(&scrape(&demo), "GET /customers/count", IDLE) > 2.0);
    demo.run.line_containing("fault removed");
    wait_until_scrape(&demo, "no leaks", |scrape| leaks(scrape) < 0.5);
}

#[test]
fn nested_checkouts_deadlock_in_the_pool() {
    let demo = start_scenario("self_deadlock", &[]);
    wait_until_scrape(&demo, "self-deadlocks", |scrape| {
        let audit = [("operation", "write_audit"), ("outcome", "timeout")];
        scrape.sum("poolscope_self_deadlocks_total", &[]) > 0.0
            && scrape.sum("poolscope_checkouts_total", &audit) > 0.0
            && saturated(scrape) > 0.0
    });
}

#[test]
fn stopped_server_recovers() {
    let demo = start_scenario("server_down", &["--scenario-for", "3s"]);
    let suspended = |scrape: &Scrape| scrape.sum("poolscope_connecting_suspended_seconds", &[]);
    let connect = [("phase", "connect")];
    wait_until_scrape(&demo, "failed connects", |scrape| {
        suspended(scrape) > 0.0 && scrape.sum("poolscope_connection_errors_total", &connect) > 0.0
    });
    assert!(scrape(&demo).sum("poolscope_checkouts_total", &[("outcome", "error")]) > 0.0);
    demo.run.line_containing("fault removed");
    let before = ok(&scrape(&demo));
    wait_until_scrape(&demo, "successful checkouts", |scrape| suspended(scrape) <= 0.0 && ok(scrape) > before + 20.0);
}

#[test]
fn full_server_recovers() {
    let demo = start_scenario("server_full", &["--scenario-for", "10s"]);
    let refused = [("phase", "connect"), ("sqlstate", "53300")];
    wait_until_scrape(&demo, "refused connections", |scrape| {
        scrape.sum("poolscope_connection_errors_total", &refused) > 0.0
    });
    demo.run.line_containing("fault removed");
    let before = ok(&scrape(&demo));
    wait_until_scrape(&demo, "successful checkouts", |scrape| ok(scrape) > before + 20.0);
}

#[test]
fn slow_connects_show_in_the_create_time() {
    let demo = start_scenario("connect_slow", &[]);
    wait_until_scrape(&demo, "slow connects", |scrape| {
        let quick = scrape.sum("db_client_connection_create_time_seconds_bucket", &[("le", "0.5")]);
        scrape.sum("db_client_connection_create_time_seconds_count", &[]) > quick + 1.5
            && scrape.sum("poolscope_checkout_phase_seconds_total", &[("phase", "connect")]) > 2.0
    });
}

#[test]
fn discarded_connections_are_counted() {
    let demo = start_scenario("churn", &[]);
    wait_until_scrape(&demo, "discarded connections", |scrape| {
        scrape.sum("poolscope_connections_closed_total", &[("reason", "discarded")]) > 20.0
    });
}

#[test]
fn failed_retries_exhaust_the_budget() {
    let demo = start_scenario("retry_storm", &[]);
    wait_until_scrape(&demo, "an exhausted budget", |scrape| {
        scrape.sum("poolscope_retry_exhausted_total", &[("operation", "reserve_stock"), ("reason", "budget")]) > 0.0
            && scrape.sum("poolscope_retry_budget_available", &[]) < 1.0
    });
    assert!(scrape(&demo).sum("poolscope_retries_total", &[("sqlstate", "55P03")]) > 50.0);
}

#[test]
fn dirty_returns_are_counted_by_operation() {
    let demo = start_scenario("dirty", &[]);
    wait_until_scrape(&demo, "dirty returns of both kinds", |scrape| {
        let dirty = |operation, kind| {
            scrape.sum("poolscope_dirty_returns_total", &[("operation", operation), ("kind", kind)]) > 2.0
        };
        dirty("update_stock", "in_transaction") && dirty("list_orders", "busy")
    });
}

#[test]
fn demo_stops_gracefully_during_a_fault() {
    // Leaked connections, locks and a stopped server would delay the shutdown.
    let scenarios = ["leak", "retry_storm", "server_down", "server_full"];
    for (scenario, mut demo) in
        scenarios.map(|scenario| (scenario, start_scenario(scenario, &["--duration", "1500ms"])))
    {
        assert_eq!(demo.run.wait().code(), Some(0), "{scenario}");
        let (out, err) = (demo.run.remaining_output(), demo.run.stderr());
        assert!(out.contains("fault injected: ") && out.contains("its directory removed."), "{scenario}: {out}");
        assert!(!err.contains("aborted") && !err.contains("ERROR"), "{scenario}: {err}");
        demo.run.assert_no_leftovers();
    }
}

/// Returns the lookups of the cache with this result.
fn lookups(scrape: &Scrape, result: &str) -> f64 {
    scrape.sum("poolscope_cache_lookups_total", &[("cache", "products"), ("result", result)])
}

#[test]
fn cache_that_is_away_is_bypassed() {
    let demo = start_scenario("cache_down", &["--scenario-for", "3s"]);
    assert!(demo.banner.contains("\n  cache    redis-cli -s "), "{}", demo.banner);
    wait_until_scrape(&demo, "bypassed lookups", |scrape| lookups(scrape, "bypassed") > 0.0);
    demo.run.line_containing("fault removed");
    let before = lookups(&scrape(&demo), "hit");
    wait_until_scrape(&demo, "hits again", |scrape| lookups(scrape, "hit") > before + 5.0);
}

/// The load of the database is compared with the usual load, which the cache keeps low.
#[test]
fn cache_that_is_away_is_the_diagnosis_of_the_database() {
    let demo = start(&mut demo(&["--scenario", "cache_down", "--scenario-for", "10m"]));
    wait_until_scrape(&demo, "the cause cache_down", |scrape| {
        scrape.sum("poolscope_diagnosis", &[("db_client_connection_pool_name", "shop"), ("cause", "cache_down")]) > 0.0
    });
}

#[test]
fn stampede_misses_within_the_bound() {
    let demo = start_scenario("cache_stampede", &[]);
    wait_until_scrape(&demo, "misses", |scrape| lookups(scrape, "miss") > 100.0);
    assert!((scrape(&demo).sum("poolscope_cache_loads_max", &[]) - 5.0).abs() < 0.1);
}
