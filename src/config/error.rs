//! What is wrong with a configuration: what, where, and what would do.

use std::borrow::Cow;
use std::fmt;
use std::io;

/// A setting, a database URL or a certificate file that cannot be used.
///
/// The message is one line that says where the value stands, what is wrong with it and what would do. It never
/// holds a password, or any part of a text that could be one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A setting's value is of the wrong form or out of range.
    #[error("{origin}: {setting} cannot be {value}: {remedy}")]
    #[non_exhaustive]
    Invalid {
        /// Where the value stands.
        origin: Origin,
        /// The setting's name, or the URL parameter's.
        setting: &'static str,
        /// The value as it was given, in quotes, or what kind of thing it is.
        value: String,
        /// What would do.
        remedy: String,
    },

    /// A name that no setting has.
    #[error("{origin}: there is no setting `{name}`{}", hint(.suggestion.as_deref()))]
    #[non_exhaustive]
    Unknown {
        /// Where the name stands.
        origin: Origin,
        /// The name as it was given.
        name: String,
        /// The nearest name that exists, spelled as it would stand there.
        suggestion: Option<String>,
    },

    /// Two settings, each fine alone, contradict each other.
    #[error("{origin}: {problem}")]
    #[non_exhaustive]
    Conflict {
        /// Where the settings stand.
        origin: Origin,
        /// Which they are, and what would do.
        problem: String,
    },

    /// A database URL that cannot be read. The message quotes nothing that could be part of a password.
    #[error("{origin}: {problem}")]
    #[non_exhaustive]
    Url {
        /// Where the URL stands.
        origin: Origin,
        /// What is wrong and what would do.
        problem: String,
    },

    /// Text that is not TOML.
    #[error("{origin}: not valid TOML: {problem}")]
    #[non_exhaustive]
    Toml {
        /// The line and column.
        origin: Origin,
        /// What the parser says.
        problem: String,
    },

    /// A setting without a default was not given.
    #[error("{setting} is not set: {remedy}")]
    #[non_exhaustive]
    Missing {
        /// The setting's name.
        setting: &'static str,
        /// How to give it.
        remedy: String,
    },

    /// The URL asks for TLS, which this build leaves out.
    #[error(
        "{origin}: sslmode={sslmode} needs TLS, which this build leaves out: enable the feature `tls` of poolscope"
    )]
    #[non_exhaustive]
    TlsUnavailable {
        /// Where the mode stands.
        origin: Origin,
        /// The mode that was asked for.
        sslmode: &'static str,
    },

    /// The certificates to verify the server with cannot be loaded.
    #[error("{problem}: {remedy}")]
    #[non_exhaustive]
    Certificates {
        /// Which certificates, and what is wrong with them.
        problem: String,
        /// What would do.
        remedy: &'static str,
        /// What the operating system said, if it is its fault.
        #[source]
        source: Option<io::Error>,
    },
}

impl ConfigError {
    /// That there is no setting of this name; of a URL that stands in its place no more than the scheme is kept.
    pub(crate) fn unknown(origin: Origin, name: &str, suggestion: Option<String>) -> Self {
        Self::Unknown { origin, name: masked(name).escape_debug().to_string(), suggestion }
    }
}

fn hint(suggestion: Option<&str>) -> String {
    suggestion.map_or_else(String::new, |name| format!(": did you mean `{name}`?"))
}

/// Where a value stands: in an environment variable, at a place in a TOML text, in a database URL, or in code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    place: Place,
    parameter: Option<Box<str>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Code,
    Url,
    Environment(Option<Box<str>>),
    Toml { line: u32, column: u32 },
}

impl Origin {
    /// Set in code, on a [`Settings`](super::Settings).
    pub(crate) const CODE: Self = Self::new(Place::Code);
    /// In a database URL handed over in code.
    pub(crate) const URL: Self = Self::new(Place::Url);

    /// Among the environment variables.
    pub(crate) const ENVIRONMENT: Self = Self::new(Place::Environment(None));

    const fn new(place: Place) -> Self {
        Self { place, parameter: None }
    }

    pub(crate) fn environment(variable: &str) -> Self {
        Self::new(Place::Environment(Some(variable.into())))
    }

    /// The place of the byte at `offset` in `text`.
    pub(crate) fn toml(text: &str, offset: usize) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
        Self::new(Place::Toml {
            line: u32::try_from(line).unwrap_or(u32::MAX),
            column: u32::try_from(column).unwrap_or(u32::MAX),
        })
    }

    /// The place of a URL that stands here.
    pub(crate) fn url(&self) -> Self {
        match self.place {
            Place::Code => Self::URL,
            _ => self.clone(),
        }
    }

    /// The query parameter `name` of the URL that stands here.
    pub(crate) fn parameter(&self, name: &str) -> Self {
        Self { place: self.place.clone(), parameter: Some(name.into()) }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Code => f.write_str("settings")?,
            Place::Url => f.write_str("database URL")?,
            Place::Environment(None) => f.write_str("environment variables")?,
            Place::Environment(Some(variable)) => write!(f, "environment variable {variable}")?,
            Place::Toml { line, column } => write!(f, "line {line}, column {column}")?,
        }
        match &self.parameter {
            Some(name) => write!(f, ", parameter `{name}`"),
            None => Ok(()),
        }
    }
}

/// Whether a text is, or may hold, a URL: somebody's password may be in it.
#[cfg(feature = "cli")]
pub(crate) fn may_be_url(text: &str) -> bool {
    text.contains("://")
}

/// The text; of a URL no more than its scheme.
pub(crate) fn masked(text: &str) -> Cow<'_, str> {
    match text.find("://") {
        Some(at) => Cow::Owned(format!("{}://…", &text[..at])),
        None => Cow::Borrowed(text),
    }
}

/// A value in quotes for an error message: escaped, and cut where it is long. Of a URL, no more than its scheme.
pub(crate) fn quoted(value: &str) -> String {
    const LONGEST: usize = 60;
    let value = &*masked(value);
    match value.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("\"{}…\"", value[..end].escape_debug()),
        None => format!("\"{}\"", value.escape_debug()),
    }
}
