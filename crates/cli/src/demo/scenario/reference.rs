//! Generates `docs/demo.md` from the table of scenarios.

use std::fmt::Write;

use super::{DEFAULT_FAULT_DELAY, Scenario};

/// Returns the content of `docs/demo.md`.
fn reference() -> String {
    let mut page = String::from(INTRODUCTION);
    page.push_str(
        "| scenario | fault | symptoms | settings | ends after | requires |\n\
         |---|---|---|---|---|---|\n",
    );
    for scenario in Scenario::all() {
        let settings: Vec<_> = scenario.settings.iter().map(|(name, value)| format!("`{name}={value}`")).collect();
        let disrupts = scenario.disruption().map(|disruption| format!("a private server: it {disruption}"));
        let requires = if scenario.uses_cache() { Some("`redis-server`".to_owned()) } else { disrupts };
        let lasts = scenario.fault.as_ref().and_then(|fault| fault.lasts);
        // Writing to a string does not fail.
        let _ = writeln!(
            page,
            "| `{}` | {} | {} | {} | {} | {} |",
            scenario.name,
            scenario.about,
            scenario.symptoms,
            settings.join(", "),
            lasts.map(|time| humantime::format_duration(time).to_string()).unwrap_or_default(),
            requires.unwrap_or_default(),
        );
    }
    page.push_str(ALERTS);
    for scenario in Scenario::all() {
        let Some(alerts) = scenario.expected_alerts() else { continue };
        let listed = |names: &[&str]| names.iter().map(|name| linked(name)).collect::<Vec<_>>().join(", ");
        let (alert, also, possible) = (linked(alerts.alert), listed(&alerts.also.concat()), listed(alerts.possible));
        let first = alerts.diagnosed.map_or_else(|| alert.clone(), |diagnosed| linked(diagnosed.alert));
        let _ =
            writeln!(page, "| `{}` | {first} | {alert} | `{}` | {also} | {possible} |", scenario.name, alerts.cause);
    }
    let _ = write!(
        page,
        "\nThe fault is injected after `--scenario-after` (default {DEFAULT_FAULT_DELAY}) of normal load, which is that of `healthy`. It is\n\
         removed after `--scenario-for` (default: see the table, else at the end of the demo), and the load is normal again, so\n\
         that alerts fire and resolve. `shop` and `healthy` have no fault.\n",
    );
    page
}

const INTRODUCTION: &str = "\
# Scenarios of the demo

<!-- Generated from the table in crates/cli/src/demo/scenario/table.rs. Regenerate it with
     POOLSCOPE_BLESS=1 cargo test -p poolscope-cli --lib scenario -->

`poolscope demo --scenario NAME` injects a real fault that exhausts or degrades the pool. Each fault has its own symptoms and its
own remedy. The demo's pool has 5 + 5 connections and a checkout timeout of 2 s; settings of the scenario replace these defaults,
and settings in the environment or the URL take precedence over both.

";

const ALERTS: &str = "
## Alerts

These alerts of [alerts.md](alerts.md) fire if the fault lasts long enough. `make stack ARGS='--scenario NAME'` shows them. With the
configuration of Alertmanager in `alerts/`, the first notification names the cause, and there is at most one other: what the cause explains
is inhibited.

| scenario | first notification | alert on the symptom | cause it names | also fires | may fire |
|---|---|---|---|---|---|
";

/// Returns the name of an alert, as a link to its runbook.
fn linked(alert: &str) -> String {
    format!("[{}](runbooks/{alert}.md)", alert.trim_start_matches("Poolscope"))
}

#[test]
fn scenario_page_is_up_to_date() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/demo.md");
    if std::env::var_os("POOLSCOPE_BLESS").is_some() {
        std::fs::write(path, reference()).unwrap();
    }
    let page = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        page == reference(),
        "docs/demo.md differs from the table of scenarios: \
         regenerate it with POOLSCOPE_BLESS=1 cargo test -p poolscope-cli --lib scenario"
    );
}

#[test]
fn symptoms_are_metrics_of_the_catalog() {
    let metrics = include_str!("../../../../../docs/metrics.md");
    for scenario in Scenario::all() {
        let words = scenario.symptoms.split('`').skip(1).step_by(2);
        for metric in words.filter(|word| word.starts_with("poolscope_") || word.starts_with("db_client_")) {
            assert!(metrics.contains(&format!("| `{metric}` |")), "{}: {metric}", scenario.name);
        }
    }
}

#[test]
fn names_are_unique_and_settings_valid() {
    for (index, scenario) in Scenario::all().iter().enumerate() {
        assert!(Scenario::all()[..index].iter().all(|other| other.name != scenario.name), "{}", scenario.name);
        let mut settings = crate::demo::defaults();
        for (name, value) in scenario.settings() {
            settings.set(name, value).unwrap();
        }
        settings.validate().unwrap();
    }
}
