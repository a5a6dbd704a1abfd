//! What the configuration takes of a database beside the settings of its pool.

use std::time::Duration;

use toml::Spanned;
use toml::de::DeValue;

use crate::config::{self, ConfigError, Kind, Origin, Value};

/// A key: its name, what it accepts, its default and what it means.
#[derive(Debug)]
pub struct Key {
    name: &'static str,
    kind: Kind,
    default: Value,
    help: &'static str,
}

/// How often a database is probed unless it is told otherwise: as often as Prometheus looks by default.
pub(super) const PROBE_EVERY: Duration = Duration::from_secs(15);

pub(super) static PROBE_INTERVAL: Key = Key {
    name: "probe_interval",
    kind: Kind::Duration { min: Duration::from_secs(1), max: Duration::from_secs(3600) },
    default: Value::Duration(PROBE_EVERY),
    help: "How often the database is probed and the server asked for its view. May also stand at the top, for all databases.",
};

pub(super) static SERVER_VIEW: Key = Key {
    name: "server_view",
    kind: Kind::Switch,
    default: Value::Switch(true),
    help: "Whether the server is asked for its view, on a second connection. off: for all but one of the databases of a server, as its \
           view is the same in each.",
};

pub(super) static DATABASE_URL_FILE: Key = Key {
    name: "database_url_file",
    kind: Kind::Text { max_bytes: 4096 },
    default: Value::Text(None),
    help: "The file that holds the database's URL, such as a mounted secret or a credential of systemd's; relative to the \
           configuration's directory. In place of `database_url`.",
};

/// Each of them, in the order of the reference.
pub static KEYS: [&Key; 3] = [&DATABASE_URL_FILE, &PROBE_INTERVAL, &SERVER_VIEW];

impl Key {
    /// The value as a time.
    pub(super) fn duration(&self, text: &str, value: &Spanned<DeValue<'_>>) -> Result<Duration, ConfigError> {
        self.read(text, value, |value| if let Value::Duration(time) = value { Some(time) } else { None })
    }

    /// The value as on or off.
    pub(super) fn switch(&self, text: &str, value: &Spanned<DeValue<'_>>) -> Result<bool, ConfigError> {
        self.read(text, value, |value| if let Value::Switch(on) = value { Some(on) } else { None })
    }

    /// The value as text.
    pub(super) fn text(&self, text: &str, value: &Spanned<DeValue<'_>>) -> Result<String, ConfigError> {
        self.read(text, value, |value| if let Value::Text(text) = value { text } else { None })
    }

    /// The name, as it stands in the file.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The default as text.
    #[must_use]
    pub fn default_text(&self) -> String {
        match &self.default {
            Value::Text(None) => "none".to_owned(),
            value => value.to_string(),
        }
    }

    /// What it accepts, in words.
    #[must_use]
    pub fn range(&self) -> String {
        self.kind.range()
    }

    /// What it means.
    #[must_use]
    pub const fn help(&self) -> &'static str {
        self.help
    }

    /// The value as what `of` takes it for.
    fn read<T>(
        &self,
        text: &str,
        value: &Spanned<DeValue<'_>>,
        of: impl FnOnce(Value) -> Option<T>,
    ) -> Result<T, ConfigError> {
        let given = config::text_of(self.kind, value.get_ref());
        let read = given.and_then(|given| self.kind.parse(&given).and_then(of).ok_or_else(|| config::quoted(&given)));
        read.map_err(|given| ConfigError::Invalid {
            origin: Origin::toml(text, value.span().start),
            setting: self.name,
            value: given,
            remedy: self.kind.remedy(&self.default),
        })
    }
}
