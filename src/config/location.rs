//! Where a value was given, and how values are quoted in error messages.

use std::borrow::Cow;
use std::fmt;

use crate::text::Printable;

/// Where a value was given: an environment variable, a position in a TOML text, a database URL, or code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Location {
    source: Source,
    parameter: Option<Box<str>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    Code,
    Url,
    #[cfg(feature = "redis")]
    RedisUrl,
    Environment(Option<Box<str>>),
    Toml {
        line: u32,
        column: u32,
    },
}

impl Location {
    /// A field or method of [`Settings`](super::Settings).
    pub(super) const CODE: Self = Self::new(Source::Code);
    /// A database URL that was passed in code.
    pub(super) const URL: Self = Self::new(Source::Url);
    /// The URL of a Redis server.
    #[cfg(feature = "redis")]
    pub(super) const REDIS_URL: Self = Self::new(Source::RedisUrl);
    /// The environment as a whole.
    pub(super) const ENVIRONMENT: Self = Self::new(Source::Environment(None));

    const fn new(source: Source) -> Self {
        Self { source, parameter: None }
    }

    pub(super) fn variable(name: &str) -> Self {
        Self::new(Source::Environment(Some(name.into())))
    }

    /// Returns the line and column of the byte at `offset` in `text`.
    pub(super) fn toml(text: &str, offset: usize) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
        Self::new(Source::Toml {
            line: u32::try_from(line).unwrap_or(u32::MAX),
            column: u32::try_from(column).unwrap_or(u32::MAX),
        })
    }

    /// Returns the location of a URL that was given here.
    pub(super) fn url(&self) -> Self {
        match self.source {
            Source::Code => Self::URL,
            _ => self.clone(),
        }
    }

    /// Returns the location of the query parameter `name` of the URL that was given here.
    pub(super) fn parameter(&self, name: &str) -> Self {
        Self { source: self.source.clone(), parameter: Some(name.into()) }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Source::Code => f.write_str("settings")?,
            Source::Url => f.write_str("database URL")?,
            #[cfg(feature = "redis")]
            Source::RedisUrl => f.write_str("Redis URL")?,
            Source::Environment(None) => f.write_str("environment variables")?,
            Source::Environment(Some(variable)) => write!(f, "environment variable {}", Printable(variable))?,
            Source::Toml { line, column } => write!(f, "line {line}, column {column}")?,
        }
        match &self.parameter {
            Some(name) => write!(f, ", parameter `{}`", Printable(name)),
            None => Ok(()),
        }
    }
}

/// Returns the text, cut after the scheme if it may hold a URL, whose password must not be printed.
pub(super) fn masked(text: &str) -> Cow<'_, str> {
    match text.find("://") {
        Some(at) => Cow::Owned(format!("{}://…", &text[..at])),
        None => Cow::Borrowed(text),
    }
}

/// Quotes a value for an error message: escaped, shortened, and of a URL only the scheme.
pub(super) fn quoted(value: &str) -> String {
    const MAX_CHARS: usize = 60;
    let value = &*masked(value);
    match value.char_indices().nth(MAX_CHARS) {
        Some((end, _)) => format!("\"{}…\"", value[..end].escape_debug()),
        None => format!("\"{}\"", value.escape_debug()),
    }
}
