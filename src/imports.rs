//! Holds the sources to the directions of import that ARCHITECTURE.md promises.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Each part, and the parts it may name.
const ALLOWED: &[(&str, &[&str])] = &[
    ("labels", &[]),
    ("suggest", &[]),
    ("config", &["suggest"]),
    ("error", &["labels", "telemetry"]),
    ("telemetry", &["labels"]),
    ("pool", &["config", "error", "labels", "telemetry"]),
    ("retry", &["error", "labels", "telemetry", "pool"]),
    ("global", &["config", "error", "labels", "telemetry", "pool", "retry"]),
    ("middleware", &["error", "labels", "telemetry", "pool"]),
    ("exporter", &["suggest", "telemetry"]),
    ("otlp", &["telemetry"]),
    ("monitoring", &["telemetry"]),
    ("service", &["config", "telemetry", "exporter"]),
    ("serve", &["config", "suggest", "error", "telemetry", "pool", "retry", "exporter", "otlp", "service"]),
    (
        "demo",
        &[
            "config",
            "error",
            "labels",
            "telemetry",
            "pool",
            "retry",
            "middleware",
            "exporter",
            "otlp",
            "monitoring",
            "service",
        ],
    ),
];

fn sources(of: &Path) -> Vec<PathBuf> {
    let file = of.with_extension("rs");
    if file.is_file() {
        return vec![file];
    }
    let entries = fs::read_dir(of).unwrap().map(|entry| entry.unwrap().path());
    let (directories, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    let own = files.into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    own.chain(directories.iter().flat_map(|directory| sources(directory))).collect()
}

/// The parts that a source names as `crate::part`.
fn named(source: &str) -> BTreeSet<String> {
    let code = source.lines().filter(|line| !line.trim_start().starts_with("//"));
    code.flat_map(|line| line.split("crate::").skip(1).map(str::to_owned).collect::<Vec<_>>())
        .map(|rest| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect())
        .collect()
}

#[test]
fn imports_run_one_way() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let parts: BTreeSet<_> = ALLOWED.iter().map(|(part, _)| *part).collect();
    for (part, allowed) in ALLOWED {
        for path in sources(&root.join(part)) {
            for name in named(&fs::read_to_string(&path).unwrap()) {
                let fine = name == *part || allowed.contains(&name.as_str()) || !parts.contains(name.as_str());
                assert!(fine, "{} names {name}, which {part} must not", path.display());
            }
        }
    }
}
