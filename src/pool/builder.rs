//! What the builders of the pools for each server share.

use super::backend::Backend;
use super::pool::Pool;
use crate::config::{ConfigError, Settings};
use crate::telemetry::Collector;
use crate::text::printable;

/// Defines a setter of a builder for each setting.
macro_rules! setters {
    ($($(#[$meta:meta])* $name:ident: $type:ty,)+) => {
        $(
            $(#[$meta])*
            pub fn $name(mut self, $name: $type) -> Self {
                self.settings.$name = $name;
                self
            }
        )+
    };
}
pub(super) use setters;

/// Returns the name that a pool is to have: that of the pool it replaces, or the configured one.
pub(super) fn pool_name<M: Backend>(
    replaced: Option<&Pool<M>>,
    settings: &Settings,
    default: impl FnOnce() -> String,
) -> String {
    let name = match (replaced, &settings.name) {
        (Some(replaced), _) => replaced.name().to_owned(),
        (None, Some(name)) => name.clone(),
        (None, None) => default(),
    };
    printable(&name).into_owned()
}

/// Builds a pool, which may replace another one.
pub(super) fn build<M: Backend>(
    manager: M,
    name: &str,
    replaced: Option<&Pool<M>>,
    settings: &Settings,
    collector: Option<Collector>,
) -> Result<Pool<M>, ConfigError> {
    let collector = collector.unwrap_or_else(Collector::global);
    match replaced {
        Some(replaced) => Pool::new_replacing(manager, replaced, settings, &collector),
        None => Pool::new(manager, name, settings, &collector),
    }
}
