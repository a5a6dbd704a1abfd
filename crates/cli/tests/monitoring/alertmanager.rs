//! The example configuration for Alertmanager, checked with amtool.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use poolscope_cli::monitoring::Thresholds;
use poolscope_cli::monitoring::rules::alerts::{Severity, alerts};

use crate::tools::{at, run};

const EXAMPLE: &str = "alerts/alertmanager.yml";

#[test]
fn amtool_accepts_the_example() {
    let (success, output) = run(Command::new("amtool").arg("check-config").arg(at(EXAMPLE)));
    assert!(success && output.contains("SUCCESS"), "{output}");
}

#[test]
fn severities_route_to_their_receivers() {
    for (severity, receiver) in [(Severity::Critical, "page"), (Severity::Warning, "ticket")] {
        let mut command = Command::new("amtool");
        command.args(["config", "routes", "test", "--verify.receivers", receiver, "--config.file"]).arg(at(EXAMPLE));
        command.args(["alertname=PoolscopePoolExhausted", &format!("severity={}", severity.as_str())]);
        let (success, output) = run(&mut command);
        assert!(success, "{severity:?}: {output}");
    }
}

#[test]
fn inhibited_alerts_are_related_to_their_source() {
    let alerts = alerts(&Thresholds::committed().expect("thresholds"));
    let example = fs::read_to_string(at(EXAMPLE)).expect(EXAMPLE);
    let named = |line: &str| -> BTreeSet<String> {
        let words = line.split(|c: char| !c.is_alphanumeric());
        words.filter(|word| word.starts_with("Poolscope") && *word != "Poolscope").map(str::to_owned).collect()
    };
    let mut sources = BTreeSet::new();
    for line in example.lines().map(str::trim) {
        if line.starts_with("- source_matchers") {
            sources = named(line);
        } else if line.starts_with("target_matchers") && !line.contains("Poolscope.+") {
            for target in named(line) {
                let [source] = &sources.iter().collect::<Vec<_>>()[..] else { panic!("{line}") };
                let source = alerts.iter().find(|alert| alert.name == **source).expect("an alert");
                assert!(source.related().contains(&&*target), "{} does not list {target} as related", source.name);
            }
        }
        for name in named(line) {
            assert!(alerts.iter().any(|alert| alert.name == name), "unknown alert {name}");
        }
    }
}
