//! The example for Alertmanager, as Alertmanager's own tool sees it.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use poolscope_cli::monitoring::Thresholds;
use poolscope_cli::monitoring::rules::alerts::{Severity, alerts};

use crate::tools::{at, run};

const EXAMPLE: &str = "alerts/alertmanager.yml";

#[test]
fn amtool_takes_the_example() {
    let (good, said) = run(Command::new("amtool").arg("check-config").arg(at(EXAMPLE)));
    assert!(good && said.contains("SUCCESS"), "{said}");
}

#[test]
fn each_alert_reaches_who_is_to_be_told() {
    for (severity, receiver) in [(Severity::Critical, "page"), (Severity::Warning, "ticket")] {
        let mut command = Command::new("amtool");
        command.args(["config", "routes", "test", "--verify.receivers", receiver, "--config.file"]).arg(at(EXAMPLE));
        command.args(["alertname=PoolscopePoolExhausted", &format!("severity={}", severity.as_str())]);
        let (good, said) = run(&mut command);
        assert!(good, "{severity:?}: {said}");
    }
}

#[test]
fn what_is_muted_is_an_alert_and_comes_with_the_one_that_mutes_it() {
    let alerts = alerts(&Thresholds::committed().expect("thresholds"));
    let example = fs::read_to_string(at(EXAMPLE)).expect(EXAMPLE);
    let named = |line: &str| -> BTreeSet<String> {
        let words = line.split(|c: char| !c.is_alphanumeric());
        words.filter(|word| word.starts_with("Poolscope") && *word != "Poolscope").map(str::to_owned).collect()
    };
    let mut muting = BTreeSet::new();
    for line in example.lines().map(str::trim) {
        if line.starts_with("- source_matchers") {
            muting = named(line);
        } else if line.starts_with("target_matchers") && !line.contains("Poolscope.+") {
            for muted in named(line) {
                let [source] = &muting.iter().collect::<Vec<_>>()[..] else { panic!("{line}") };
                let source = alerts.iter().find(|alert| alert.name == **source).expect("an alert");
                assert!(source.comes_with().contains(&&*muted), "{} does not say that it brings {muted}", source.name);
            }
        }
        for name in named(line) {
            assert!(alerts.iter().any(|alert| alert.name == name), "there is no {name}");
        }
    }
}
