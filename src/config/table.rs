//! The table of settings: the one place that knows a setting's name, range, default and meaning.

use std::fmt;
use std::time::Duration;

use super::Settings;
use super::error::{ConfigError, Origin, quoted};
use super::url::DatabaseUrl;
use super::value::{Kind, Value};
use crate::suggest::nearest;

/// One setting: its name, what it accepts, its default and what it means.
pub struct Setting {
    name: &'static str,
    kind: Kind,
    default: Value,
    /// What the default is, in words, where it is no value of its own.
    otherwise: &'static str,
    help: &'static str,
    get: fn(&Settings) -> Value,
    set: fn(&mut Settings, Value),
}

/// A row of the table. `$variant` is the [`Value`] that the field holds.
macro_rules! setting {
    ($field:ident: $variant:ident in $kind:expr, default $default:expr $(, or $otherwise:literal)?; $($help:literal)+) => {
        Setting {
            name: stringify!($field),
            kind: $kind,
            default: Value::$variant($default),
            otherwise: concat!("" $(, $otherwise)?),
            help: concat!($($help),+),
            get: |settings| Value::$variant(settings.$field.clone()),
            set: |settings, value| {
                if let Value::$variant(value) = value {
                    settings.$field = value;
                }
            },
        }
    };
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
pub static SETTINGS: &[Setting] = &[
    setting!(name: Text in Kind::Text { max_bytes: 200 }, default None, or "host:port/database";
        "The pool's name, as it stands in the label `db_client_connection_pool_name` and in the log."),
    Setting {
        name: "database_url",
        kind: Kind::Url,
        default: Value::Url(None),
        otherwise: "none: must be given",
        help: "Where the database is: `postgres://user:password@host:5432/database`. \
               Any setting's name is also a parameter of its query.",
        get: |settings| Value::Url(settings.database_url.clone()),
        set: |settings, value| {
            if let Value::Url(url) = value {
                if let Some(url) = &url {
                    url.apply_to(settings);
                }
                settings.database_url = url;
            }
        },
    },
    setting!(pool_size: Count in Kind::Count { min: 1, max: 10_000 }, default 10;
        "The number of connections that are kept when idle; one that comes back beyond it is closed."),
    setting!(max_overflow: Count in Kind::Count { min: 0, max: 10_000 }, default 20;
        "The number of connections allowed beyond `pool_size` while all are in use. 0: never more than `pool_size`."),
    setting!(checkout_timeout: Duration in Kind::Duration { min: ms(1), max: DAY }, default secs(30);
        "How long a checkout may take as a whole: waiting, connecting, pinging and cleaning together."),
    setting!(recycle_after: OptionalDuration in Kind::OptionalDuration { min: ms(1), max: secs(30 * 24 * 3600) }, default Some(HOUR);
        "The age, counted from connecting, at which a connection is replaced at its next checkout. "
        "Each connection's own age is up to 10 % less, at random, so that connections made together do not "
        "end together. off: never."),
    setting!(pre_ping: Switch in Kind::Switch, default true;
        "Whether a connection is pinged before it is handed out. A fresh one never is."),
    setting!(pre_ping_idle: Duration in Kind::Duration { min: Duration::ZERO, max: DAY }, default ms(500);
        "A connection that was seen alive within this time is handed out without a ping, unless the work it was last given by `run` failed. 0s: ping at every checkout."),
    setting!(ping_timeout: Duration in Kind::Duration { min: ms(1), max: HOUR }, default secs(5);
        "How long a ping may take before the connection counts as dead."),
    setting!(connect_timeout: Duration in Kind::Duration { min: ms(1), max: HOUR }, default secs(5);
        "How long one attempt to connect may take as a whole: name lookup, all hosts and addresses, TLS and authentication."),
    setting!(tcp_keepalive: OptionalDuration in Kind::OptionalDuration { min: secs(1), max: secs(2 * 3600) }, default Some(secs(30));
        "How long a connection is silent before TCP keepalive probes it, in whole seconds; "
        "three probes 10 s apart without an answer close it. off: no keepalive."),
    setting!(tcp_user_timeout: OptionalDuration in Kind::OptionalDuration { min: secs(1), max: HOUR }, default Some(secs(20));
        "How long data that was sent may stay unacknowledged before the connection is closed (Linux). "
        "off: as the operating system has it, which is about 15 minutes."),
    setting!(application_name: Text in Kind::Text { max_bytes: 63 }, default None, or "poolscope";
        "The name under which the connections show in `pg_stat_activity`."),
    setting!(clean_timeout: Duration in Kind::Duration { min: ms(1), max: HOUR }, default secs(1);
        "How long it may take to clean a connection that came back in a transaction or busy. After that it is closed."),
    setting!(reset_session: Switch in Kind::Switch, default false;
        "Whether what a session was left with is undone when a connection comes back: changed settings (search_path "
        "among them), advisory locks, LISTEN, temporary tables. Prepared statements stay. Takes a round trip for "
        "each use that sent a query; where so many come back at once that some are not reset within `clean_timeout`, those "
        "are at their next checkout."),
    setting!(leak_threshold: OptionalDuration in Kind::OptionalDuration { min: ms(1), max: DAY }, default Some(secs(60));
        "How long a connection is held and silent on the wire before its holder is a suspected leak; nobody is while a \
         query runs, or where the wire is not read. off: never."),
    setting!(read_wire: Switch in Kind::Switch, default true;
        "Whether the headers of what passes on the wire are read. off: nothing is known of what a holder does, nor of "
        "the state in which a connection comes back."),
    setting!(trace_query_text: Switch in Kind::Switch, default false;
        "Whether the spans of queries have their text, as `db.query.text`: its first 2 KB, with `?` for each literal and "
        "without comments. Of each connection the texts of at most 1,000 statements are told."),
    setting!(fail_fast: Switch in Kind::Switch, default true;
        "Whether a checkout that needs a new connection fails at once while connecting is known to fail. One checkout at "
        "a time tries, after growing pauses of up to 0.8 s. off: the others wait until that one succeeds, up to their "
        "`checkout_timeout`. A server that has no slots left is waited for in either case, as long as the pool has "
        "connections that may come back, or is being given some."),
    setting!(retry_floor: Count in Kind::Count { min: 0, max: 10_000 }, default 10;
        "How many retries a second the pool's operations may always make together, counted over ten seconds."),
    setting!(retry_percent: Count in Kind::Count { min: 0, max: 1000 }, default 20;
        "How many more retries they may make for each hundred operations with a retry policy, counted over ten seconds."),
    setting!(wait_target: Duration in Kind::Duration { min: Duration::from_micros(100), max: secs(60) }, default ms(10);
        "The mean wait for a connection that the recommended pool size aims at."),
];

impl Setting {
    /// The setting called `name`.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Self> {
        SETTINGS.iter().find(|setting| setting.name == name)
    }

    /// The name, as it stands in TOML and in a URL's query.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The environment variable that sets it.
    #[must_use]
    pub fn environment_variable(&self) -> String {
        format!("{}{}", super::env::PREFIX, self.name.to_ascii_uppercase())
    }

    /// The default as text; where it is no value of its own, what stands in for it, in words.
    #[must_use]
    pub fn default_text(&self) -> String {
        if self.otherwise.is_empty() { self.default.to_string() } else { self.otherwise.to_owned() }
    }

    /// What it accepts, in words.
    #[must_use]
    pub fn range(&self) -> String {
        self.kind.range()
    }

    /// What it means, with the unit and what zero or "off" stand for.
    #[must_use]
    pub const fn help(&self) -> &'static str {
        self.help
    }

    /// The value in `settings` as text, empty where none is set; a database URL without its password.
    #[must_use]
    pub fn get(&self, settings: &Settings) -> String {
        (self.get)(settings).to_string()
    }

    pub(crate) const fn kind(&self) -> Kind {
        self.kind
    }

    pub(crate) const fn is_url(&self) -> bool {
        matches!(self.kind, Kind::Url)
    }

    pub(crate) fn assign(&self, settings: &mut Settings, value: Value) {
        (self.set)(settings, value);
    }

    pub(crate) fn reset(&self, settings: &mut Settings) {
        self.assign(settings, self.default.clone());
    }

    /// Reads `text`, which stands at `origin`, as a value of this setting.
    pub(crate) fn read(&self, text: &str, origin: &Origin) -> Result<Value, ConfigError> {
        if self.is_url() {
            return DatabaseUrl::parse(text, origin).map(|url| Value::Url(Some(url)));
        }
        self.kind.parse(text).ok_or_else(|| self.invalid(quoted(text), origin))
    }

    /// Checks the value that is in `settings`, however it got there.
    pub(crate) fn check(&self, settings: &Settings) -> Result<(), ConfigError> {
        let value = (self.get)(settings);
        if self.kind.admits(&value) { Ok(()) } else { Err(self.invalid(quoted(&value.to_string()), &Origin::CODE)) }
    }

    /// The error for a value that does not fit. `value` is printed as it is.
    pub(crate) fn invalid(&self, value: String, origin: &Origin) -> ConfigError {
        ConfigError::Invalid {
            origin: origin.clone(),
            setting: self.name,
            value,
            remedy: self.kind.remedy(&self.default),
        }
    }
}

impl fmt::Debug for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Setting")
            .field("name", &self.name)
            .field("default", &self.default_text())
            .field("range", &self.range())
            .finish_non_exhaustive()
    }
}

/// The setting called `name`, or the error for `origin` that suggests another.
pub(crate) fn find(name: &str, origin: &Origin) -> Result<&'static Setting, ConfigError> {
    Setting::find(name).ok_or_else(|| {
        ConfigError::unknown(origin.clone(), name, nearest(name, SETTINGS.iter().map(Setting::name)).map(str::to_owned))
    })
}
