//! The error of an invalid configuration.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::PathBuf;

use super::location::{Location, masked};
use crate::text::{ErrorChain, Printable};

/// An invalid setting, database URL or certificate file.
///
/// The message is one line that names the location of the value, the problem and a valid alternative. It never
/// contains a password, or any part of a text that could be one.
///
/// ```
/// use poolscope::{ConfigError, Settings};
///
/// let error = Settings::from_toml("pool_size = 0").unwrap_err();
/// assert!(matches!(error, ConfigError::Invalid { setting: "pool_size", .. }));
/// assert_eq!(
///     error.to_string(),
///     "line 1, column 13: invalid pool_size: \"0\", expected a whole number from 1 to 10000",
/// );
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum ConfigError {
    /// A setting's value has the wrong form or is out of range.
    #[non_exhaustive]
    Invalid {
        /// Where the value was given.
        location: String,
        /// The name of the setting or of the URL parameter.
        setting: &'static str,
        /// The value in quotes, or its type if that is wrong.
        value: String,
        /// The values that are accepted.
        expected: String,
    },

    /// A name that no setting has.
    #[non_exhaustive]
    Unknown {
        /// Where the name was given.
        location: String,
        /// The name as it was given.
        name: String,
        /// The most similar name of a setting, spelled as that location requires.
        suggestion: Option<String>,
    },

    /// Two settings, each valid alone, contradict each other.
    #[non_exhaustive]
    Conflict {
        /// Where the settings were given.
        location: String,
        /// The settings, and how to resolve the conflict.
        problem: String,
    },

    /// An invalid database URL. The message quotes nothing that could be part of a password.
    #[non_exhaustive]
    Url {
        /// Where the URL was given.
        location: String,
        /// What is wrong, and how to correct it.
        problem: String,
    },

    /// Text that is not TOML.
    #[non_exhaustive]
    Toml {
        /// The line and column.
        location: String,
        /// The parser's message.
        problem: String,
    },

    /// A setting that has no default was not given.
    #[non_exhaustive]
    Missing {
        /// The name of the setting.
        setting: &'static str,
        /// How to set it.
        remedy: String,
    },

    /// The URL requires TLS, which this build does not include.
    #[non_exhaustive]
    TlsUnavailable {
        /// Where the mode was given.
        location: String,
        /// The requested mode.
        sslmode: &'static str,
    },

    /// A file that a setting or a URL parameter names cannot be read, or its content is invalid.
    #[non_exhaustive]
    File {
        /// The name of the setting or parameter.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong, with the line if there is one.
        problem: String,
        /// How to correct it.
        remedy: &'static str,
        /// The operating system's error, if it is the cause.
        source: Option<io::Error>,
    },

    /// The system's certificates for verifying the server could not be loaded.
    #[non_exhaustive]
    Certificates {
        /// The certificates, and what is wrong with them.
        problem: String,
        /// How to correct it.
        remedy: &'static str,
        /// The operating system's error, if it is the cause.
        source: Option<io::Error>,
    },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid { location, setting, value, expected } => {
                write!(f, "{location}: invalid {setting}: {value}, expected {expected}")
            }
            Self::Unknown { location, name, suggestion } => {
                write!(f, "{location}: unknown setting `{}`{}", Printable(name), hint(suggestion.as_deref()))
            }
            Self::Conflict { location, problem } | Self::Url { location, problem } => {
                write!(f, "{location}: {}", Printable(problem))
            }
            Self::Toml { location, problem } => write!(f, "{location}: invalid TOML: {}", Printable(problem)),
            Self::Missing { setting, remedy } => write!(f, "{setting} is not set: {remedy}"),
            Self::TlsUnavailable { location, sslmode } => write!(
                f,
                "{location}: sslmode={sslmode} requires TLS, which this build lacks: enable the \
                 feature `tls` of poolscope"
            ),
            Self::File { setting, path, problem, remedy, source } => {
                let (path, problem) = (Printable(path.display()), Printable(problem));
                write!(f, "{setting} `{path}` {problem}: {remedy}{}", Cause(source.as_ref()))
            }
            Self::Certificates { problem, remedy, source } => {
                write!(f, "{}: {remedy}{}", Printable(problem), Cause(source.as_ref()))
            }
        }
    }
}

/// The message contains the cause, so there is no source; the variants' fields have the errors underneath.
impl StdError for ConfigError {}

impl ConfigError {
    pub(super) fn unknown(location: &Location, name: &str, suggestion: Option<String>) -> Self {
        Self::Unknown { location: location.to_string(), name: masked(name).escape_debug().to_string(), suggestion }
    }

    pub(super) fn conflict(location: &Location, problem: impl Into<String>) -> Self {
        Self::Conflict { location: location.to_string(), problem: problem.into() }
    }

    pub(super) fn url(location: &Location, problem: impl Into<String>) -> Self {
        Self::Url { location: location.to_string(), problem: problem.into() }
    }
}

/// Displays the operating system's error, if it is the cause.
struct Cause<'a>(Option<&'a io::Error>);

impl fmt::Display for Cause<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |error| write!(f, ": {}", ErrorChain(error)))
    }
}

fn hint(suggestion: Option<&str>) -> String {
    suggestion.map_or_else(String::new, |name| format!(": did you mean `{name}`?"))
}
