//! The standalone exporter: for each database that the configuration names an instrumented pool that is probed, and what the
//! server says of itself.
//!
//! A probe is what a service does: it checks a connection out, asks `SELECT 1` and gives it back. So the pool's own metrics tell
//! how long it takes to be given a connection, to connect, to be answered, and what fails. The server is asked beside that, on
//! a connection of its own ([`Pool::watch_server`](poolscope::Pool::watch_server)).

mod check;
mod conduct;
mod config;
mod document;
mod error;
mod keys;
mod probe;
#[cfg(test)]
mod reference;

pub use self::check::check;
pub use self::conduct::Serve;
pub use self::config::{Config, defaults};
pub use self::document::InvalidEntry;
pub use self::error::ServeError;
pub use self::keys::{KEYS, Key};

/// What it is called in a trace, unless the environment has another name.
pub const SERVICE_NAME: &str = "poolscope";
