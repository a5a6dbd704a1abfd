//! What the configuration takes of a database beside the settings of its pool.

use std::ops::RangeInclusive;
use std::time::Duration;

use toml::Spanned;
use toml::de::DeValue;

use super::document::{InvalidEntry, type_name};
use crate::service::quoted;

/// A key: its name, what it accepts, its default and what it means.
#[derive(Debug)]
pub struct Key {
    name: &'static str,
    range: &'static str,
    default: &'static str,
    help: &'static str,
}

/// How often a database is probed unless it is told otherwise: as often as Prometheus looks by default.
pub(super) const PROBE_EVERY: Duration = Duration::from_secs(15);

pub(super) static PROBE_INTERVAL: Key = Key {
    name: "probe_interval",
    range: "1s to 1h",
    default: "15s",
    help: "How often the database is probed and the server asked for its view. May also stand at the top, for all databases.",
};

pub(super) static SERVER_VIEW: Key = Key {
    name: "server_view",
    range: "on or off",
    default: "on",
    help: "Whether the server is asked for its view, on a second connection. off: for all but one of the databases of a server, as its \
           view is the same in each.",
};

pub(super) static DATABASE_URL_FILE: Key = Key {
    name: "database_url_file",
    range: "1 to 4096 bytes",
    default: "none",
    help: "The file that holds the database's URL, such as a mounted secret or a credential of systemd's; relative to the \
           configuration's directory. In place of `database_url`.",
};

/// Each of them, in the order of the reference.
pub static KEYS: [&Key; 3] = [&DATABASE_URL_FILE, &PROBE_INTERVAL, &SERVER_VIEW];

/// The bounds of [`PROBE_INTERVAL`].
const PROBE_INTERVALS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);

impl Key {
    /// The value as a time.
    pub(super) fn duration(&self, text: &str, value: &Spanned<DeValue<'_>>) -> Result<Duration, InvalidEntry> {
        let found = match value.get_ref() {
            DeValue::String(duration) => match humantime::parse_duration(duration.trim()) {
                Ok(duration) if PROBE_INTERVALS.contains(&duration) => return Ok(duration),
                _ => quoted(duration),
            },
            DeValue::Integer(number) => number.to_string(),
            other => type_name(other).to_owned(),
        };
        let expected = format!("a duration with its unit, {}, such as {}", self.range, self.default);
        Err(InvalidEntry::value(text, value, self.name, found, expected))
    }

    /// The value as on or off.
    pub(super) fn switch(&self, text: &str, value: &Spanned<DeValue<'_>>) -> Result<bool, InvalidEntry> {
        let found = match value.get_ref() {
            DeValue::Boolean(on) => return Ok(*on),
            DeValue::String(switch) => match &*switch.trim().to_ascii_lowercase() {
                "on" | "true" | "yes" | "1" => return Ok(true),
                "off" | "false" | "no" | "0" => return Ok(false),
                _ => quoted(switch),
            },
            other => type_name(other).to_owned(),
        };
        Err(InvalidEntry::value(text, value, self.name, found, self.range))
    }

    /// The value as text.
    pub(super) fn text(&self, text: &str, value: &Spanned<DeValue<'_>>) -> Result<String, InvalidEntry> {
        const MAX_BYTES: usize = 4096;
        let found = match value.get_ref() {
            DeValue::String(path) if (1..=MAX_BYTES).contains(&path.len()) && !path.contains(char::is_control) => {
                return Ok(path.clone().into_owned());
            }
            DeValue::String(path) => quoted(path),
            other => type_name(other).to_owned(),
        };
        let expected = format!("{} of text without control characters", self.range);
        Err(InvalidEntry::value(text, value, self.name, found, expected))
    }

    /// The name, as it stands in the file.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The default as text.
    #[must_use]
    pub const fn default_text(&self) -> &'static str {
        self.default
    }

    /// What it accepts, in words.
    #[must_use]
    pub const fn range(&self) -> &'static str {
        self.range
    }

    /// What it means.
    #[must_use]
    pub const fn help(&self) -> &'static str {
        self.help
    }
}

#[test]
fn default_probe_interval_is_as_documented() {
    assert_eq!(humantime::parse_duration(PROBE_INTERVAL.default).unwrap(), PROBE_EVERY);
}
