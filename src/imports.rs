//! Checks that the modules of this package import each other only in the directions that ARCHITECTURE.md states.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Each top-level module, and the modules that it may name.
const ALLOWED: &[(&str, &[&str])] = &[
    ("labels", &[]),
    ("files", &[]),
    ("suggest", &[]),
    ("text", &[]),
    ("config", &["files", "suggest", "text"]),
    ("error", &["labels", "telemetry", "text"]),
    ("telemetry", &["labels", "text"]),
    ("diagnosis", &["labels", "telemetry", "text"]),
    ("net", &["config", "files", "labels", "telemetry", "text"]),
    ("wire", &["config", "labels", "telemetry", "text"]),
    ("pool", &["config", "diagnosis", "error", "files", "labels", "net", "telemetry", "text", "wire"]),
    ("redis", &["config", "pool", "retry"]),
    ("proxy", &["config", "diagnosis", "files", "labels", "net", "telemetry", "text", "wire"]),
    ("retry", &["error", "labels", "telemetry", "pool"]),
    ("cache", &["error", "labels", "pool", "redis", "telemetry"]),
    ("global", &["config", "error", "labels", "telemetry", "pool", "retry", "text"]),
    ("query_error", &["pool", "retry", "global", "text"]),
    ("middleware", &["error", "labels", "telemetry", "pool"]),
    ("exporter", &["diagnosis", "files", "labels", "suggest", "telemetry", "text"]),
    ("otlp", &["files", "telemetry", "text"]),
];

/// Returns the sources of a top-level module, with the number of `super::` that leads from each to the crate's root.
fn sources(module: &Path, depth: usize) -> Vec<(PathBuf, usize)> {
    let file = module.with_extension("rs");
    let mut found: Vec<_> = if file.is_file() { vec![(file, depth)] } else { Vec::new() };
    for entry in fs::read_dir(module).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path, depth + 1).into_iter().filter(|(file, _)| file.starts_with(&path)));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let own = path.file_name().is_some_and(|name| name == "mod.rs");
            found.push((path, if own { depth } else { depth + 1 }));
        }
    }
    found
}

/// Whether a file holds tests only, which may import everything.
fn is_test(path: &Path) -> bool {
    let path = path.to_string_lossy();
    path.contains("/tests/") || path.contains("_tests") || path.ends_with("/tests.rs")
}

/// Returns the first segment of every path that begins at the crate's root, in groups too.
fn named(source: &str, depth: usize) -> BTreeSet<String> {
    let source = source.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let code: String = source.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let root = "super::".repeat(depth);
    let mut names = BTreeSet::new();
    for prefix in ["crate::", &root] {
        for (at, _) in code.match_indices(prefix) {
            let before = code[..at].chars().next_back();
            if before.is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != ':') {
                names.extend(first_segments(&code[at + prefix.len()..]));
            }
        }
    }
    names
}

/// Returns the first segment of what follows `crate::`, or of each path in a group.
fn first_segments(rest: &str) -> Vec<String> {
    let segment = |path: &str| path.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let Some(group) = rest.strip_prefix('{') else { return vec![segment(rest)] };
    let (mut depth, mut items) = (1, vec![String::new()]);
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => items.push(String::new()),
            c if depth == 1 => items.last_mut().unwrap().push(c),
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    items.iter().map(|item| segment(item)).filter(|name| !name.is_empty()).collect()
}

/// Returns the module that each name re-exported at the crate's root comes from.
fn reexports(lib: &str) -> BTreeMap<String, String> {
    let mut from = BTreeMap::new();
    for statement in lib.split("pub use ").skip(1) {
        let path = statement.split(';').next().unwrap_or_default();
        let module = path.split("::").next().unwrap_or_default().to_owned();
        let last = path.rsplit_once("::").map_or("", |(_, last)| last).trim_matches(['{', '}']);
        for name in last.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            let name = name.rsplit(" as ").next().unwrap_or(name);
            from.insert(name.to_owned(), module.clone());
        }
    }
    from
}

#[test]
fn follow_the_permitted_directions() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let reexports = reexports(&fs::read_to_string(root.join("lib.rs")).unwrap());
    let modules: BTreeSet<_> = ALLOWED.iter().map(|(module, _)| *module).collect();
    for (module, allowed) in ALLOWED {
        let sources = sources(&root.join(module), 1);
        assert!(!sources.is_empty(), "{module}");
        for (path, depth) in sources.into_iter().filter(|(path, _)| !is_test(path)) {
            for name in named(&fs::read_to_string(&path).unwrap(), depth) {
                let target = reexports.get(&name).map_or(&*name, String::as_str);
                let allowed = target == *module || allowed.contains(&target) || !modules.contains(target);
                assert!(allowed, "{} names {name} of {target}, which {module} must not import", path.display());
            }
        }
    }
}

#[test]
fn are_found_in_groups_and_behind_reexports() {
    let names = |source: &str| named(source, 2).into_iter().collect::<Vec<_>>();
    assert_eq!(names("use crate::{pool::{Guard, a::B}, telemetry};"), ["pool", "telemetry"]);
    assert_eq!(
        names("use crate::{\n    Pool,\n    config::Settings,\n};\nfn f(_: crate::retry::Policy) {}"),
        ["Pool", "config", "retry"]
    );
    assert_eq!(names("use super::super::exporter::Format;\nuse super::guard::Guard;"), ["exporter"]);
    let reexports = reexports("pub use pool::postgres::{Client, Pool};\npub use retry::Policy as RetryPolicy;");
    assert_eq!(reexports["Pool"], "pool");
    assert_eq!(reexports["RetryPolicy"], "retry");
}
