//! The runbooks: each tells what a person needs at night, and nothing that does not exist.

use std::fs;

use poolscope::config::settings;
use poolscope_cli::demo::Scenario;
use poolscope_cli::monitoring::Thresholds;
use poolscope_cli::monitoring::rules::alerts::alerts;

use crate::rules::world;
use crate::tools::files;

const SECTIONS: [&str; 4] = ["## Meaning", "## Impact", "## Diagnosis", "## Mitigation"];

/// Each runbook, by the name of its alert.
fn runbooks() -> Vec<(String, String)> {
    let read = |path: std::path::PathBuf| {
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        (name, fs::read_to_string(path).expect("a runbook"))
    };
    files("docs/runbooks", ".md").into_iter().map(read).collect()
}

/// The words of a text that begin so.
fn words<'a>(text: &'a str, beginning: &'a str) -> impl Iterator<Item = &'a str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).filter(move |word| word.starts_with(beginning))
}

/// The blocks of code in a language, without the indentation of the first line.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let begin = format!("```{language}\n");
    let rest = text.split(&begin).skip(1).filter_map(|rest| rest.split_once("```"));
    rest.map(|(block, _)| {
        let indent = block.len() - block.trim_start().len();
        block.lines().map(|line| line.get(indent..).unwrap_or_default()).collect::<Vec<_>>().join("\n")
    })
    .collect()
}

#[test]
fn each_alert_has_a_runbook_with_the_four_parts() {
    let alerts = alerts(&Thresholds::committed().expect("thresholds"));
    let runbooks = runbooks();
    let mut names: Vec<_> = alerts.iter().map(|alert| alert.name).collect();
    names.sort_unstable();
    assert_eq!(runbooks.iter().map(|(name, _)| name).collect::<Vec<_>>(), names);
    for (name, text) in &runbooks {
        assert!(text.starts_with(&format!("# {name}\n")), "{name}");
        let sections: Vec<_> = text.lines().filter(|line| line.starts_with("## ")).collect();
        assert_eq!(sections, SECTIONS, "{name}");
        for (section, part) in SECTIONS.iter().zip(text.split("\n## ").skip(1)) {
            assert!(part.len() > section.len() + 40, "{name}: {section} says too little");
        }
        let diagnosis = text.split(SECTIONS[2]).nth(1).expect("a diagnosis");
        assert!(!blocks(diagnosis, "promql").is_empty(), "{name} has nothing to ask Prometheus");
        assert!(text.lines().all(|line| line.chars().count() <= 400), "{name}");
    }
}

#[test]
fn what_a_runbook_asks_prometheus_exists() {
    let world = world();
    let mut asked = 0;
    for (name, text) in runbooks() {
        for block in blocks(&text, "promql") {
            // Queries stand on a line each; the generated one, and one that goes on in the next line, is a block by itself.
            let one = world.selects(&block);
            let each = || block.lines().try_for_each(|line| world.selects(line));
            one.or_else(|_| each()).unwrap_or_else(|problem| panic!("{name}: {problem}"));
            asked += block.lines().count();
        }
    }
    assert!(asked > 100, "{asked}");
}

#[test]
fn what_a_runbook_names_exists() {
    let alerts = alerts(&Thresholds::committed().expect("thresholds"));
    let variables: Vec<_> = settings().map(|setting| setting.environment_variable()).collect();
    for (name, text) in runbooks() {
        for alert in words(&text, "Poolscope") {
            assert!(alerts.iter().any(|known| known.name == alert), "{name}: there is no {alert}");
        }
        for variable in words(&text, "POOLSCOPE_") {
            assert!(variables.iter().any(|known| known == variable), "{name}: there is no {variable}");
        }
    }
}

#[test]
fn the_runbook_of_a_scenarios_alert_names_all_that_the_scenario_fires() {
    let alerts = alerts(&Thresholds::committed().expect("thresholds"));
    for fires in Scenario::all().iter().filter_map(Scenario::fires) {
        let alert = alerts.iter().find(|alert| alert.name == fires.alert).expect(fires.alert);
        for name in fires.also.concat().iter().chain(fires.perhaps) {
            assert!(alert.comes_with().contains(name), "{} does not say that it brings {name}", fires.alert);
        }
    }
}
