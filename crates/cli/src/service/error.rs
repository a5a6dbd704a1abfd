//! The errors of long-running commands.

use std::error::Error as StdError;
use std::io;
use std::path::Path;

use poolscope::exporter::ExporterError;

use super::quote::may_be_url;
use super::web_settings::WebError;

/// Why a long-running command could not start, or stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ServiceError {
    /// The exporter cannot listen or serve as configured.
    #[error(transparent)]
    Web(#[from] WebError),
    /// The exporter stopped serving.
    #[error(transparent)]
    Exporter(#[from] ExporterError),
    /// The socket of the service manager is invalid or unreachable.
    #[error("cannot connect to the service manager at NOTIFY_SOCKET")]
    ServiceManager(#[source] io::Error),
    /// The operating system refused a thread, a signal handler or process metrics.
    #[error("cannot start")]
    System(#[source] Box<dyn StdError + Send + Sync>),
}

impl ServiceError {
    /// Returns whether a flag or an environment variable is the cause.
    #[must_use]
    pub(crate) fn is_usage(&self) -> bool {
        matches!(self, Self::Web(error) if error.is_usage())
    }

    pub(crate) fn system(source: impl StdError + Send + Sync + 'static) -> Self {
        Self::System(Box::new(source))
    }
}

/// A URL was given in place of a path. An error about an unreadable file would print it with its password.
#[derive(Debug, thiserror::Error)]
#[error("{option} expects the path of a file, not a URL: {remedy}")]
pub(crate) struct NotAPath {
    option: &'static str,
    remedy: &'static str,
}

impl NotAPath {
    /// Checks that the value of `option` is not a URL.
    ///
    /// # Errors
    ///
    /// Returns an error with `remedy` as the next step if it may be one.
    pub(crate) fn check(path: &Path, option: &'static str, remedy: &'static str) -> Result<(), Self> {
        if may_be_url(&path.to_string_lossy()) { Err(Self { option, remedy }) } else { Ok(()) }
    }
}
