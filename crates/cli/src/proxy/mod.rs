//! The transparent proxy: its configuration, and how it is run with an exporter.

mod config;
mod error;
mod keys;
#[cfg(test)]
mod reference;
mod run;

pub(crate) use self::config::{Flags, settings};
pub(crate) use self::keys::KEYS;
pub(crate) use self::run::ProxyCommand;

/// The service name in traces, unless the environment sets another.
pub(crate) const SERVICE_NAME: &str = "poolscope-proxy";
