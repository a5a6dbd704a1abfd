//! The runbooks: their structure, and the names in them.

use std::fs;

use poolscope::config::settings;
use poolscope_cli::demo::Scenario;
use poolscope_cli::monitoring::Thresholds;
use poolscope_cli::monitoring::rules::alerts::alerts;

use crate::rules::known_series;
use crate::tools::files;

const SECTIONS: [&str; 4] = ["## Meaning", "## Impact", "## Diagnosis", "## Mitigation"];

/// Returns the text of each runbook with the name of its alert.
fn runbooks() -> Vec<(String, String)> {
    let read = |path: std::path::PathBuf| {
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        (name, fs::read_to_string(path).expect("a runbook"))
    };
    files("docs/runbooks", ".md").into_iter().map(read).collect()
}

/// Returns the words of a text with this beginning.
fn words<'a>(text: &'a str, beginning: &'a str) -> impl Iterator<Item = &'a str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).filter(move |word| word.starts_with(beginning))
}

/// Returns the code blocks in a language, without indentation.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let begin = format!("```{language}\n");
    let rest = text.split(&begin).skip(1).filter_map(|rest| rest.split_once("```"));
    rest.map(|(block, _)| {
        let indent = block.len() - block.trim_start().len();
        block.lines().map(|line| line.get(indent..).unwrap_or_default()).collect::<Vec<_>>().join("\n")
    })
    .collect()
}

/// The addresses in notifications lead to modules of the library's documentation.
#[test]
fn published_documentation_has_each_runbook() {
    let source = fs::read_to_string(crate::tools::at("src/runbooks.rs")).expect("the module");
    let (_, list) = source.split_once("runbooks![").expect("a list");
    let published: Vec<_> = words(list, "Poolscope").collect();
    let names: Vec<_> = runbooks().into_iter().map(|(name, _)| name).collect();
    assert_eq!(published, names);
    let links = poolscope_cli::monitoring::rules::Links::default();
    for alert in alerts(&Thresholds::committed().expect("thresholds")) {
        let annotations = poolscope_cli::monitoring::rules::annotations(&alert, &links);
        let url = format!("https://docs.rs/poolscope/latest/poolscope/runbooks/{}/index.html", alert.name);
        assert!(annotations.contains(&("runbook_url", url)), "{annotations:?}");
    }
}

#[test]
fn runbooks_have_all_sections() {
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
            assert!(part.len() > section.len() + 40, "{name}: {section} is too short");
        }
        let diagnosis = text.split(SECTIONS[2]).nth(1).expect("a diagnosis");
        assert!(!blocks(diagnosis, "promql").is_empty(), "{name} has no query");
        assert!(text.lines().all(|line| line.chars().count() <= 450), "{name}");
    }
}

#[test]
fn runbook_queries_use_known_series() {
    let known = known_series();
    let mut queries = 0;
    for (name, text) in runbooks() {
        for block in blocks(&text, "promql") {
            // A block is a single query, or one query per line.
            let single = known.check_selectors(&block);
            let lines = || block.lines().try_for_each(|line| known.check_selectors(line));
            single.or_else(|_| lines()).unwrap_or_else(|problem| panic!("{name}: {problem}"));
            queries += block.lines().count();
        }
    }
    assert!(queries > 100, "{queries}");
}

#[test]
fn runbooks_name_known_alerts_and_settings() {
    let alerts = alerts(&Thresholds::committed().expect("thresholds"));
    let variables: Vec<_> = settings().map(|setting| setting.environment_variable()).collect();
    for (name, text) in runbooks() {
        for alert in words(&text, "Poolscope") {
            assert!(alerts.iter().any(|known| known.name == alert), "{name}: unknown alert {alert}");
        }
        for variable in words(&text, "POOLSCOPE_") {
            assert!(variables.iter().any(|known| known == variable), "{name}: unknown variable {variable}");
        }
    }
}

#[test]
fn runbooks_list_all_alerts_of_their_scenario() {
    let alerts = alerts(&Thresholds::committed().expect("thresholds"));
    for expected in Scenario::all().iter().filter_map(Scenario::expected_alerts) {
        let alert = alerts.iter().find(|alert| alert.name == expected.alert).expect(expected.alert);
        for name in expected.also.concat().iter().chain(expected.possible) {
            assert!(alert.related().contains(name), "{} does not list {name} as related", expected.alert);
        }
    }
}
