//! Says what a configuration comes to, and whether its databases can be had.

use tokio::runtime::Builder;

use super::conduct::open;
use super::config::{Config, Database};
use super::error::ServeError;
use crate::chain::Chain;
use crate::service::ServiceError;
use poolscope::config::{Setting, settings as all_settings};
use poolscope::telemetry::ServerView;
use poolscope::{Collector, Pool, Settings};

/// Says of each database what its pool is set to; and, if it is to `connect`, what its server says. Gives the lines to `say` one by
/// one, and answers whether all of it could be had.
///
/// # Errors
///
/// If a setting cannot be used, such as a certificate that cannot be read.
pub fn check(config: &Config, connect: bool, mut say: impl FnMut(&str)) -> Result<bool, ServeError> {
    let pools = open(&config.databases, &Collector::new())?;
    let runtime = Builder::new_current_thread().enable_all().build().map_err(ServiceError::system)?;
    // All at once: each that cannot be had takes its time.
    let views: Vec<_> = pools.iter().filter(|_| connect).map(|pool| runtime.spawn(see(pool.clone()))).collect();
    let mut views = views.into_iter();
    let mut all = true;
    for database in &config.databases {
        say(&database.describe());
        say(&format!("  {}", settings(database)));
        if let Some(view) = views.next() {
            let seen = runtime.block_on(view).map_err(ServiceError::system)?;
            all &= seen.is_ok();
            say(&format!("  {}", seen.unwrap_or_else(|why| why)));
        }
    }
    Ok(all)
}

/// What differs from a pool's usual settings.
fn settings(database: &Database) -> String {
    let usual = Settings::default();
    let names = all_settings().map(Setting::name).filter(|name| !["name", "database_url"].contains(name));
    let differ = names.filter(|name| database.settings.get(name) != usual.get(name));
    let differ: Vec<_> =
        differ.map(|name| format!("{name} {}", database.settings.get(name).unwrap_or_default())).collect();
    differ.join(", ")
}

/// What its server says, or why it says nothing.
async fn see(pool: Pool) -> Result<String, String> {
    let view = pool.server_view().await.map_err(|error| format!("cannot be had: {}", Chain(&error)))?;
    let ServerView { version, role, slots, slots_left, .. } = view;
    Ok(format!("connects: PostgreSQL {version}, {}, {slots_left} of {slots} slots left", role.as_str()))
}
