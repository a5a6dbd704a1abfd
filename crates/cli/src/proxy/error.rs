//! The errors of the proxy.

use std::io;
use std::path::PathBuf;

use poolscope::proxy::ProxyError;
use poolscope::text::Printable;

use crate::document::InvalidEntry;
use crate::service::{NotAPath, ServiceError};

/// Why the proxy cannot run. No message contains a password.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ProxyCommandError {
    /// The configuration cannot be read.
    #[error("cannot read --config {}", Printable(.path.display()))]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// A URL was given in place of a path.
    #[error(transparent)]
    NotAPath(#[from] NotAPath),
    /// A key or value of the configuration is invalid.
    #[error("{}", Printable(.path.display()))]
    File {
        /// The file.
        path: PathBuf,
        /// What is invalid.
        source: InvalidEntry,
    },
    /// A flag is invalid.
    #[error("--{flag}: {problem}")]
    Flag {
        /// The flag.
        flag: &'static str,
        /// What is expected.
        problem: &'static str,
    },
    /// No server is configured.
    #[error("no server is configured: give --upstream postgres://HOST:PORT, or upstream in the file of --config")]
    NoUpstream,
    /// The settings are invalid as a whole, or the proxy cannot listen.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    /// A part that all long-running commands share failed.
    #[error(transparent)]
    Service(#[from] ServiceError),
}

impl ProxyCommandError {
    /// Returns whether a flag, a file or an environment variable is the cause.
    #[must_use]
    pub(crate) fn is_usage(&self) -> bool {
        match self {
            Self::Service(error) => error.is_usage(),
            Self::Proxy(error) => error.is_usage(),
            _ => true,
        }
    }
}
