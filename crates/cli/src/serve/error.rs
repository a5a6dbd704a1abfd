//! The errors of the standalone exporter.

use std::error::Error as StdError;
use std::io;
use std::path::PathBuf;

use poolscope::config::ConfigError;
use poolscope::text::Printable;
use tokio::task::JoinError;

use crate::document::InvalidEntry;
use crate::service::{NotAPath, ServiceError};

/// Why the databases cannot be watched. No message contains a password.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ServeError {
    /// A file cannot be read.
    #[error("cannot read {option} {}", Printable(.path.display()))]
    Read {
        /// The option or key that names it.
        option: &'static str,
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// A URL was given in place of a path.
    #[error(transparent)]
    NotAPath(#[from] NotAPath),
    /// A file's content is invalid.
    #[error("{}", Printable(.path.display()))]
    File {
        /// The file.
        path: PathBuf,
        /// What is invalid.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// A setting is invalid.
    #[error(transparent)]
    Config(Box<ConfigError>),
    /// A key or value of the configuration is invalid.
    #[error(transparent)]
    Entry(#[from] InvalidEntry),
    /// The settings of a database contradict each other, or are unusable.
    #[error("database {}", Printable(name))]
    Database {
        /// The database's name.
        name: String,
        /// What is invalid.
        source: Box<ConfigError>,
    },
    /// The environment has a pool setting, in addition to a configuration file.
    #[error(
        "environment variable {}: the configuration file sets the pools: move it to [defaults] there, or unset it",
        Printable(variable)
    )]
    Environment {
        /// The variable.
        variable: String,
    },
    /// No database is configured.
    #[error(
        "no database is configured: give --config a file with a table [databases.NAME] that has a database_url, or set \
         POOLSCOPE_DATABASE_URL"
    )]
    NoDatabase,
    /// A task that watches a database ended, which is a bug.
    #[error("a task that watches a database has ended")]
    TaskEnded(#[source] Option<JoinError>),
    /// A part that all long-running commands share failed.
    #[error(transparent)]
    Service(#[from] ServiceError),
}

impl ServeError {
    /// Returns whether a flag, a file or an environment variable is the cause.
    #[must_use]
    pub(crate) fn is_usage(&self) -> bool {
        match self {
            Self::Service(error) => error.is_usage(),
            Self::TaskEnded(_) => false,
            _ => true,
        }
    }
}

impl From<ConfigError> for ServeError {
    fn from(error: ConfigError) -> Self {
        Self::Config(Box::new(error))
    }
}
