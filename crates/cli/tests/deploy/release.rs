//! What is published, and what a change has to pass.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

use crate::tools::{at, content, document, everywhere, members, schema, text, texts};

const WORKFLOW: &str = ".github/workflows/ci.yml";

#[test]
fn the_package_has_what_it_needs_and_nothing_else() {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["package", "--list", "--allow-dirty", "--offline", "--package", "poolscope"]).current_dir(at(""));
    let output = cargo.output().unwrap();
    let (list, said) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8_lossy(&output.stderr).into_owned());
    assert!(output.status.success() && !said.contains("warning"), "{said}");
    let tops: BTreeSet<_> = list.lines().map(|line| line.split('/').next().unwrap()).collect();
    let wanted: BTreeSet<_> = [
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
        "alerts",
        "benches",
        "dashboards",
        "docs",
        "examples",
        "src",
        "tests",
    ]
    .into();
    let unwanted: Vec<_> = tops.difference(&wanted).collect();
    assert!(unwanted.is_empty(), "{unwanted:?}");
    for needed in ["alerts/thresholds.toml", "docs/runbooks/PoolscopePoolExhausted.md", "docs/traces.md", "README.md"] {
        assert!(list.lines().any(|line| line == needed), "{needed}");
    }
    assert!(!list.contains("crates/"), "they are packages of their own");
}

#[test]
fn the_workflow_is_one_and_runs_what_a_contributor_runs() {
    schema("vendor.github-workflows", WORKFLOW);
    let workflow = document(WORKFLOW);
    let makefile = text("Makefile");
    let mut steps = Vec::new();
    everywhere("run", &workflow, &mut steps);
    let mut targets = BTreeSet::new();
    for step in steps.iter().filter_map(|step| step.as_str()) {
        for line in step.lines().filter_map(|line| line.trim().strip_prefix("make ")) {
            let target = line.split(' ').next().unwrap();
            assert!(makefile.contains(&format!("\n{target}: ")), "make {target}");
            targets.insert(target);
        }
    }
    assert_eq!(targets.into_iter().collect::<Vec<_>>(), ["lint", "msrv", "package", "semver", "test"]);
    let mut uses = Vec::new();
    everywhere("uses", &workflow, &mut uses);
    for action in uses.iter().filter_map(|action| action.as_str()) {
        let version = action.split_once("@v").unwrap_or_else(|| panic!("{action}")).1;
        assert!(version.split('.').filter(|number| number.parse::<u32>().is_ok()).count() == 3, "{action}");
    }
    assert_eq!(workflow["permissions"]["contents"], "read");
}

#[test]
fn the_documentation_is_built_with_every_feature_that_adds_to_it() {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["metadata", "--no-deps", "--format-version=1", "--offline"]).current_dir(at(""));
    let metadata: Value = serde_json::from_str(&content(&mut cargo)).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let package = packages.iter().find(|package| package["name"] == "poolscope").unwrap();
    let features = &package["features"];
    let mut built = texts(&package["metadata"]["docs"]["rs"]["features"]);
    let mut next = 0;
    while let Some(name) = built.get(next) {
        // What is no feature of ours is one of a dependency's.
        built.extend(texts(&features[*name]));
        next += 1;
    }
    // A dependency that nobody names but by `dep:` has no feature.
    let missing: Vec<_> = members(features).map(|(name, _)| name).filter(|name| !built.contains(name)).collect();
    // A list of those above.
    assert_eq!(missing, ["default"]);
}

#[test]
fn the_oldest_compiler_is_the_same_wherever_it_is_named() {
    let msrv = env!("CARGO_PKG_RUST_VERSION");
    for path in ["CONTRIBUTING.md", "scripts/setup"] {
        assert!(text(path).contains(&format!("Rust {msrv} or later")), "{path}");
    }
    assert!(text("Makefile").contains(&format!("MSRV := {msrv}\n")));
}
