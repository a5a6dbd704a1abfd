//! Results of panel queries for known series, evaluated by promtool.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use poolscope_cli::monitoring::dashboards::PanelId;
use poolscope_cli::monitoring::recording::{BurnWindow, slow_share, timeout_share};

use super::{committed, panels, targets};
use crate::tools::{at, run};

/// A test file for promtool: series at an interval of 15 s, and expected results.
struct RuleTest {
    series: String,
    expected: String,
}

impl RuleTest {
    /// Creates a test with these series: name, labels and values of each.
    fn new(series: &[(&str, String, &str)]) -> Self {
        let line = |(name, labels, values): &(&str, String, &str)| {
            format!("  - {{series: '{name}{{{labels}}}', values: '{values}'}}\n")
        };
        Self { series: series.iter().map(line).collect(), expected: String::new() }
    }

    /// Expects these samples of an expression, with labels in braces.
    fn expect(&mut self, expression: &str, when: &str, samples: &[(&str, f64)]) {
        let samples: Vec<_> =
            samples.iter().map(|(labels, value)| format!("{{labels: '{labels}', value: {value}}}")).collect();
        // Writing to a string does not fail.
        let _ = writeln!(
            self.expected,
            "  - {{expr: '{expression}', eval_time: {when}, exp_samples: [{}]}}",
            samples.join(", ")
        );
    }

    fn run(&self) {
        let test = format!(
            "rule_files: ['{}']\nevaluation_interval: 15s\ntests:\n- interval: 15s\n  input_series:\n{}  \
             promql_expr_test:\n{}",
            at("alerts/recording.rules.yml").display(),
            self.series,
            self.expected
        );
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("test.yml");
        fs::write(&file, test).expect("a file");
        let (success, output) = run(Command::new("promtool").args(["test", "rules"]).arg(file));
        assert!(success, "{output}");
    }
}

/// Returns the queries of a panel with all variables set to `.+` and rates over five minutes.
fn panel_queries(id: PanelId) -> Vec<String> {
    let dashboard = committed(id.dashboard());
    let panel = panels(&dashboard).find(|panel| panel["id"] == id.number()).expect("a panel");
    let substitute = |query: &str| {
        let query = query.replace("$__rate_interval", "5m").replace("$slots", "97");
        ["$job", "$instance", "$pool"].iter().fold(query, |query, variable| query.replace(variable, ".+"))
    };
    targets(panel).iter().map(|(query, _)| substitute(query)).collect()
}

#[test]
fn objectives_panel_agrees_with_recording_rules() {
    let pool = "job=\"shop\",instance=\"a:1\",db_client_connection_pool_name=\"p\"";
    let labels = |more: &str| format!("{pool}{more}");
    // A quarter is slow and an eighth times out. Later three quarters of all checkouts, the fast ones, are shed.
    let mut test = RuleTest::new(&[
        ("db_client_connection_wait_time_seconds_count", labels(""), "0+1920x120"),
        ("db_client_connection_wait_time_seconds_bucket", labels(",le=\"1\""), "0+1440x120"),
        ("db_client_connection_timeouts_total", labels(""), "0+240x120"),
        ("poolscope_checkouts_total", labels(",operation=\"a\",outcome=\"shed\""), "_x60 0+1440x60"),
    ]);
    let recorded = [slow_share(BurnWindow::M5), timeout_share(BurnWindow::M5)];
    for (when, values) in [("14m", [0.25, 0.125]), ("25m", [1.0, 0.5])] {
        for ((query, recorded), value) in panel_queries(PanelId::Objectives).iter().zip(&recorded).zip(values) {
            test.expect(query, when, &[("{}", value)]);
            test.expect(recorded, when, &[(&format!("{recorded}{{{pool}}}"), value)]);
        }
    }
    test.run();
}

#[test]
fn servers_polled_by_several_instances_count_once() {
    let labels = |instance: &str, pool: &str, more: &str| {
        format!("job=\"shop\",instance=\"{instance}\",db_client_connection_pool_name=\"{pool}\"{more}")
    };
    // Two instances poll one server; one of them polls another server as well.
    let servers = [("a:1", "p", ["100", "20", "2", "60", "9"]), ("b:1", "p", ["100", "20", "2", "60", "9"])];
    let mut series = Vec::new();
    for (instance, pool, values) in servers.into_iter().chain([("a:1", "q", ["50", "45", "1", "8", "30"])]) {
        let names = [
            "poolscope_server_slots",
            "poolscope_server_slots_left",
            "poolscope_server_lock_waiters",
            "poolscope_server_oldest_transaction_seconds",
            "poolscope_server_oldest_idle_in_transaction_seconds",
        ];
        series.extend(names.into_iter().zip(values).map(|(name, value)| (name, labels(instance, pool, ""), value)));
        series.push((
            "db_client_connection_count",
            labels(instance, pool, ",db_client_connection_state=\"used\""),
            "7",
        ));
        series.push(("poolscope_server_info", labels(instance, pool, ",version=\"17.2\",role=\"primary\""), "1"));
    }
    let backends = |application: &str, state: &str| format!(",application_name=\"{application}\",state=\"{state}\"");
    for (instance, pool, application, state, count) in [
        ("a:1", "p", "billing", "active", "60"),
        ("b:1", "p", "billing", "active", "60"),
        ("a:1", "p", "reports", "idle", "20"),
        ("b:1", "p", "reports", "idle", "20"),
        ("a:1", "q", "billing", "idle", "5"),
    ] {
        series.push(("poolscope_server_backends", labels(instance, pool, &backends(application, state)), count));
    }
    // The first server answers neither instance, the third one only one of them.
    for (instance, pool, up) in
        [("a:1", "p", "0"), ("b:1", "p", "0"), ("a:1", "q", "1"), ("a:1", "r", "1"), ("b:1", "r", "0")]
    {
        series.push(("poolscope_server_up", labels(instance, pool, ""), up));
    }
    let mut test = RuleTest::new(&series);
    let applications: &[(&str, f64)] =
        &[("{application_name=\"billing\"}", 65.0), ("{application_name=\"reports\"}", 20.0)];
    let states: &[(&str, f64)] = &[("{state=\"active\"}", 60.0), ("{state=\"idle\"}", 25.0)];
    let one = |value: f64| vec![("{}", value)];
    for (panel, expected) in [
        (PanelId::ServersDown, vec![one(2.0)]),
        (PanelId::FleetServersDown, vec![one(2.0)]),
        (PanelId::SlotsTaken, vec![one(0.8)]),
        (PanelId::FleetSlotsTaken, vec![one(0.8)]),
        // Taken, left, reported by these pools, server slots and alert threshold.
        (PanelId::ServerSlots, vec![one(85.0), one(65.0), one(21.0), one(150.0), one(135.0)]),
        (PanelId::BackendsByApplication, vec![applications.to_vec()]),
        (PanelId::BackendsByState, vec![states.to_vec()]),
        (PanelId::LockWaiters, vec![one(3.0)]),
        (PanelId::OldestTransaction, vec![one(60.0), one(30.0)]),
        (PanelId::ServerInfo, vec![vec![("{version=\"17.2\",role=\"primary\"}", 3.0)]]),
    ] {
        let queries = panel_queries(panel);
        assert_eq!(queries.len(), expected.len(), "{panel:?}");
        for (query, expected) in queries.iter().zip(&expected) {
            test.expect(query, "0s", expected);
        }
    }
    test.run();
}

#[test]
fn firing_alerts_without_an_instance_count() {
    let alert = |name: &str, labels: &str| format!("alertname=\"{name}\",alertstate=\"firing\"{labels}");
    let series = [
        alert("PoolscopeMetricsAbsent", ""),
        alert("PoolscopeMetricsAbsent", ",job=\"shop\""),
        alert("PoolscopeServerSlotsShort", ",job=\"shop\",db_client_connection_pool_name=\"p\""),
        alert("PoolscopePoolExhausted", ",job=\"shop\",instance=\"a:1\",db_client_connection_pool_name=\"p\""),
        alert("OtherAlert", ",job=\"shop\",instance=\"a:1\""),
    ];
    let mut test = RuleTest::new(&series.map(|labels| ("ALERTS", labels, "1")));
    for (panel, firing) in [(PanelId::FleetAlerts, 4.0), (PanelId::Alerts, 2.0)] {
        test.expect(&panel_queries(panel)[0], "0s", &[("{}", firing)]);
    }
    test.run();
}

/// The panel's lines are those of the alert `PoolscopeServerSlotsShort`, which links to it.
#[test]
fn fleet_slots_are_those_that_the_alert_compares_with() {
    let labels =
        |job: &str, pool: &str| format!("job=\"{job}\",instance=\"a:1\",db_client_connection_pool_name=\"{pool}\"");
    let slots = |job: &str| ("poolscope_server_slots", labels(job, "p"), "497");
    let open = ("db_client_connection_max", labels("shop", "p"), "90");
    let queries = panel_queries(PanelId::FleetSlots);
    for (series, expected) in [
        (vec![open.clone()], 97.0),
        (vec![open.clone(), slots("shop")], 497.0),
        // Another job polls the server.
        (vec![open.clone(), slots("serve")], 497.0),
    ] {
        let mut test = RuleTest::new(&series);
        let shop = |query: &String| query.replace("job=~\".+\"", "job=~\"shop\"");
        test.expect(&shop(&queries[3]), "0s", &[("{}", expected)]);
        test.expect(&shop(&queries[4]), "0s", &[("{}", expected * 0.9)]);
        test.run();
    }
}
