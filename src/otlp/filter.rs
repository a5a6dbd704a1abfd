//! What leaves the process by default.
//!
//! The events of dependencies may contain anything: tokio-postgres logs each statement with its literals, and notices of the
//! server. Spans are kept, except those of the crates that export, and of database drivers. Of events, only those of
//! poolscope and of the service's own source are kept, which a driver in the service's workspace is not.

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

/// The crates that log statements or their results. Their names are exact, so that a service may be called `redis_shop`.
/// `postgres` is missing: that crate leaves statements to tokio-postgres, and a package's own program or test may be
/// called so.
const LOGGING_DRIVERS: [&str; 51] = [
    "bb8",
    "bb8_postgres",
    "bb8_redis",
    "clickhouse",
    "cornucopia",
    "cornucopia_async",
    "cornucopia_sync",
    "deadpool",
    "deadpool_diesel",
    "deadpool_postgres",
    "deadpool_r2d2",
    "deadpool_redis",
    "deadpool_runtime",
    "deadpool_sqlite",
    "deadpool_sync",
    "diesel",
    "diesel_async",
    "diesel_migrations",
    "fred",
    "libpq",
    "libpq_sys",
    "mobc",
    "mobc_postgres",
    "mongodb",
    "mysql",
    "mysql_async",
    "mysql_common",
    "oracle",
    "pgwire",
    "postgres_native_tls",
    "postgres_openssl",
    "postgres_protocol",
    "postgres_types",
    "quaint",
    "r2d2",
    "r2d2_postgres",
    "redis",
    "refinery",
    "refinery_core",
    "rusqlite",
    "sea_orm",
    "sea_orm_migration",
    "sea_query",
    "sqlx",
    "sqlx_core",
    "sqlx_mysql",
    "sqlx_postgres",
    "sqlx_sqlite",
    "tiberius",
    "tokio_postgres",
    "tokio_postgres_rustls",
];

/// Returns whether spans and events with this metadata are exported.
pub(super) fn exports(metadata: &Metadata<'_>) -> bool {
    exports_from(metadata, metadata.module_path())
}

fn exports_from(metadata: &Metadata<'_>, module: Option<&str>) -> bool {
    let target = crate_of(metadata.target());
    if target == "poolscope" {
        return true;
    }
    // Also in the workspace, where a patched driver may be.
    if is_exporting(target) || LOGGING_DRIVERS.contains(&target) {
        return false;
    }
    is_of_service(target, module, metadata.file()) || (metadata.is_span() && !is_driver(target))
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
        assert!(DRIVERS.is_sorted() && LOGGING_DRIVERS.is_sorted());
        assert!(LOGGING_DRIVERS.iter().all(|driver| is_driver(driver)));
        assert!(DRIVERS.iter().all(|driver| *driver == "postgres" || LOGGING_DRIVERS.contains(driver)));
        for driver in ["tokio_postgres", "deadpool", "deadpool_postgres", "sqlx", "sqlx_core", "postgres_protocol"] {
            assert!(is_driver(driver), "{driver}");
        }
        for other in ["shop", "tower_http", "postgresql", "fredrika"] {
            assert!(!is_driver(other), "{other}");
        }
    }

    /// The file of this test is of the workspace, as that of a patched driver is.
    #[test]
    fn driver_in_the_workspace_exports_nothing() {
        use std::sync::{Arc, Mutex};

        use tracing::span::{Attributes, Id};
        use tracing::{Event, Subscriber};
        use tracing_subscriber::Layer;
        use tracing_subscriber::filter::filter_fn;
        use tracing_subscriber::layer::Context;
        use tracing_subscriber::prelude::*;

        /// Records what passes. A filter is asked for the call sites of other threads too.
        #[derive(Clone, Default)]
        struct Exported(Arc<Mutex<Vec<String>>>);

        impl<S: Subscriber> Layer<S> for Exported {
            fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
                self.0.lock().unwrap().push(crate_of(event.metadata().target()).to_owned());
            }

            fn on_new_span(&self, attributes: &Attributes<'_>, _: &Id, _: Context<'_, S>) {
                self.0.lock().unwrap().push(crate_of(attributes.metadata().target()).to_owned());
            }
        }

        let exported = Exported::default();
        // As if the module were that of the target.
        let filter = filter_fn(|metadata| exports_from(metadata, Some(crate_of(metadata.target()))));
        let layer = exported.clone().with_filter(filter);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            tracing::info!(target: "shop::orders", "an event of the service");
            tracing::info!(target: "redis_shop", "an event of the service");
            tracing::info!(target: "postgres", "an event of a test that is called so");
            tracing::info!(target: "tokio_postgres::query", "preparing query");
            tracing::info!(target: "sqlx_core", "statement");
            drop(tracing::info_span!(target: "deadpool_postgres", "query"));
        });
        assert_eq!(*exported.0.lock().unwrap(), ["shop", "redis_shop", "postgres"]);
    }
}
