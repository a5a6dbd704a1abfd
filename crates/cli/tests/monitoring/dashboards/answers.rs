//! What panels answer, where it is known what there is: promtool evaluates their queries.

use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use poolscope_cli::monitoring::dashboards::{Panel, panel_id};
use poolscope_cli::monitoring::rules::recording::{BurnWindow, slow_share, timeout_share};

use super::{committed, panels, targets};
use crate::tools::{at, run};

/// A test for promtool: of series at 15 s, and what expressions are then.
struct Asked {
    series: String,
    expected: String,
}

impl Asked {
    /// Of these series, each a name, its labels and its values.
    fn of(series: &[(&str, String, &str)]) -> Self {
        let line = |(name, labels, values): &(&str, String, &str)| {
            format!("  - {{series: '{name}{{{labels}}}', values: '{values}'}}\n")
        };
        Self { series: series.iter().map(line).collect(), expected: String::new() }
    }

    /// An expression is to have these samples then: labels with their braces, and values.
    fn expects(&mut self, expression: &str, when: &str, samples: &[(&str, f64)]) {
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
        let file = directory.path().join("asked.yml");
        fs::write(&file, test).expect("a file");
        let (good, said) = run(Command::new("promtool").args(["test", "rules"]).arg(file));
        assert!(good, "{said}");
    }
}

/// What a panel asks, of all that is there; a rate is over five minutes.
fn of_panel(panel: Panel) -> Vec<String> {
    let dashboard = committed(panel.dashboard());
    let found = panels(&dashboard).find(|it| it["id"] == panel_id(panel)).expect("a panel");
    let of_all = |query: &str| {
        ["$job", "$instance", "$pool"]
            .iter()
            .fold(query.replace("$__rate_interval", "5m"), |query, variable| query.replace(variable, ".+"))
    };
    targets(found).iter().map(|(query, _)| of_all(query)).collect()
}

#[test]
fn the_objective_on_the_dashboard_is_that_of_the_alerts() {
    let pool = "job=\"shop\",instance=\"a:1\",db_client_connection_pool_name=\"p\"";
    let of = |more: &str| format!("{pool}{more}");
    // A quarter is too slow and an eighth times out; then three quarters of all are shed, which are all that is quick.
    let mut asked = Asked::of(&[
        ("db_client_connection_wait_time_seconds_count", of(""), "0+1920x120"),
        ("db_client_connection_wait_time_seconds_bucket", of(",le=\"1\""), "0+1440x120"),
        ("db_client_connection_timeouts_total", of(""), "0+240x120"),
        ("poolscope_checkouts_total", of(",operation=\"a\",outcome=\"shed\""), "_x60 0+1440x60"),
    ]);
    let recorded = [slow_share(BurnWindow::M5), timeout_share(BurnWindow::M5)];
    for (when, values) in [("14m", [0.25, 0.125]), ("25m", [1.0, 0.5])] {
        for ((asks, recorded), value) in of_panel(Panel::Objective).iter().zip(&recorded).zip(values) {
            asked.expects(asks, when, &[("{}", value)]);
            asked.expects(recorded, when, &[(&format!("{recorded}{{{pool}}}"), value)]);
        }
    }
    asked.run();
}

#[test]
fn a_server_that_several_ask_is_counted_once_and_one_that_cannot_reach_it_is_told() {
    let of = |instance: &str, pool: &str, more: &str| {
        format!("job=\"shop\",instance=\"{instance}\",db_client_connection_pool_name=\"{pool}\"{more}")
    };
    // Two instances ask one server; one of them asks another, too.
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
        series.extend(names.into_iter().zip(values).map(|(name, value)| (name, of(instance, pool, ""), value)));
        series.push(("db_client_connection_count", of(instance, pool, ",db_client_connection_state=\"used\""), "7"));
        series.push(("poolscope_server_info", of(instance, pool, ",version=\"17.2\",role=\"primary\""), "1"));
    }
    let backends = |application: &str, state: &str| format!(",application_name=\"{application}\",state=\"{state}\"");
    for (instance, pool, application, state, count) in [
        ("a:1", "p", "billing", "active", "60"),
        ("b:1", "p", "billing", "active", "60"),
        ("a:1", "p", "reports", "idle", "20"),
        ("b:1", "p", "reports", "idle", "20"),
        ("a:1", "q", "billing", "idle", "5"),
    ] {
        series.push(("poolscope_server_backends", of(instance, pool, &backends(application, state)), count));
    }
    // Of one server neither has an answer, of a third only one has.
    for (instance, pool, up) in
        [("a:1", "p", "0"), ("b:1", "p", "0"), ("a:1", "q", "1"), ("a:1", "r", "1"), ("b:1", "r", "0")]
    {
        series.push(("poolscope_server_up", of(instance, pool, ""), up));
    }
    let mut asked = Asked::of(&series);
    let applications: &[(&str, f64)] =
        &[("{application_name=\"billing\"}", 65.0), ("{application_name=\"reports\"}", 20.0)];
    let states: &[(&str, f64)] = &[("{state=\"active\"}", 60.0), ("{state=\"idle\"}", 25.0)];
    let one = |value: f64| vec![("{}", value)];
    for (panel, expected) in [
        (Panel::ServersDown, vec![one(2.0)]),
        (Panel::FleetServersDown, vec![one(2.0)]),
        (Panel::SlotsTaken, vec![one(0.8)]),
        (Panel::FleetSlotsTaken, vec![one(0.8)]),
        // Taken, left, what these pools count, slots, and where the alert begins.
        (Panel::ServerSlots, vec![one(85.0), one(65.0), one(21.0), one(150.0), one(135.0)]),
        (Panel::BackendsByApplication, vec![applications.to_vec()]),
        (Panel::BackendsByState, vec![states.to_vec()]),
        (Panel::LockWaiters, vec![one(3.0)]),
        (Panel::OldestTransaction, vec![one(60.0), one(30.0)]),
        (Panel::ServerInfo, vec![vec![("{version=\"17.2\",role=\"primary\"}", 3.0)]]),
    ] {
        let asks = of_panel(panel);
        assert_eq!(asks.len(), expected.len(), "{panel:?}");
        for (asks, expected) in asks.iter().zip(&expected) {
            asked.expects(asks, "0s", expected);
        }
    }
    asked.run();
}
