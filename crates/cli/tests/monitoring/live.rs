//! End-to-end tests of the alerts: demos with real faults, scraped by a real Prometheus, which notifies a real Alertmanager.
//!
//! Time runs fifteen times as fast: Prometheus scrapes and evaluates every second, and all ranges and `for` durations of the
//! rules are scaled accordingly. A window contains as many scrapes as in production, and five minutes as many evaluations as
//! 75 minutes. Windows average over less time, so that single events weigh more.
//!
//! The scenarios run once, which takes minutes, and each test checks a part of the results.

mod environment;
mod panels;
mod results;
mod scenario_run;

use std::collections::BTreeSet;
use std::sync::LazyLock;

use poolscope_cli::demo::Scenario;
use poolscope_cli::monitoring::rules::alerts::diagnosed;

use self::results::Results;
use self::scenario_run::ScenarioRun;

static RESULTS: LazyLock<Results> = LazyLock::new(results::run_all);

/// Returns the runs of all scenarios with a fault.
fn faults() -> impl Iterator<Item = &'static ScenarioRun> {
    RESULTS.runs.iter().filter(|run| run.scenario.expected_alerts().is_some())
}

fn names(alerts: &[&'static str]) -> BTreeSet<String> {
    alerts.iter().map(|name| (*name).to_owned()).collect()
}

/// Returns whether a description names `cause` first among its contributors.
fn names_first(description: &str, cause: &str) -> bool {
    [" (", ", "].iter().any(|end| description.contains(&format!(": {cause}{end}")))
}

#[test]
fn faults_fire_exactly_the_expected_alerts() {
    let mut failures = Vec::new();
    for run in faults() {
        let alerts = run.scenario.expected_alerts().expect("a fault");
        let expected = names(&alerts.always());
        // Another test bounds the notifications about diagnosed causes.
        let optional = names(alerts.possible);
        let is_possible = |name: &str| optional.contains(name) || name.starts_with(diagnosed::PREFIX);
        let missing: Vec<_> = expected.difference(&run.fired).collect();
        let unexpected: Vec<_> =
            run.fired.iter().filter(|name| !expected.contains(*name) && !is_possible(name)).collect();
        if !missing.is_empty() || !unexpected.is_empty() {
            failures.push(format!("{}: missing {missing:?}, unexpected {unexpected:?}", run.scenario.name()));
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
    let expected = Scenario::all().iter().filter(|scenario| scenario.expected_alerts().is_some()).count();
    assert_eq!(faults().count(), expected);
}

#[test]
fn notifications_name_the_top_contributor() {
    for run in faults() {
        let expected = run.scenario.expected_alerts().expect("a fault");
        for name in expected.always() {
            let notice = run.notices.get(name).unwrap_or_else(|| panic!("{}: no {name}", run.scenario.name()));
            assert!(!notice.descriptions.is_empty(), "{name}");
        }
        let descriptions = &run.notices[expected.alert].descriptions;
        let named = descriptions.iter().any(|description| names_first(description, expected.cause));
        assert!(named, "{}: no description names {}: {descriptions:#?}", run.scenario.name(), expected.cause);
    }
}

#[test]
fn at_most_two_notifications_and_the_cause_first() {
    let mut failures = Vec::new();
    for run in faults() {
        let expected = run.scenario.expected_alerts().expect("a fault");
        let first = expected.diagnosed.map_or(expected.alert, |diagnosed| diagnosed.alert);
        let notified: Vec<_> = run.notified.iter().map(String::as_str).collect();
        let is_as_expected = match notified[..] {
            // The pool of the cache's server has a cause of its own, which is first.
            ["PoolscopeDiagnosedServerDown", second] if run.scenario.uses_cache() => second == first,
            [name] | [name, _] => name == first,
            _ => false,
        };
        if !is_as_expected {
            failures.push(format!("{}: {:?} instead of {first}", run.scenario.name(), run.notified));
        }
        let Some(diagnosed) = expected.diagnosed else { continue };
        let descriptions = run.notices.get(diagnosed.alert).map(|notice| &notice.descriptions);
        let named = |description: &String| description.contains(diagnosed.names);
        if !descriptions.is_some_and(|descriptions| descriptions.iter().any(named)) {
            failures.push(format!("{}: {descriptions:?} do not name {}", run.scenario.name(), diagnosed.names));
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn explained_alerts_are_inhibited() {
    for (scenario, alert) in [
        ("server_down", "PoolscopeServerDown"),
        ("server_down", "PoolscopeConnectingFails"),
        ("server_down", "PoolscopeCheckoutErrors"),
        ("server_full", "PoolscopeServerFull"),
        ("server_full", "PoolscopeServerSlotsLow"),
        ("held_idle", "PoolscopeHeldIdle"),
        ("leak", "PoolscopeSuspectedLeak"),
    ] {
        let notices = &RESULTS.run(scenario).notices;
        let notice = notices.get(alert).unwrap_or_else(|| panic!("{scenario}: {alert} did not fire"));
        assert!(notice.inhibited, "{scenario}: {alert} is not inhibited");
    }
    for run in faults() {
        let diagnosed = run.scenario.expected_alerts().and_then(|expected| expected.diagnosed);
        if let Some(diagnosed) = diagnosed {
            assert!(!run.notices[diagnosed.alert].inhibited, "{} is inhibited", diagnosed.alert);
        }
    }
}

#[test]
fn alerts_resolve_after_the_fault() {
    for run in faults() {
        assert!(run.unresolved.is_empty(), "{}: {:?}", run.scenario.name(), run.unresolved);
    }
}

#[test]
fn healthy_load_fires_no_alert() {
    let healthy = RESULTS.run("healthy");
    assert!(healthy.fired.is_empty(), "{:?}", healthy.fired);
    assert!(RESULTS.healthy_scrapes >= 300.0, "{}", RESULTS.healthy_scrapes);
}

#[test]
fn terminated_process_fires_target_alerts() {
    assert_eq!(RESULTS.fired_after_exit, names(&["PoolscopeMetricsAbsent", "PoolscopeTargetDown"]));
}

#[test]
fn panels_have_data_in_their_scenario() {
    assert!(RESULTS.panel_failures.is_empty(), "{:#?}", RESULTS.panel_failures);
}
