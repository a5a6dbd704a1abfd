//! The kinds of value a setting takes: how each is read from text, what is in its range, how it is written.

use std::fmt;
use std::time::Duration;

use super::url::DatabaseUrl;

/// What a setting accepts.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    /// Text of at most so many bytes; never empty, no control characters.
    Text { max_bytes: usize },
    /// A database URL.
    Url,
    /// A whole number, both ends included.
    Count { min: usize, max: usize },
    /// Yes or no.
    Switch,
    /// A time, both ends included.
    Duration { min: Duration, max: Duration },
    /// A time, or "off".
    OptionalDuration { min: Duration, max: Duration },
}

/// A setting's value.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    Text(Option<String>),
    Url(Option<DatabaseUrl>),
    Count(usize),
    Switch(bool),
    Duration(Duration),
    OptionalDuration(Option<Duration>),
}

const OFF: &str = "off";

impl Kind {
    /// Reads a value from text; `None` if the text is of another form or out of range.
    ///
    /// Never a [`Kind::Url`], whose errors say more: see [`DatabaseUrl::parse`].
    pub(crate) fn parse(self, text: &str) -> Option<Value> {
        let trimmed = text.trim();
        let value = match self {
            Self::Text { .. } => Value::Text(Some(text.to_owned())),
            Self::Url => return None,
            Self::Count { .. } => Value::Count(trimmed.parse().ok()?),
            Self::Switch => Value::Switch(switch(trimmed)?),
            Self::Duration { .. } => Value::Duration(duration(trimmed)?),
            Self::OptionalDuration { .. } if trimmed.eq_ignore_ascii_case(OFF) => Value::OptionalDuration(None),
            Self::OptionalDuration { .. } => Value::OptionalDuration(Some(duration(trimmed)?)),
        };
        self.admits(&value).then_some(value)
    }

    /// Whether `value` is of this kind and in its range.
    pub(crate) fn admits(self, value: &Value) -> bool {
        match (self, value) {
            (Self::Text { max_bytes }, Value::Text(text)) => text
                .as_ref()
                .is_none_or(|text| (1..=max_bytes).contains(&text.len()) && !text.contains(char::is_control)),
            (Self::Count { min, max }, Value::Count(count)) => (min..=max).contains(count),
            (Self::Duration { min, max }, Value::Duration(time))
            | (Self::OptionalDuration { min, max }, Value::OptionalDuration(Some(time))) => (min..=max).contains(time),
            (Self::Url, Value::Url(_))
            | (Self::Switch, Value::Switch(_))
            | (Self::OptionalDuration { .. }, Value::OptionalDuration(None)) => true,
            _ => false,
        }
    }

    /// What would do, for an error message.
    pub(crate) fn remedy(self, default: &Value) -> String {
        match self {
            Self::Text { max_bytes } => {
                format!("give 1 to {max_bytes} bytes of text without control characters")
            }
            Self::Url => "give a URL such as postgres://user:password@host:5432/database".to_owned(),
            Self::Count { min, max } => format!("give a whole number from {min} to {max}"),
            Self::Switch => "give on or off".to_owned(),
            Self::Duration { .. } | Self::OptionalDuration { .. } => {
                format!("give a time with its unit, {}, such as {default}", self.range())
            }
        }
    }

    /// The range in words, for the reference.
    pub(crate) fn range(self) -> String {
        match self {
            Self::Text { max_bytes } => format!("1 to {max_bytes} bytes"),
            Self::Url => "a `postgres://` URL".to_owned(),
            Self::Count { min, max } => format!("{min} to {max}"),
            Self::Switch => "on or off".to_owned(),
            Self::Duration { min, max } => format!("{} to {}", written(min), written(max)),
            Self::OptionalDuration { min, max } => {
                format!("{} to {}, or {OFF}", written(min), written(max))
            }
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(None) | Self::Url(None) => Ok(()),
            Self::Text(Some(text)) => f.write_str(text),
            Self::Url(Some(url)) => url.fmt(f),
            Self::Count(count) => count.fmt(f),
            Self::Switch(on) => f.write_str(if *on { "on" } else { OFF }),
            Self::Duration(time) | Self::OptionalDuration(Some(time)) => f.write_str(&written(*time)),
            Self::OptionalDuration(None) => f.write_str(OFF),
        }
    }
}

/// A time as [`duration`] reads it back.
fn written(time: Duration) -> String {
    humantime::format_duration(time).to_string()
}

/// A time with its unit. Only zero needs none; any other bare number could be meant in seconds or in
/// milliseconds, and a guess would be wrong by a factor of a thousand.
fn duration(text: &str) -> Option<Duration> {
    match text.parse::<u64>() {
        Ok(0) => Some(Duration::ZERO),
        Ok(_) => None,
        Err(_) => humantime::parse_duration(text).ok(),
    }
}

fn switch(text: &str) -> Option<bool> {
    let is = |words: [&str; 4]| words.iter().any(|word| text.eq_ignore_ascii_case(word));
    if is(["on", "true", "yes", "1"]) {
        Some(true)
    } else if is([OFF, "false", "no", "0"]) {
        Some(false)
    } else {
        None
    }
}
