//! The error of an invalid configuration.

use std::io;
use std::path::PathBuf;

use super::location::{Location, masked};
use crate::text::Printable;

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
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A setting's value has the wrong form or is out of range.
    #[error("{location}: invalid {setting}: {value}, expected {expected}")]
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
    #[error("{location}: unknown setting `{}`{}", Printable(name), hint(.suggestion.as_deref()))]
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
    #[error("{location}: {}", Printable(problem))]
    #[non_exhaustive]
    Conflict {
        /// Where the settings were given.
        location: String,
        /// The settings, and how to resolve the conflict.
        problem: String,
    },

    /// An invalid database URL. The message quotes nothing that could be part of a password.
    #[error("{location}: {}", Printable(problem))]
    #[non_exhaustive]
    Url {
        /// Where the URL was given.
        location: String,
        /// What is wrong, and how to correct it.
        problem: String,
    },

    /// Text that is not TOML.
    #[error("{location}: invalid TOML: {}", Printable(problem))]
    #[non_exhaustive]
    Toml {
        /// The line and column.
        location: String,
        /// The parser's message.
        problem: String,
    },

    /// A setting that has no default was not given.
    #[error("{setting} is not set: {remedy}")]
    #[non_exhaustive]
    Missing {
        /// The name of the setting.
        setting: &'static str,
        /// How to set it.
        remedy: String,
    },

    /// The URL requires TLS, which this build does not include.
    #[error(
        "{location}: sslmode={sslmode} requires TLS, which this build lacks: enable the feature `tls` of poolscope"
    )]
    #[non_exhaustive]
    TlsUnavailable {
        /// Where the mode was given.
        location: String,
        /// The requested mode.
        sslmode: &'static str,
    },

    /// A file that a setting or a URL parameter names cannot be read, or its content is invalid.
    #[error("{setting} `{}` {}: {remedy}", Printable(path.display()), Printable(problem))]
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
        #[source]
        source: Option<io::Error>,
    },

    /// The system's certificates for verifying the server could not be loaded.
    #[error("{}: {remedy}", Printable(problem))]
    #[non_exhaustive]
    Certificates {
        /// The certificates, and what is wrong with them.
        problem: String,
        /// How to correct it.
        remedy: &'static str,
        /// The operating system's error, if it is the cause.
        #[source]
        source: Option<io::Error>,
    },
}

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

fn hint(suggestion: Option<&str>) -> String {
    suggestion.map_or_else(String::new, |name| format!(": did you mean `{name}`?"))
}
