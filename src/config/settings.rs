//! The settings of a pool, and the application of values from each source.

use std::fmt;
use std::time::Duration;

use super::assignment::Assignment;
use super::env::{self, env_vars};
use super::error::ConfigError;
use super::location::{Location, quoted};
use super::table::{SETTINGS, Setting};
use super::toml;
use super::url::DatabaseUrl;
use super::value::Value;

/// The settings of a pool; [`settings`](super::settings) describes each.
///
/// The fields may be set directly. [`Settings::validate`], which is called when the pool is built, then checks them.
#[derive(Clone)]
#[non_exhaustive]
pub struct Settings {
    /// The pool's name in labels and logs. `None`: the database's `host:port/database`.
    pub name: Option<String>,
    /// The database to connect to. Assigning this field ignores the settings in the URL's query;
    /// [`Settings::from_url`] and [`Settings::set`] apply them.
    pub database_url: Option<DatabaseUrl>,
    /// The file that contains the password, in place of the URL's; read again after it has changed. `None`: no file.
    pub password_file: Option<String>,
    /// The password file in libpq's format, in place of the URL's password; read again after it has changed. `None`: no
    /// file.
    pub passfile: Option<String>,
    /// The number of connections that stay open when idle, at least 1. Default 10.
    pub pool_size: usize,
    /// The number of connections allowed beyond `pool_size`. Default 20; 0: none.
    pub max_overflow: usize,
    /// The number of connections that [`Pool::warm_up`](crate::Pool::warm_up) opens, at most `pool_size`. Default 0.
    pub min_idle: usize,
    /// The time after which an idle connection is closed, as long as more than `min_idle` are idle. Default `None`: idle
    /// connections stay open.
    pub idle_timeout: Option<Duration>,
    /// The time limit of a whole checkout, from its first poll. Default 30 s.
    pub checkout_timeout: Duration,
    /// The age at which a connection is replaced, less up to 10 % at random. Default 1 h; `None`: never.
    pub recycle_after: Option<Duration>,
    /// Whether a connection is pinged before it is handed out. Default true.
    pub pre_ping: bool,
    /// A connection seen alive within this time is not pinged. Default 500 ms; zero: ping at every checkout.
    pub pre_ping_idle: Duration,
    /// The time limit of a ping. Default 5 s.
    pub ping_timeout: Duration,
    /// The time limit of a whole connection attempt, including TLS and authentication. Default 5 s.
    pub connect_timeout: Duration,
    /// The time without traffic after which TCP keepalive probes a connection. Default 30 s; `None`: no keepalive.
    pub tcp_keepalive: Option<Duration>,
    /// How long sent data may stay unacknowledged. Default 20 s; `None`: the operating system's default.
    pub tcp_user_timeout: Option<Duration>,
    /// The name in `pg_stat_activity`. `None`: the URL's, or else the program's name.
    pub application_name: Option<String>,
    /// The time limit of resetting a connection that was returned dirty. Default 1 s.
    pub clean_timeout: Duration,
    /// How long a connection keeps its place after it was closed while the server executed its query. Default 30 s.
    pub close_timeout: Duration,
    /// Whether session state is reset when a connection is returned. Default false.
    pub reset_session: bool,
    /// The time a connection is held without traffic before it is a suspected leak. Default 60 s; `None`: never.
    pub leak_threshold: Option<Duration>,
    /// The duration from which on a successful checkout is logged. Default 2 s; `None`: never.
    pub slow_checkout_threshold: Option<Duration>,
    /// The duration from which on a query is logged by its summary. Default `None`: never.
    pub slow_query_threshold: Option<Duration>,
    /// Whether the pool reads the headers of protocol messages. Default true.
    pub read_wire: bool,
    /// The limit of one answer of the server, in KiB. Default 0: no limit.
    pub max_answer_kib: usize,
    /// Whether `prepare_cached` keeps statements. Default true.
    pub cache_statements: bool,
    /// Whether query spans have the query's text, with its literals replaced. Default false.
    pub trace_query_text: bool,
    /// Whether a checkout that needs a new connection fails at once while connection attempts are failing. Default
    /// true.
    pub fail_fast: bool,
    /// The number of retries per second that are always allowed. Default 10.
    pub retry_floor: usize,
    /// The number of additional retries for each hundred operations. Default 20.
    pub retry_percent: usize,
    /// The wait that 99 % of checkouts are to stay below with the recommended size. Default 10 ms.
    pub wait_target: Duration,
}

/// Gives access by name to every field but the URL.
macro_rules! fields_by_name {
    ($($field:ident: $variant:ident),+ $(,)?) => {
        impl Settings {
            /// Returns the value of a setting; `None` for the URL.
            fn value(&self, setting: &Setting) -> Option<Value> {
                match setting.name() {
                    $(stringify!($field) => Some(Value::$variant(self.$field.clone())),)+
                    _ => None,
                }
            }

            fn assign(&mut self, setting: &Setting, value: Value) {
                match (setting.name(), value) {
                    $((stringify!($field), Value::$variant(value)) => self.$field = value,)+
                    _ => {}
                }
            }
        }
    };
}

fields_by_name! {
    name: Text,
    password_file: Text,
    passfile: Text,
    pool_size: Count,
    max_overflow: Count,
    min_idle: Count,
    idle_timeout: OptionalDuration,
    checkout_timeout: Duration,
    recycle_after: OptionalDuration,
    pre_ping: Switch,
    pre_ping_idle: Duration,
    ping_timeout: Duration,
    connect_timeout: Duration,
    tcp_keepalive: OptionalDuration,
    tcp_user_timeout: OptionalDuration,
    application_name: Text,
    clean_timeout: Duration,
    close_timeout: Duration,
    reset_session: Switch,
    leak_threshold: OptionalDuration,
    slow_checkout_threshold: OptionalDuration,
    slow_query_threshold: OptionalDuration,
    read_wire: Switch,
    max_answer_kib: Count,
    cache_statements: Switch,
    trace_query_text: Switch,
    fail_fast: Switch,
    retry_floor: Count,
    retry_percent: Count,
    wait_target: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        let mut settings = Self {
            name: None,
            database_url: None,
            password_file: None,
            passfile: None,
            pool_size: 0,
            max_overflow: 0,
            min_idle: 0,
            idle_timeout: None,
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
            close_timeout: Duration::ZERO,
            reset_session: false,
            leak_threshold: None,
            slow_checkout_threshold: None,
            slow_query_threshold: None,
            read_wire: false,
            max_answer_kib: 0,
            cache_statements: false,
            trace_query_text: false,
            fail_fast: false,
            retry_floor: 0,
            retry_percent: 0,
            wait_target: Duration::ZERO,
        };
        for setting in SETTINGS {
            settings.assign(setting, setting.default_value().clone());
        }
        settings
    }
}

impl Settings {
    /// Returns the defaults with the database at `url` and the settings in its query.
    ///
    /// # Errors
    ///
    /// Returns an error if the URL or a value in its query is invalid, or a parameter is unknown.
    pub fn from_url(url: &str) -> Result<Self, ConfigError> {
        let url = DatabaseUrl::parse(url, &Location::URL)?;
        Ok(Self::default().apply_url(url))
    }

    /// Applies the settings in the query of a URL.
    pub(crate) fn apply_url(self, url: DatabaseUrl) -> Self {
        self.apply(vec![Assignment::Url(url)])
    }

    /// Returns the defaults, changed by this process's environment variables; see [`Settings::apply_env`].
    ///
    /// # Errors
    ///
    /// Returns the errors of [`Settings::apply_env`], and an error if the value of a `POOLSCOPE_` variable is not
    /// Unicode.
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::default().apply_env(env_vars()?)
    }

    /// Applies the environment variables of settings: the setting's name in capitals after `POOLSCOPE_`, such as
    /// `POOLSCOPE_POOL_SIZE`. Other variables are ignored.
    ///
    /// # Errors
    ///
    /// Returns an error if a value is invalid, or a variable begins with `POOLSCOPE_` and names no setting. Exempt are
    /// the variables of the `poolscope` binary (`POOLSCOPE_WEB_*`, `POOLSCOPE_SHOP_*`, `POOLSCOPE_LOG*`,
    /// `POOLSCOPE_TRACES_*`, `POOLSCOPE_RECORD_*`, `POOLSCOPE_CONFIG_FILE`, `POOLSCOPE_PG_BIN`, `POOLSCOPE_PYTHON`,
    /// `POOLSCOPE_REDIS_SERVER`), and those that Kubernetes sets for a Service named `poolscope`
    /// (`POOLSCOPE_SERVICE_*`, `POOLSCOPE_PORT`, `POOLSCOPE_PORT_*`) or `poolscope-…`.
    pub fn apply_env(self, vars: impl IntoIterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        Ok(self.apply(env::read(vars)?))
    }

    /// Returns the defaults, changed by a TOML text; see [`Settings::apply_toml`].
    ///
    /// # Errors
    ///
    /// Returns the errors of [`Settings::apply_toml`].
    pub fn from_toml(text: &str) -> Result<Self, ConfigError> {
        Self::default().apply_toml(text)
    }

    /// Applies the settings in a TOML text: flat keys with the names of the settings.
    ///
    /// # Errors
    ///
    /// Returns an error, with line and column, if the text is not TOML, a key is unknown, or a value has the wrong type
    /// or is invalid.
    pub fn apply_toml(self, text: &str) -> Result<Self, ConfigError> {
        Ok(self.apply(toml::read(text)?))
    }

    /// Sets the setting called `name` from text, as in TOML or the environment.
    ///
    /// # Errors
    ///
    /// Returns an error if no setting has that name or the value is invalid. The settings are then unchanged.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), ConfigError> {
        let setting = Setting::require(name, &Location::CODE)?;
        self.apply_one(Assignment::parse(setting, value, &Location::CODE)?);
        Ok(())
    }

    /// Returns the value of the setting called `name` as text: empty if it has none, and a URL without its password.
    /// `None` if no setting has that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<String> {
        Setting::find(name).map(|setting| self.text(setting))
    }

    /// Checks every value, and the values against each other.
    ///
    /// # Errors
    ///
    /// Returns an error for the first value that is out of range; if `min_idle` is above `pool_size`; if `wait_target` is
    /// above `checkout_timeout`, which no successful checkout could meet; or if `cache_statements` and `read_wire` are both
    /// off.
    pub fn validate(&self) -> Result<(), ConfigError> {
        for setting in SETTINGS {
            if let Some(value) = self.value(setting).filter(|value| !setting.kind().accepts(value)) {
                return Err(setting.invalid(quoted(&value.to_string()), &Location::CODE));
            }
        }
        if self.min_idle > self.pool_size {
            let problem = format!(
                "min_idle ({}) is above pool_size ({}): give a smaller min_idle, since idle connections beyond pool_size are closed",
                self.min_idle, self.pool_size
            );
            return Err(ConfigError::conflict(&Location::CODE, problem));
        }
        if self.wait_target > self.checkout_timeout {
            let problem = format!(
                "wait_target ({}) is above checkout_timeout ({}): give a shorter wait_target",
                humantime::format_duration(self.wait_target),
                humantime::format_duration(self.checkout_timeout),
            );
            return Err(ConfigError::conflict(&Location::CODE, problem));
        }
        if !self.cache_statements && !self.read_wire {
            let problem = "cache_statements (off) needs read_wire: set read_wire to on".to_owned();
            return Err(ConfigError::conflict(&Location::CODE, problem));
        }
        Ok(())
    }

    /// Returns the database's URL, or an error that explains how to set it.
    pub(crate) fn require_database_url(&self) -> Result<&DatabaseUrl, ConfigError> {
        self.database_url.as_ref().ok_or_else(|| ConfigError::Missing {
            setting: "database_url",
            remedy: "give postgres://user:password@host:5432/database in code, in TOML, or as POOLSCOPE_DATABASE_URL"
                .to_owned(),
        })
    }

    /// Applies the URL first: a setting's own value takes precedence over the URL's query.
    fn apply(mut self, assignments: Vec<Assignment>) -> Self {
        let (urls, values): (Vec<_>, Vec<_>) =
            assignments.into_iter().partition(|assignment| matches!(assignment, Assignment::Url(_)));
        for assignment in urls.into_iter().chain(values) {
            self.apply_one(assignment);
        }
        self
    }

    fn apply_one(&mut self, assignment: Assignment) {
        match assignment {
            Assignment::Value(setting, value) => self.assign(setting, value),
            Assignment::Url(url) => {
                for (setting, value) in url.settings() {
                    self.assign(setting, value.clone());
                }
                self.database_url = Some(url);
            }
        }
    }

    #[cfg(feature = "redis")]
    pub(super) fn assign_each(&mut self, values: &[(&'static Setting, Value)]) {
        for (setting, value) in values {
            self.assign(setting, value.clone());
        }
    }

    /// Returns the values as text by name, without the database's URL and the paths of files with passwords.
    pub(crate) fn public_texts(&self) -> Vec<(&'static str, String)> {
        let is_private = |setting: &&Setting| matches!(setting.name(), "database_url" | "password_file" | "passfile");
        SETTINGS
            .iter()
            .filter(|setting| !is_private(setting))
            .map(|setting| (setting.name(), self.text(setting)))
            .collect()
    }

    fn text(&self, setting: &Setting) -> String {
        match self.value(setting) {
            Some(value) => value.to_string(),
            None => self.database_url.as_ref().map_or_else(String::new, DatabaseUrl::to_string),
        }
    }
}

impl fmt::Debug for Settings {
    /// Prints the settings as text; the database URL without its password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Settings");
        for setting in SETTINGS {
            debug.field(setting.name(), &format_args!("{}", self.text(setting)));
        }
        debug.finish()
    }
}
