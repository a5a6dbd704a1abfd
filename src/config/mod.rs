//! The pool's settings, and the sources they are read from.
//!
//! A setting can be given in code, as an environment variable, in TOML and in the query of the database URL. All four use
//! one table of names, ranges, defaults and descriptions ([`settings`]), so that every source accepts the same values and
//! reports the same errors. `docs/settings.md` is generated from that table.
//!
//! An invalid value is always an error, and so is an unknown name: a typing error such as `POOLSCOPE_POOL_SIZ` must not
//! result in a pool of the default size in production.
//!
//! ```
//! # fn main() -> Result<(), poolscope::config::ConfigError> {
//! use poolscope::Settings;
//!
//! let settings = Settings::from_toml(r#"
//!     database_url = "postgres://app:secret@db.example/shop?pool_size=5"
//!     checkout_timeout = "2s"
//! "#)?
//! .apply_env([("POOLSCOPE_MAX_OVERFLOW".to_owned(), "0".to_owned())])?;
//!
//! assert_eq!((settings.pool_size, settings.max_overflow), (5, 0));
//! assert!(!format!("{settings:?}").contains("secret"));
//! # Ok(())
//! # }
//! ```

// serde, figment and the crate config were evaluated: their errors quote the line of TOML, which may contain the password,
// and name neither the accepted range nor a similar name.
//
// Imports run one way: location <- error, value <- table, tls <- url <- assignment <- env, toml <- settings.
mod assignment;
mod authentication;
mod env;
mod error;
mod file;
mod location;
#[cfg(feature = "redis")]
mod redis_url;
#[cfg(test)]
mod reference;
mod settings;
mod table;
#[cfg(test)]
mod tests;
mod tls;
mod toml;
mod url;
mod value;

pub(crate) use self::authentication::{AuthenticationMethod, AuthenticationMethods};
pub use self::env::env_vars;
pub use self::error::ConfigError;
pub use self::file::read_file;
#[cfg(feature = "redis")]
pub(crate) use self::redis_url::RedisAddress;
#[cfg(feature = "redis")]
pub use self::redis_url::RedisUrl;
pub use self::settings::Settings;
pub use self::table::{Setting, settings};
pub use self::tls::{ClientCertificate, Roots, TlsMode, Verify};
pub use self::url::DatabaseUrl;
