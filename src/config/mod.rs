//! The pool's settings: what they are, where they may come from and what they accept.
//!
//! A setting can be given in code, by environment variable, in TOML and in the query of the database URL. All four
//! go through one table, [`SETTINGS`], the only place that knows a setting's name, range, default and meaning, so
//! that the same value is read in the same way everywhere, and refused with the same words. The page
//! `docs/settings.md` is written from it ([`reference()`]).
//!
//! A wrong value is always an error, and so is an unknown name: a slip in `POOLSCOPE_POOL_SIZ` must not end as a
//! pool of the default size in production.
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

mod env;
mod error;
mod reference;
mod table;
#[cfg(test)]
mod tests;
mod tls;
mod toml;
mod url;
mod value;

use std::fmt;
use std::time::Duration;

pub use self::error::{ConfigError, Origin};
#[cfg(feature = "cli")]
pub(crate) use self::error::{masked, may_be_url, quoted};
pub use self::reference::reference;
pub use self::table::{SETTINGS, Setting};
pub use self::tls::{Roots, TlsMode, Verify};
#[cfg(feature = "cli")]
pub(crate) use self::toml::{Entry, apply_entries, entries, parse, text_of, type_of};
pub use self::url::DatabaseUrl;
#[cfg(feature = "cli")]
pub(crate) use self::value::{Kind, Value};

/// How a pool behaves. Every field's default, range and meaning stand in [`SETTINGS`].
///
/// The fields may be set directly; [`Settings::validate`], which the pool calls when it is built, then checks them.
#[derive(Clone)]
#[non_exhaustive]
pub struct Settings {
    /// The pool's name in labels and logs. `None`: the database's `host:port/database`.
    pub name: Option<String>,
    /// Where the database is. Assigning this field leaves the settings in the URL's query aside;
    /// [`Settings::from_url`] and [`Settings::set`] take them over.
    pub database_url: Option<DatabaseUrl>,
    /// The number of connections that are kept when idle, at least 1. Default 10.
    pub pool_size: usize,
    /// The number of connections allowed beyond `pool_size`. Default 20; 0: none.
    pub max_overflow: usize,
    /// The time a checkout may take as a whole, from its first poll. Default 30 s.
    pub checkout_timeout: Duration,
    /// The age at which a connection is replaced, less up to 10 % at random. Default 1 h; `None`: never.
    pub recycle_after: Option<Duration>,
    /// Whether a connection is pinged before it is handed out. Default true.
    pub pre_ping: bool,
    /// A connection seen alive within this time is not pinged. Default 500 ms; zero: ping at every checkout.
    pub pre_ping_idle: Duration,
    /// The time a ping may take. Default 5 s.
    pub ping_timeout: Duration,
    /// The time an attempt to connect may take as a whole, TLS and authentication included. Default 5 s.
    pub connect_timeout: Duration,
    /// The silence after which TCP keepalive probes a connection. Default 30 s; `None`: no keepalive.
    pub tcp_keepalive: Option<Duration>,
    /// The time that sent data may stay unacknowledged. Default 20 s; `None`: the operating system's.
    pub tcp_user_timeout: Option<Duration>,
    /// The name in `pg_stat_activity`. `None`: the URL's, or else "poolscope".
    pub application_name: Option<String>,
    /// The time that cleaning a connection that came back dirty may take. Default 1 s.
    pub clean_timeout: Duration,
    /// Whether what a session was left with is undone when a connection comes back. Default false.
    pub reset_session: bool,
    /// The time a connection is held and silent before it is a suspected leak. Default 60 s; `None`: never.
    pub leak_threshold: Option<Duration>,
    /// Whether the headers of what passes on the wire are read. Default true.
    pub read_wire: bool,
    /// Whether the spans of queries have their text, with its literals replaced. Default false.
    pub trace_query_text: bool,
    /// Whether a checkout that needs a new connection fails at once while connecting is known to fail. Default true.
    pub fail_fast: bool,
    /// The number of retries a second that there may always be. Default 10.
    pub retry_floor: usize,
    /// The number of retries that there may be for each hundred operations. Default 20.
    pub retry_percent: usize,
    /// The mean wait that the recommended size aims at. Default 10 ms.
    pub wait_target: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        let mut settings = Self {
            name: None,
            database_url: None,
            pool_size: 0,
            max_overflow: 0,
            checkout_timeout: Duration::ZERO,
            recycle_after: None,
            pre_ping: false,
            pre_ping_idle: Duration::ZERO,
            ping_timeout: Duration::ZERO,
            connect_timeout: Duration::ZERO,
            tcp_keepalive: None,
            tcp_user_timeout: None,
            application_name: None,
            clean_timeout: Duration::ZERO,
            reset_session: false,
            leak_threshold: None,
            read_wire: false,
            trace_query_text: false,
            fail_fast: false,
            retry_floor: 0,
            retry_percent: 0,
            wait_target: Duration::ZERO,
        };
        for setting in SETTINGS {
            setting.reset(&mut settings);
        }
        settings
    }
}

impl Settings {
    /// The defaults, with the database at `url` and the settings in its query.
    ///
    /// # Errors
    /// When the URL or a value in its query is not valid, or a parameter is not known.
    pub fn from_url(url: &str) -> Result<Self, ConfigError> {
        let url = DatabaseUrl::parse(url, &Origin::URL)?;
        let mut settings = Self::default();
        url.apply_to(&mut settings);
        settings.database_url = Some(url);
        Ok(settings)
    }

    /// The defaults, changed by this process' environment variables: see [`Settings::apply_env`].
    ///
    /// # Errors
    /// As [`Settings::apply_env`]; also when the value of a `POOLSCOPE_` variable is not Unicode.
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::default().apply_env(own_environment()?)
    }

    /// Takes over `POOLSCOPE_POOL_SIZE` and the like: every setting's name in capitals after `POOLSCOPE_`. Other
    /// variables are ignored.
    ///
    /// # Errors
    /// When a value is not valid, and when a variable begins with `POOLSCOPE_` but names no setting. Not counted as
    /// such: `POOLSCOPE_WEB_*`, `POOLSCOPE_SHOP_*`, `POOLSCOPE_LOG*`, `POOLSCOPE_CONFIG_FILE` and `POOLSCOPE_PG_BIN`, which are the binary's own, and what
    /// Kubernetes injects for a Service named `poolscope` (`POOLSCOPE_SERVICE_*`, `POOLSCOPE_PORT`,
    /// `POOLSCOPE_PORT_*`) or `poolscope-…`.
    pub fn apply_env(mut self, vars: impl IntoIterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        env::apply(&mut self, vars)?;
        Ok(self)
    }

    /// The defaults, changed by a TOML text of flat keys with the settings' names.
    ///
    /// # Errors
    /// When the text is not TOML, a key is not known, or a value is of the wrong type or not valid: with line and
    /// column.
    pub fn from_toml(text: &str) -> Result<Self, ConfigError> {
        let mut settings = Self::default();
        toml::apply(&mut settings, text)?;
        Ok(settings)
    }

    /// Sets the setting called `name` from text, as in TOML or the environment.
    ///
    /// # Errors
    /// When no setting has that name, or the value is not valid for it. The settings are then as before.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), ConfigError> {
        let setting = table::find(name, &Origin::CODE)?;
        self.assign(setting, value, &Origin::CODE)
    }

    /// Checks every value, also those assigned to a field, and how they go together.
    ///
    /// # Errors
    /// The first value that is out of range; or a `wait_target` above the `checkout_timeout`, which no checkout
    /// that succeeds could meet.
    pub fn validate(&self) -> Result<(), ConfigError> {
        SETTINGS.iter().try_for_each(|setting| setting.check(self))?;
        if self.wait_target > self.checkout_timeout {
            return Err(ConfigError::Conflict {
                origin: Origin::CODE,
                problem: format!(
                    "wait_target ({}) is above checkout_timeout ({}): give a shorter wait_target",
                    humantime::format_duration(self.wait_target),
                    humantime::format_duration(self.checkout_timeout),
                ),
            });
        }
        Ok(())
    }

    /// The database's URL, or the error that says how to give one.
    pub(crate) fn require_database_url(&self) -> Result<&DatabaseUrl, ConfigError> {
        self.database_url.as_ref().ok_or_else(|| ConfigError::Missing {
            setting: "database_url",
            remedy: "give postgres://user:password@host:5432/database in code, in TOML, \
                         or as POOLSCOPE_DATABASE_URL"
                .to_owned(),
        })
    }

    fn assign(&mut self, setting: &Setting, text: &str, origin: &Origin) -> Result<(), ConfigError> {
        let value = setting.read(text, origin)?;
        setting.assign(self, value);
        Ok(())
    }
}

/// This process' environment variables that begin with `POOLSCOPE_`, for [`Settings::apply_env`].
pub(crate) fn own_environment() -> Result<Vec<(String, String)>, ConfigError> {
    env::own(std::env::vars_os())
}

impl fmt::Debug for Settings {
    /// The settings as text; the database URL without its password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Settings");
        for setting in SETTINGS {
            debug.field(setting.name(), &format_args!("{}", setting.get(self)));
        }
        debug.finish()
    }
}
