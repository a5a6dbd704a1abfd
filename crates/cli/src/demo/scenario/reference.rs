//! The reference of scenarios, written from their table; a test holds it current.

use std::fmt::Write;

use super::{CALM_FOR, Scenario};

/// `docs/demo.md`.
fn reference() -> String {
    let mut page = String::from(INTRODUCTION);
    page.push_str(
        "| scenario | what it brings about | what shows it | settings of its own | over after | needs |\n\
         |---|---|---|---|---|---|\n",
    );
    for scenario in Scenario::all() {
        let settings: Vec<_> = scenario.settings.iter().map(|(name, value)| format!("`{name}={value}`")).collect();
        let needs = scenario.needs_private_server().map(|why| format!("a private server: it {why}"));
        let over = scenario.fault.as_ref().and_then(|fault| fault.lasts);
        // Writing to a string does not fail.
        let _ = writeln!(
            page,
            "| `{}` | {} | {} | {} | {} | {} |",
            scenario.name,
            scenario.about,
            scenario.shows,
            settings.join(", "),
            over.map(|time| humantime::format_duration(time).to_string()).unwrap_or_default(),
            needs.unwrap_or_default(),
        );
    }
    page.push_str(FIRES);
    for scenario in Scenario::all() {
        let Some(fires) = scenario.fires() else { continue };
        let listed = |names: &[&str]| names.iter().map(|name| linked(name)).collect::<Vec<_>>().join(", ");
        let (alert, also, perhaps) = (linked(fires.alert), listed(&fires.also.concat()), listed(fires.perhaps));
        let _ = writeln!(page, "| `{}` | {alert} | `{}` | {also} | {perhaps} |", scenario.name, fires.blames);
    }
    let _ = write!(
        page,
        "\nA fault begins after `--scenario-after` (default {}) of a calm load, which is that of `healthy`, and ends after\n\
         `--scenario-for` (default: with the demo, if the table says nothing else); then the load is calm again, so that alerts\n\
         can be seen to fire and to resolve. `shop` and `healthy` have no fault.\n",
        humantime::format_duration(CALM_FOR)
    );
    page
}

const INTRODUCTION: &str = "\
# Scenarios of the demo

<!-- Generated from the table in crates/cli/src/demo/scenario/table.rs. Regenerate it with
     POOLSCOPE_BLESS=1 cargo test -p poolscope-cli --lib the_page_of_scenarios_is_up_to_date -->

`poolscope demo --scenario NAME` brings about, really, what makes a pool run out: each asks for another cure, and each shows in
other metrics. Every scenario has the pool of the demo, 5 + 5 connections and a checkout timeout of 2 s, unless settings say
something else; what is given in the environment or the URL wins.

";

const FIRES: &str = "
Its alerts, by the rules of [alerts.md](alerts.md), if the fault lasts for long enough. `make stack ARGS='--scenario NAME'` shows them.

| scenario | fires | which names | with it | perhaps also |
|---|---|---|---|---|
";

/// The alert's name, as a link to its runbook.
fn linked(alert: &str) -> String {
    format!("[{}](runbooks/{alert}.md)", alert.trim_start_matches("Poolscope"))
}

#[test]
fn the_page_of_scenarios_is_up_to_date() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/demo.md");
    if std::env::var_os("POOLSCOPE_BLESS").is_some() {
        std::fs::write(path, reference()).unwrap();
    }
    let page = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        page == reference(),
        "docs/demo.md differs from the table of scenarios: \
         rewrite it with POOLSCOPE_BLESS=1 cargo test -p poolscope-cli --lib the_page_of_scenarios_is_up_to_date"
    );
}

#[test]
fn every_metric_that_is_said_to_show_a_scenario_is_in_the_catalogue() {
    let metrics = include_str!("../../../../../docs/metrics.md");
    for scenario in Scenario::all() {
        let words = scenario.shows.split('`').skip(1).step_by(2);
        for metric in words.filter(|word| word.starts_with("poolscope_") || word.starts_with("db_client_")) {
            assert!(metrics.contains(&format!("| `{metric}` |")), "{}: {metric}", scenario.name);
        }
    }
}

#[test]
fn each_scenario_has_a_name_of_its_own_and_settings_that_can_be() {
    for (index, scenario) in Scenario::all().iter().enumerate() {
        assert!(Scenario::all()[..index].iter().all(|other| other.name != scenario.name), "{}", scenario.name);
        let mut settings = crate::demo::defaults();
        for (name, value) in scenario.settings() {
            settings.set(name, value).unwrap();
        }
        settings.validate().unwrap();
    }
}
