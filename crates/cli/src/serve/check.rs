//! Prints a configuration as it applies, and tests whether its databases are reachable.

use poolscope::config::{Setting, settings as all_settings};
use poolscope::telemetry::ServerView;
use poolscope::{Collector, Pool, Settings};
use tokio::runtime::Builder;

use super::config::{Config, Database};
use super::error::ServeError;
use super::run::build_pools;
use crate::service::ServiceError;
use poolscope::text::ErrorChain;

/// Prints for each database how it is watched and which settings of its pool differ from the defaults; with `connect` also
/// what its server reports. Calls `print` with each line. Returns whether all databases are reachable.
///
/// # Errors
///
/// Returns an error if a setting is unusable, such as a certificate file that cannot be read.
pub(crate) fn check(config: &Config, connect: bool, mut print: impl FnMut(&str)) -> Result<bool, ServeError> {
    let pools = build_pools(&config.databases, &Collector::new())?;
    let runtime = Builder::new_current_thread().enable_all().build().map_err(ServiceError::system)?;
    // Concurrently, because each unreachable database takes until its timeout.
    let results: Vec<_> =
        pools.iter().filter(|_| connect).map(|pool| runtime.spawn(server_summary(pool.clone()))).collect();
    let mut results = results.into_iter();
    let mut all_reachable = true;
    for database in &config.databases {
        print(&database.describe());
        print(&format!("  {}", changed_settings(database)));
        if let Some(result) = results.next() {
            let summary = runtime.block_on(result).map_err(ServiceError::system)?;
            all_reachable &= summary.is_ok();
            print(&format!("  {}", summary.unwrap_or_else(|error| error)));
        }
    }
    Ok(all_reachable)
}

/// Returns the settings that differ from the library's defaults.
fn changed_settings(database: &Database) -> String {
    let defaults = Settings::default();
    let names = all_settings().map(Setting::name).filter(|name| !["name", "database_url"].contains(name));
    let changed = names.filter(|name| database.settings.get(name) != defaults.get(name));
    let changed: Vec<_> =
        changed.map(|name| format!("{name} {}", database.settings.get(name).unwrap_or_default())).collect();
    changed.join(", ")
}

/// Returns the server's version, role and free slots, or why they cannot be queried.
async fn server_summary(pool: Pool) -> Result<String, String> {
    let view = pool.server_view().await.map_err(|error| format!("unreachable: {}", ErrorChain(&error)))?;
    let ServerView { version, role, slots, slots_left, .. } = view;
    Ok(format!("connects: PostgreSQL {version}, {}, {slots_left} of {slots} slots left", role.as_str()))
}
