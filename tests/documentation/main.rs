//! The code of README.md and docs/, compiled in crates with the dependencies that the text names.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod crates;
mod pages;
mod run;

use std::fs;

use pages::{Page, root};

#[test]
fn no_block_has_hidden_lines() {
    for Page { name, text } in pages::all() {
        for block in pages::blocks(&text).filter(|block| block.language.starts_with("rust")) {
            let hidden = block.code.lines().find(|line| *line == "#" || line.starts_with("# "));
            assert_eq!(hidden, None, "{name}:{}: GitHub shows this line", block.line);
        }
    }
}

#[test]
fn versions_are_those_of_the_manifest() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let version = |name: &str| {
        let of_name = manifest.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(" = "));
        let mut versions = of_name.filter_map(|entry| {
            let version = entry.split_once("version = \"").map(|(_, rest)| rest).or_else(|| entry.strip_prefix('"'));
            version?.split('"').next()
        });
        versions.next().unwrap_or_else(|| panic!("no version of {name}"))
    };
    let expected = [
        ("Rust", [version("rust-version")].to_vec()),
        ("tokio-postgres, deadpool-postgres", [version("tokio-postgres"), version("deadpool-postgres")].to_vec()),
        ("axum, hyper, http", [version("axum"), "1", version("http")].to_vec()),
        ("opentelemetry, tracing-opentelemetry", [version("opentelemetry"), version("tracing-opentelemetry")].to_vec()),
        ("prometheus", [version("prometheus")].to_vec()),
    ];
    for (row, versions) in expected {
        let line = format!("| {row} | {}", versions.join(", "));
        assert!(readme.lines().any(|it| it.starts_with(&line)), "README.md has no row {line}");
    }
    assert!(readme.lines().count() < 250, "README.md is too long");
}
