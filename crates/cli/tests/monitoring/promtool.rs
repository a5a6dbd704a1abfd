//! The rules, checked with promtool.

use std::fs;
use std::process::Command;

use poolscope_cli::monitoring::Thresholds;
use poolscope_cli::monitoring::recording::{recordings, slow_recordings};
use poolscope_cli::monitoring::rules::alerts::alerts;

use crate::tools::{at, files, run};

/// The test cases of each alert.
const CASES: [&str; 6] = [
    "below the threshold",
    "above the threshold, not long enough",
    "firing",
    "resolved",
    "missing series",
    "counter reset",
];

#[test]
fn promtool_accepts_the_rules() {
    let (success, output) = run(Command::new("promtool").args(["check", "rules"]).args(files("alerts", ".rules.yml")));
    assert!(success, "{output}");
    let thresholds = Thresholds::committed().expect("thresholds");
    assert!(output.contains(&format!("SUCCESS: {} rules found", alerts(&thresholds).len())), "{output}");
}

#[test]
fn promtool_accepts_the_printed_rules() {
    let thresholds = Thresholds::committed().expect("thresholds");
    let count = alerts(&thresholds).len() + recordings(&thresholds).len() + slow_recordings(&thresholds).len();
    let directory = tempfile::tempdir().expect("a directory");
    for (flags, runbook, dashboard) in [
        (
            &[][..],
            "http://{{ $labels.instance }}/runbooks/PoolscopeWiresLost",
            "http://localhost:3000/d/poolscope-pool?",
        ),
        (
            &["--runbooks-url", "https://wiki.example/r/", "--grafana-url", "https://g.example"],
            "https://wiki.example/r/PoolscopeWiresLost",
            "https://g.example/d/poolscope-pool?",
        ),
    ] {
        let printed =
            Command::new(env!("CARGO_BIN_EXE_poolscope")).arg("rules").args(flags).output().expect("the binary");
        let text = String::from_utf8(printed.stdout).expect("text");
        assert!(printed.status.success() && printed.stderr.is_empty(), "{text}");
        assert!(text.contains(&format!("runbook_url: '{runbook}'")), "{text}");
        assert!(text.contains(&format!("dashboard_url: '{dashboard}")), "{text}");
        let file = directory.path().join("poolscope.yml");
        fs::write(&file, text).expect("a file");
        let (success, output) = run(Command::new("promtool").args(["check", "rules"]).arg(file));
        assert!(success && output.contains(&format!("SUCCESS: {count} rules found")), "{output}");
    }
}

#[test]
fn rule_tests_pass() {
    let (success, output) = run(Command::new("promtool").args(["test", "rules"]).args(files("alerts/tests", ".yml")));
    assert!(success, "{output}");
}

#[test]
fn each_alert_has_all_test_cases() {
    let names: Vec<_> = alerts(&Thresholds::committed().expect("thresholds")).iter().map(|alert| alert.name).collect();
    assert_eq!(files("alerts/tests", ".yml").len(), names.len());
    for name in names {
        let file = fs::read_to_string(at(&format!("alerts/tests/{name}.yml"))).expect(name);
        let cases: Vec<_> = file.lines().filter_map(|line| line.strip_prefix("  - name: ")).collect();
        let own: Vec<_> = cases.iter().copied().filter(|case| CASES.contains(case)).collect();
        assert_eq!(own, CASES, "{name}");
        let tested: Vec<_> = file.lines().filter_map(|line| line.trim().strip_prefix("alertname: ")).collect();
        assert!(tested.len() == cases.len() && tested.iter().all(|tested| *tested == name), "{name}: {tested:?}");
        // The firing case expects all labels and annotations.
        let firing = file.split("  - name: ").find(|case| case.starts_with(CASES[2])).expect(name);
        for part in ["severity: ", "summary: ", "description: ", "runbook_url: ", "dashboard_url: "] {
            assert!(firing.contains(part), "{name}: {part}");
        }
    }
}
