//! What leaves the process by default.
//!
//! The events of dependencies may contain anything: tokio-postgres logs each statement with its literals, and notices of the
//! server. Spans are kept, except those of the crates that export, and of database drivers. Of events, only those of
//! poolscope and of the service's own source are kept.

use std::path::{Component, Path};

use tracing::Metadata;

/// The crates that export, and those that they use. Exporting their spans would create further ones.
const EXPORTING_CRATES: [&str; 8] = ["h2", "hyper", "hyper_util", "opentelemetry", "rustls", "tokio", "tonic", "tower"];

/// The names, or their parts before a `_`, of crates that execute statements, whose spans may contain them.
const DRIVERS: [&str; 23] = [
    "bb8",
    "clickhouse",
    "cornucopia",
    "deadpool",
    "diesel",
    "fred",
    "libpq",
    "mobc",
    "mongodb",
    "mysql",
    "oracle",
    "pgwire",
    "postgres",
    "quaint",
    "r2d2",
    "redis",
    "refinery",
    "rusqlite",
    "sea_orm",
    "sea_query",
    "sqlx",
    "tiberius",
    "tokio_postgres",
];

/// Returns whether spans and events with this metadata are exported.
pub(super) fn exports(metadata: &Metadata<'_>) -> bool {
    let target = crate_of(metadata.target());
    if target == "poolscope" {
        return true;
    }
    if is_exporting(target) {
        return false;
    }
    is_of_service(target, metadata.module_path(), metadata.file()) || (metadata.is_span() && !is_driver(target))
}

fn is_driver(target: &str) -> bool {
    DRIVERS
        .iter()
        .any(|driver| target.strip_prefix(driver).is_some_and(|rest| rest.is_empty() || rest.starts_with('_')))
}

/// Returns the crate that a target or a module path begins with.
fn crate_of(path: &str) -> &str {
    path.split("::").next().unwrap_or_default()
}

fn is_exporting(target: &str) -> bool {
    EXPORTING_CRATES.contains(&target) || target.starts_with("opentelemetry")
}

/// Returns whether a span or an event is one of the service's own source: its target is that of its module, and its file is one of the
/// workspace that was compiled. Cargo names such files by relative paths, and those of dependencies by absolute ones, unless
/// the dependencies are in a folder of the workspace, or the paths were changed.
fn is_of_service(target: &str, module: Option<&str>, file: Option<&str>) -> bool {
    let (Some(module), Some(file)) = (module, file) else { return false };
    let path = Path::new(file);
    target == crate_of(module) && path.is_relative() && !path.components().any(is_of_dependency)
}

/// Returns whether part of a path belongs to a dependency: a folder for them, or a name with a version.
fn is_of_dependency(component: Component<'_>) -> bool {
    let Component::Normal(name) = component else { return false };
    let name = name.to_string_lossy();
    let has_version =
        name.rsplit_once('-').is_some_and(|(_, version)| version.starts_with(|c: char| c.is_ascii_digit()));
    has_version || ["vendor", "third_party", "external", ".cargo"].contains(&&*name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_events_of_the_workspace_are_the_services() {
        let is_own = |target, file| is_of_service(crate_of(target), Some("shop::orders"), Some(file));
        for file in ["src/orders.rs", "crates/shop/src/orders.rs", "../shop/src/orders.rs"] {
            assert!(is_own("shop::orders", file), "{file}");
            assert!(!is_own("driver::query", file), "the target names another crate");
        }
        for file in [
            "/root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/shop-1.2.0/src/orders.rs",
            "/root/.cargo/git/checkouts/shop-12ab/34cd/src/orders.rs",
            "shop-1.2.0/src/orders.rs",
            "vendor/shop/src/orders.rs",
            "external/crates/shop/src/orders.rs",
        ] {
            assert!(!is_own("shop::orders", file), "{file}");
        }
        assert!(!is_of_service("shop", Some("shop"), None) && !is_of_service("shop", None, Some("src/orders.rs")));
    }

    #[test]
    fn drivers_are_known_by_their_names() {
        assert!(DRIVERS.is_sorted());
        for driver in ["tokio_postgres", "deadpool", "deadpool_postgres", "sqlx", "sqlx_core", "postgres_protocol"] {
            assert!(is_driver(driver), "{driver}");
        }
        for other in ["shop", "tower_http", "postgresql", "fredrika"] {
            assert!(!is_driver(other), "{other}");
        }
    }
}
