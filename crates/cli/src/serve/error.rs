//! Why the databases could not be watched.

use std::error::Error as StdError;
use std::io;
use std::path::PathBuf;

use tokio::task::JoinError;

use super::document::InvalidEntry;
use crate::service::{NotAPath, ServiceError};
use poolscope::config::ConfigError;

/// Why the databases could not be watched. No message shows a password.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// A file cannot be read.
    #[error("{} cannot be read", .path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A URL stands where the path of a file belongs.
    #[error(transparent)]
    NotAPath(#[from] NotAPath),
    /// What stands in a file cannot be.
    #[error("{}", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What cannot be.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// What was given elsewhere cannot be.
    #[error(transparent)]
    Config(Box<ConfigError>),
    /// A key or value of the configuration is invalid.
    #[error(transparent)]
    Entry(#[from] InvalidEntry),
    /// The settings of a database do not go together, or cannot be used.
    #[error("database {name}")]
    Database {
        /// Its name.
        name: String,
        /// What cannot be.
        source: Box<ConfigError>,
    },
    /// The environment has settings beside a configuration.
    #[error(
        "environment variable {variable}: the configuration's file says how pools are set: give it under [defaults] there, or unset it"
    )]
    Environment {
        /// Which variable.
        variable: String,
    },
    /// There is no database to be watched.
    #[error(
        "no database is named: give --config a file with a table [databases.NAME] that has a database_url, or set \
         POOLSCOPE_DATABASE_URL"
    )]
    Nothing,
    /// Watching a database ended by itself, which is a fault of this program.
    #[error("a task that watches a database has ended")]
    Ended(#[source] Option<JoinError>),
    /// What a service is made of failed.
    #[error(transparent)]
    Service(#[from] ServiceError),
}

impl ServeError {
    /// Whether a flag, a file or an environment variable is to blame.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        match self {
            Self::Service(error) => error.is_usage(),
            Self::Ended(_) => false,
            _ => true,
        }
    }
}

impl From<ConfigError> for ServeError {
    fn from(error: ConfigError) -> Self {
        Self::Config(Box::new(error))
    }
}
