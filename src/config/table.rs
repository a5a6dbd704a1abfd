//! The table of settings: name, accepted values, default and description of each.

use std::fmt;
use std::time::Duration;

use super::error::ConfigError;
use super::location::{Location, quoted};
use super::value::{Kind, Value};
use crate::suggest::nearest;

/// The prefix of the environment variables.
pub(super) const ENVIRONMENT_PREFIX: &str = "POOLSCOPE_";

/// The description of one setting, as [`settings`] returns it.
pub struct Setting {
    name: &'static str,
    kind: Kind,
    default: Value,
    /// The description of a default that depends on other values.
    default_note: &'static str,
    description: &'static str,
}

const fn setting(name: &'static str, kind: Kind, default: Value, description: &'static str) -> Setting {
    Setting { name, kind, default, default_note: "", description }
}

/// A setting without a default value.
const fn unset(name: &'static str, kind: Kind, default_note: &'static str, description: &'static str) -> Setting {
    Setting { name, kind, default: Value::Text(None), default_note, description }
}

const fn text(max_bytes: usize) -> Kind {
    Kind::Text { max_bytes }
}

const fn count(min: usize, max: usize) -> Kind {
    Kind::Count { min, max }
}

const fn duration(min: Duration, max: Duration) -> Kind {
    Kind::Duration { min, max }
}

const fn duration_or_off(min: Duration, max: Duration) -> Kind {
    Kind::OptionalDuration { min, max }
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

const HOUR: Duration = secs(3600);
const DAY: Duration = secs(24 * 3600);

/// Every setting, in the order of the reference.
pub(super) static SETTINGS: &[Setting] = &[
    unset(
        "name",
        text(200),
        "host:port/database",
        "The pool's name, used in the label `db_client_connection_pool_name` and in the log. A second pool of the same name \
         gets the name with `-2`, `-3` and so on for as long as it exists, unless it replaces the first \
         (`PoolBuilder::replaces`): then it has the name, and the counters go on.",
    ),
    unset(
        "database_url",
        Kind::Url,
        "none, required",
        "The database to connect to: `postgres://user:password@host:5432/database`. Its query accepts every other \
         setting as a parameter.",
    ),
    unset(
        "password_file",
        text(4096),
        "none",
        "The file that contains the password and nothing else, such as a mounted secret, in place of the password in the \
         URL. A line break at its end does not count. It is checked for changes whenever a connection is opened, at most \
         once a second; an invalid content is logged and the previous one used.",
    ),
    unset(
        "passfile",
        text(4096),
        "none",
        "A password file in libpq's format (`host:port:database:user:password`), in place of the password in the URL, \
         which must name the user. Only its owner may have permissions, such as 0600. Checked for changes \
         like `password_file`. `PGPASSFILE` and `~/.pgpass` are not read unless they are given here.",
    ),
    setting(
        "pool_size",
        count(1, 10_000),
        Value::Count(10),
        "The number of connections that stay open when idle. A returned connection beyond it is closed.",
    ),
    setting(
        "max_overflow",
        count(0, 10_000),
        Value::Count(20),
        "The number of connections allowed beyond `pool_size` while all are in use. 0: never more than `pool_size`.",
    ),
    setting(
        "min_idle",
        count(0, 10_000),
        Value::Count(0),
        "The number of connections that `Pool::warm_up` opens, and that `idle_timeout` leaves open, at most `pool_size`. \
         Later the pool connects on demand.",
    ),
    setting(
        "idle_timeout",
        duration_or_off(ms(1), DAY),
        Value::OptionalDuration(None),
        "The time after which an idle connection is closed, as long as more than `min_idle` are idle. Whatever samples the \
         pool applies it, about once a second: the exporter, `Pool::watch`, and each scrape or push of metrics. While it \
         is set, a checkout takes the connection that was returned last, so that those that the load does not need stay \
         idle. off: idle connections stay open.",
    ),
    setting(
        "checkout_timeout",
        duration(ms(1), DAY),
        Value::Duration(secs(30)),
        "The time limit of a whole checkout: waiting, connecting, pinging and resetting together.",
    ),
    setting(
        "recycle_after",
        duration_or_off(ms(1), secs(30 * 24 * 3600)),
        Value::OptionalDuration(Some(HOUR)),
        "The age, counted from connecting, at which a connection is replaced at its next checkout. Each connection's \
         limit is up to 10 % lower, at random, so that connections opened together are not replaced together. off: \
         never.",
    ),
    setting(
        "pre_ping",
        Kind::Switch,
        Value::Switch(true),
        "Whether a connection is pinged before it is handed out. A new connection is not.",
    ),
    setting(
        "pre_ping_idle",
        duration(Duration::ZERO, DAY),
        Value::Duration(ms(500)),
        "A connection that was seen alive within this time is handed out without a ping, unless the last work that \
         `run` gave it failed. 0s: ping at every checkout.",
    ),
    setting(
        "ping_timeout",
        duration(ms(1), HOUR),
        Value::Duration(secs(5)),
        "The time limit of a ping; after it the connection counts as dead.",
    ),
    setting(
        "connect_timeout",
        duration(ms(1), HOUR),
        Value::Duration(secs(5)),
        "The time limit of a whole connection attempt: name lookup, all hosts and addresses, TLS and authentication. An \
         attempt goes on if its checkout ends first, and its connection goes to the pool.",
    ),
    setting(
        "tcp_keepalive",
        duration_or_off(secs(1), secs(2 * 3600)),
        Value::OptionalDuration(Some(secs(30))),
        "The time without traffic after which TCP keepalive probes a connection, in whole seconds. Three unanswered \
         probes 10 s apart close it. off: no keepalive.",
    ),
    setting(
        "tcp_user_timeout",
        duration_or_off(secs(1), HOUR),
        Value::OptionalDuration(Some(secs(20))),
        "How long sent data may stay unacknowledged before the connection is closed (Linux). off: the operating \
         system's default, about 15 minutes.",
    ),
    unset("application_name", text(63), "the program's name", "The name of the connections in `pg_stat_activity`."),
    setting(
        "clean_timeout",
        duration(ms(1), HOUR),
        Value::Duration(secs(1)),
        "The time limit of resetting a connection that was returned busy or in a transaction. After it the connection is \
         closed.",
    ),
    setting(
        "close_timeout",
        duration(ms(1), HOUR),
        Value::Duration(secs(30)),
        "How long a connection keeps its place after it was closed while the server executed its query. The query is \
         cancelled, and the place is free when the server has closed its side. After this time the place is free in \
         any case, and the server may have more backends of this pool than its maximum until the query ends. Other \
         closed connections free their places at once. No effect with `read_wire` off.",
    ),
    setting(
        "reset_session",
        Kind::Switch,
        Value::Switch(false),
        "Whether session state is reset when a connection is returned: changed settings (including search_path), \
         advisory locks, LISTEN, temporary tables. Prepared statements stay. Costs a round trip for each use that sent \
         a query. Connections that are not reset within `clean_timeout`, because many were returned at once, are \
         reset at their next checkout.",
    ),
    setting(
        "leak_threshold",
        duration_or_off(ms(1), DAY),
        Value::OptionalDuration(Some(secs(60))),
        "The time a connection is held without traffic before its holder is reported as a suspected leak. Not reported \
         while a query runs, or with `read_wire` off. off: never.",
    ),
    setting(
        "slow_checkout_threshold",
        duration_or_off(ms(1), DAY),
        Value::OptionalDuration(Some(secs(2))),
        "The duration from which on a successful checkout is logged, with its operation, its call site and what it waited \
         for last. The lines of each operation are limited. off: never.",
    ),
    setting(
        "slow_query_threshold",
        duration_or_off(ms(1), DAY),
        Value::OptionalDuration(None),
        "The duration from which on a query is logged, with its operation, its call site and its summary such as `SELECT \
         orders`, never its text; as log_min_duration_statement on the server. The lines of each summary are limited. \
         Needs `read_wire`. off: never.",
    ),
    setting(
        "read_wire",
        Kind::Switch,
        Value::Switch(true),
        "Whether the pool reads the headers of protocol messages. off: the activity of holders and the state of \
         returned connections are unknown.",
    ),
    setting(
        "max_answer_kib",
        count(0, 1024 * 1024),
        Value::Count(0),
        "The limit, in KiB, of what a server sends from the end of one answer to the end of the next. Beyond it the \
         connection is closed, as soon as a message that exceeds it is announced. 0: no limit for an application's own \
         queries.",
    ),
    setting(
        "cache_statements",
        Kind::Switch,
        Value::Switch(true),
        "Whether `prepare_cached` keeps prepared statements. off: it prepares the statement each time, for a pooler such \
         as PgBouncer in transaction mode; execute it in the same transaction. Needs `read_wire`.",
    ),
    setting(
        "trace_query_text",
        Kind::Switch,
        Value::Switch(false),
        "Whether query spans have the query's text as `db.query.text`: its first 2 KB, with `?` for each literal and \
         without comments. At most 1,000 statements of each connection are remembered.",
    ),
    setting(
        "fail_fast",
        Kind::Switch,
        Value::Switch(true),
        "Whether a checkout that needs a new connection fails at once while connection attempts are failing. One \
         checkout at a time tries, after growing pauses of up to 0.8 s. off: the others wait until that one succeeds, \
         up to their `checkout_timeout`, as retries of operations always do. In either case checkouts wait for a server that has no free slots, as long \
         as the pool has or is opening connections that may be returned.",
    ),
    setting(
        "retry_floor",
        count(0, 10_000),
        Value::Count(10),
        "The number of retries per second that the pool's operations may always make together, measured over ten \
         seconds.",
    ),
    setting(
        "retry_percent",
        count(0, 1000),
        Value::Count(20),
        "The number of additional retries for each hundred operations with a retry policy, measured over ten seconds.",
    ),
    setting(
        "wait_target",
        duration(Duration::from_micros(100), secs(60)),
        Value::Duration(ms(10)),
        "The wait for a connection that 99 % of checkouts are to stay below with the recommended size (`docs/sizing.md`).",
    ),
];

/// Returns the description of every setting, in the order of the reference.
///
/// ```
/// for setting in poolscope::config::settings() {
///     println!("{} (default {}): {}", setting.environment_variable(), setting.default(), setting.description());
/// }
/// ```
pub fn settings() -> impl ExactSizeIterator<Item = &'static Setting> {
    SETTINGS.iter()
}

impl Setting {
    /// Returns the name, as it is written in TOML and in a URL's query.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Returns the name of the environment variable.
    #[must_use]
    pub fn environment_variable(&self) -> String {
        format!("{ENVIRONMENT_PREFIX}{}", self.name.to_ascii_uppercase())
    }

    /// Returns the default as text, or a description of it where it depends on other values.
    #[must_use]
    pub fn default(&self) -> String {
        if self.default_note.is_empty() { self.default.to_string() } else { self.default_note.to_owned() }
    }

    /// Describes the accepted values.
    #[must_use]
    pub fn range(&self) -> String {
        self.kind.range()
    }

    /// Returns the meaning, with the effect of zero or "off".
    #[must_use]
    pub const fn description(&self) -> &'static str {
        self.description
    }

    pub(super) fn find(name: &str) -> Option<&'static Self> {
        SETTINGS.iter().find(|setting| setting.name == name)
    }

    /// Returns the setting with a name, or an error that suggests a similar name.
    pub(super) fn require(name: &str, location: &Location) -> Result<&'static Self, ConfigError> {
        Self::find(name).ok_or_else(|| {
            let suggestion = nearest(name, SETTINGS.iter().map(Self::name)).map(str::to_owned);
            ConfigError::unknown(location, name, suggestion)
        })
    }

    pub(super) const fn kind(&self) -> Kind {
        self.kind
    }

    pub(super) const fn default_value(&self) -> &Value {
        &self.default
    }

    pub(super) const fn is_url(&self) -> bool {
        matches!(self.kind, Kind::Url)
    }

    /// Parses a value of this setting, which is not the URL.
    pub(super) fn parse(&self, text: &str, location: &Location) -> Result<Value, ConfigError> {
        self.kind.parse(text).ok_or_else(|| self.invalid(quoted(text), location))
    }

    /// Returns the error for a value that is not accepted; `value` is printed without quotes.
    pub(super) fn invalid(&self, value: String, location: &Location) -> ConfigError {
        ConfigError::Invalid {
            location: location.to_string(),
            setting: self.name,
            value,
            expected: self.kind.expected(&self.default),
        }
    }
}

impl fmt::Debug for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Setting")
            .field("name", &self.name)
            .field("default", &self.default())
            .field("range", &self.range())
            .finish_non_exhaustive()
    }
}
