//! The standalone exporter. Each database of its configuration has an instrumented pool that is probed, and a view of its
//! server.
//!
//! A probe does what a service does: it checks out a connection, runs `SELECT 1` and returns it. The pool's metrics
//! therefore show how long checkouts, connecting and queries take, and what fails. The server's view is queried on a
//! connection of its own ([`Pool::watch_server`](poolscope::Pool::watch_server)).

mod check;
mod config;
mod error;
mod keys;
mod pool_settings;
mod probe;
#[cfg(test)]
mod reference;
mod run;

pub(crate) use self::check::check;
pub(crate) use self::config::Config;
pub(crate) use self::error::ServeError;
pub(crate) use self::keys::KEYS;
pub(crate) use self::run::Serve;

/// The service name in traces, unless the environment sets another.
pub(crate) const SERVICE_NAME: &str = "poolscope";
