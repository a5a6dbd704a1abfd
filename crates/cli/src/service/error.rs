//! Why what a service is made of could not start, or not go on.

use std::error::Error as StdError;
use std::io;
use std::path::Path;

use super::quote::may_be_url;
use super::web_settings::WebError;
use poolscope::exporter::ExporterError;

/// Why what a service is made of could not start, or not go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServiceError {
    /// The exporter cannot serve as it was told to.
    #[error(transparent)]
    Web(#[from] WebError),
    /// The exporter could not go on.
    #[error(transparent)]
    Exporter(#[from] ExporterError),
    /// The service manager that the environment names cannot be told anything.
    #[error("cannot reach the service manager that NOTIFY_SOCKET names")]
    Manager(#[source] io::Error),
    /// The system refuses what everything runs on: threads, signals, metrics.
    #[error("cannot start")]
    System(#[source] Box<dyn StdError + Send + Sync>),
}

impl ServiceError {
    /// Whether a flag or an environment variable is to blame.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Web(error) if error.is_usage())
    }

    pub(crate) fn system(source: impl StdError + Send + Sync + 'static) -> Self {
        Self::System(Box::new(source))
    }
}

/// A URL stands where the path of a file belongs. Named as a file that cannot be read, it would be shown with its password.
#[derive(Debug, thiserror::Error)]
#[error("{what} takes the path of a file, and was given a URL: {remedy}")]
pub struct NotAPath {
    what: &'static str,
    remedy: &'static str,
}

impl NotAPath {
    /// Takes whatever is no URL.
    ///
    /// # Errors
    ///
    /// That `what` was given one; `remedy` says what would do.
    pub fn check(path: &Path, what: &'static str, remedy: &'static str) -> Result<(), Self> {
        if may_be_url(&path.to_string_lossy()) { Err(Self { what, remedy }) } else { Ok(()) }
    }
}
