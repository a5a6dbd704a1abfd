//! The types of values that settings take: how they are parsed, checked and printed.

use std::fmt;
use std::time::Duration;

/// The values that a setting accepts.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    /// Text of 1 to `max_bytes` bytes without control characters.
    Text { max_bytes: usize },
    /// A database URL, which has its own parser.
    Url,
    /// A whole number, both bounds included.
    Count { min: usize, max: usize },
    /// On or off.
    Switch,
    /// A duration, both bounds included.
    Duration { min: Duration, max: Duration },
    /// A duration, both bounds included, or "off".
    OptionalDuration { min: Duration, max: Duration },
}

/// A setting's value.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Text(Option<String>),
    Count(usize),
    Switch(bool),
    Duration(Duration),
    OptionalDuration(Option<Duration>),
}

const OFF: &str = "off";

impl Kind {
    /// Parses a value; `None` if the text has another form or the value is out of range, or for [`Kind::Url`].
    pub(super) fn parse(self, text: &str) -> Option<Value> {
        // No surrounding space: in the environment and in files, it is a mistake that would be hard to see.
        if text.trim() != text {
            return None;
        }
        let value = match self {
            Self::Text { .. } => Value::Text(Some(text.to_owned())),
            Self::Url => return None,
            Self::Count { .. } => Value::Count(text.parse().ok().filter(|_| !text.starts_with('+'))?),
            Self::Switch => Value::Switch(parse_switch(text)?),
            Self::Duration { .. } => Value::Duration(parse_duration(text)?),
            Self::OptionalDuration { .. } if text.eq_ignore_ascii_case(OFF) => Value::OptionalDuration(None),
            Self::OptionalDuration { .. } => Value::OptionalDuration(Some(parse_duration(text)?)),
        };
        self.accepts(&value).then_some(value)
    }

    /// Returns whether `value` is of this kind and in its range.
    pub(super) fn accepts(self, value: &Value) -> bool {
        match (self, value) {
            (Self::Text { max_bytes }, Value::Text(text)) => text.as_ref().is_none_or(|text| is_text(text, max_bytes)),
            (Self::Count { min, max }, Value::Count(count)) => (min..=max).contains(count),
            (Self::Duration { min, max }, Value::Duration(duration))
            | (Self::OptionalDuration { min, max }, Value::OptionalDuration(Some(duration))) => {
                (min..=max).contains(duration)
            }
            (Self::Switch, Value::Switch(_)) | (Self::OptionalDuration { .. }, Value::OptionalDuration(None)) => true,
            _ => false,
        }
    }

    /// Describes the accepted values for an error message.
    pub(super) fn expected(self, default: &Value) -> String {
        match self {
            Self::Text { max_bytes } => {
                format!("1 to {max_bytes} bytes of text without control characters and surrounding space")
            }
            Self::Url => "a URL such as postgres://user:password@host:5432/database".to_owned(),
            Self::Count { min, max } => format!("a whole number from {min} to {max}"),
            Self::Switch => "on or off".to_owned(),
            Self::Duration { .. } | Self::OptionalDuration { .. } => {
                format!("a duration with its unit, {}, such as {default}", self.range())
            }
        }
    }

    /// Describes the range for the reference.
    pub(super) fn range(self) -> String {
        match self {
            Self::Text { max_bytes } => format!("1 to {max_bytes} bytes"),
            Self::Url => "a `postgres://` URL".to_owned(),
            Self::Count { min, max } => format!("{min} to {max}"),
            Self::Switch => "on or off".to_owned(),
            Self::Duration { min, max } => format!("{} to {}", format_duration(min), format_duration(max)),
            Self::OptionalDuration { min, max } => {
                format!("{} to {}, or {OFF}", format_duration(min), format_duration(max))
            }
        }
    }
}

fn is_text(text: &str, max_bytes: usize) -> bool {
    (1..=max_bytes).contains(&text.len()) && !text.contains(char::is_control) && text.trim() == text
}

impl fmt::Display for Value {
    /// Formats the value as [`Kind::parse`] reads it; nothing for an absent text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(None) => Ok(()),
            Self::Text(Some(text)) => f.write_str(text),
            Self::Count(count) => count.fmt(f),
            Self::Switch(on) => f.write_str(if *on { "on" } else { OFF }),
            Self::Duration(duration) | Self::OptionalDuration(Some(duration)) => {
                f.write_str(&format_duration(*duration))
            }
            Self::OptionalDuration(None) => f.write_str(OFF),
        }
    }
}

fn format_duration(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

/// Parses a duration with its unit. Only zero needs none: any other bare number could mean seconds or milliseconds.
fn parse_duration(text: &str) -> Option<Duration> {
    match text.parse::<u64>() {
        Ok(0) => Some(Duration::ZERO),
        Ok(_) => None,
        Err(_) => humantime::parse_duration(text).ok(),
    }
}

fn parse_switch(text: &str) -> Option<bool> {
    let is = |words: [&str; 4]| words.iter().any(|word| text.eq_ignore_ascii_case(word));
    if is(["on", "true", "yes", "1"]) {
        Some(true)
    } else if is([OFF, "false", "no", "0"]) {
        Some(false)
    } else {
        None
    }
}
