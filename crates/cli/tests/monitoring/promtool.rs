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
    let mine = directory.path().join("thresholds.toml");
    fs::write(&mine, "[waiters]\nvalue = 4321\n").expect("a file");
    let mine = mine.to_str().expect("a path");
    for (flags, runbook, parts, absent) in [
        (
            &[][..],
            "https://docs.rs/poolscope/latest/poolscope/runbooks/PoolscopeWiresLost/index.html",
            &["# Alerts have no dashboard_url: `--grafana-url` links", "(0.9 * (100 - 3))"][..],
            &["dashboard_url: '", "localhost"][..],
        ),
        (
            &["--runbooks-url", "https://wiki.example/r/", "--grafana-url", "http://localhost:3000"],
            "https://wiki.example/r/PoolscopeWiresLost",
            &[
                "dashboard_url: 'http://localhost:3000/d/poolscope-pool?",
                "# Placeholder: links to http://localhost:3000 work on that host only.",
                "# Placeholder: https://wiki.example/r/ is an address of documentation.",
            ],
            &[],
        ),
        (
            &["--runbooks-url", "exporter", "--grafana-url", "https://grafana.shop.net/g/"],
            "http://{{ $labels.instance }}/runbooks/PoolscopeWiresLost",
            &["dashboard_url: 'https://grafana.shop.net/g/d/poolscope-pool?"],
            &["Placeholder", "localhost"],
        ),
        (
            &["--thresholds", mine, "--server-connections", "500"],
            "https://docs.rs/poolscope/latest/poolscope/runbooks/PoolscopeWiresLost/index.html",
            &["(0.9 * (500 - 3))", "assumed to have 497 slots", "> 4321"],
            &["100 - 3"],
        ),
    ] {
        let printed =
            Command::new(env!("CARGO_BIN_EXE_poolscope")).arg("rules").args(flags).output().expect("the binary");
        let text = String::from_utf8(printed.stdout).expect("text");
        assert!(printed.status.success() && printed.stderr.is_empty(), "{text}");
        assert!(text.contains(&format!("runbook_url: '{runbook}'")), "{text}");
        for part in parts {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        for part in absent {
            assert!(!text.contains(part), "{part} is in {text}");
        }
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
