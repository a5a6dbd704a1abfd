//! The published package, and the CI workflow.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

use crate::tools::{at, check_schema, collect_values, document, members, run_successfully, text, texts};

const WORKFLOW: &str = ".github/workflows/ci.yml";

#[test]
fn package_contains_only_expected_files() {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["package", "--list", "--allow-dirty", "--offline", "--package", "poolscope"]).current_dir(at(""));
    let output = cargo.output().unwrap();
    let (list, errors) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8_lossy(&output.stderr).into_owned());
    assert!(output.status.success() && !errors.contains("warning"), "{errors}");
    let tops: BTreeSet<_> = list.lines().map(|line| line.split('/').next().unwrap()).collect();
    let expected: BTreeSet<_> = [
        ".cargo_vcs_info.json",
        "ARCHITECTURE.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "Cargo.lock",
        "Cargo.toml",
        "Cargo.toml.orig",
        "LICENSE-APACHE",
        "LICENSE-MIT",
        "README.md",
        "SECURITY.md",
        "alerts",
        "benches",
        "dashboards",
        "docs",
        "examples",
        "src",
        "tests",
    ]
    .into();
    let unexpected: Vec<_> = tops.difference(&expected).collect();
    assert!(unexpected.is_empty(), "{unexpected:?}");
    for needed in ["alerts/thresholds.toml", "docs/runbooks/PoolscopePoolExhausted.md", "docs/traces.md", "README.md"] {
        assert!(list.lines().any(|line| line == needed), "{needed}");
    }
    assert!(!list.contains("crates/"), "the package contains files of other packages");
}

#[test]
fn workflow_is_valid_and_runs_make_targets() {
    check_schema("vendor.github-workflows", WORKFLOW);
    let workflow = document(WORKFLOW);
    let makefile = text("Makefile");
    let mut steps = Vec::new();
    collect_values("run", &workflow, &mut steps);
    let mut targets = BTreeSet::new();
    for step in steps.iter().filter_map(|step| step.as_str()) {
        for line in step.lines().filter_map(|line| line.trim().strip_prefix("make ")) {
            let target = line.split(' ').next().unwrap();
            assert!(makefile.contains(&format!("\n{target}: ")), "make {target}");
            targets.insert(target);
        }
    }
    assert_eq!(targets.into_iter().collect::<Vec<_>>(), ["advisories", "lint", "msrv", "package", "semver", "test"]);
    let mut uses = Vec::new();
    collect_values("uses", &workflow, &mut uses);
    for action in uses.iter().filter_map(|action| action.as_str()) {
        let version = action.split_once("@v").unwrap_or_else(|| panic!("{action}")).1;
        assert!(version.split('.').filter(|number| number.parse::<u32>().is_ok()).count() == 3, "{action}");
    }
    assert_eq!(workflow["permissions"]["contents"], "read");
}

#[test]
fn docs_rs_builds_all_features() {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["metadata", "--no-deps", "--format-version=1", "--offline"]).current_dir(at(""));
    let metadata: Value = serde_json::from_str(&run_successfully(&mut cargo)).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let package = packages.iter().find(|package| package["name"] == "poolscope").unwrap();
    let features = &package["features"];
    let mut built = texts(&package["metadata"]["docs"]["rs"]["features"]);
    let mut next = 0;
    while let Some(name) = built.get(next) {
        // Names that are not features of this package belong to dependencies.
        built.extend(texts(&features[*name]));
        next += 1;
    }
    // A dependency that is named only with `dep:` has no feature.
    let missing: Vec<_> = members(features).map(|(name, _)| name).filter(|name| !built.contains(name)).collect();
    // `default` only lists other features.
    assert_eq!(missing, ["default"]);
}

#[test]
fn documented_msrv_matches_manifest() {
    let msrv = env!("CARGO_PKG_RUST_VERSION");
    for path in ["CONTRIBUTING.md", "scripts/setup"] {
        assert!(text(path).contains(&format!("Rust {msrv} or later")), "{path}");
    }
    assert!(text("Makefile").contains(&format!("MSRV := {msrv}\n")));
}
