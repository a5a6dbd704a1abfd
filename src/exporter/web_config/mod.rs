//! The exporter's web configuration: TLS, users and response headers, from a file in the format of Prometheus' own
//! exporters.
//!
//! `docs/web-config.md` lists the keys, their defaults, and what is not supported.

mod auth;
mod client_auth;
mod config;
mod error;
mod files;
mod headers;
mod hosts;
mod pem;
mod reload;
mod section;
mod tls;
mod users;
mod yaml;

pub(super) use self::auth::Auth;
pub use self::config::WebConfig;
#[cfg(fuzzing)]
pub(crate) use self::config::fuzz;
pub use self::error::WebConfigError;
pub(super) use self::reload::LiveConfig;
