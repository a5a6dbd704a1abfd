//! Why spans cannot be exported as asked.

use std::io;

/// Why spans cannot be exported as asked. No message shows a header, an endpoint or any other value that may hold a
/// secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OtlpError {
    /// A setting cannot be.
    #[error("{origin}: {problem}")]
    Setting {
        /// Where it stands: `environment variable OTEL_…`, or the flag.
        origin: String,
        /// What is wrong, and what would do.
        problem: String,
    },
    /// The exporter cannot be made of the settings.
    #[error("cannot export spans: {0}")]
    Exporter(String),
    /// The system has no thread to give.
    #[error("cannot start the thread that exports spans")]
    Thread(#[source] io::Error),
}

impl OtlpError {
    pub(super) fn variable(name: &str, problem: impl Into<String>) -> Self {
        Self::Setting { origin: format!("environment variable {name}"), problem: problem.into() }
    }

    /// Whether a setting is to blame.
    #[must_use]
    pub const fn is_usage(&self) -> bool {
        matches!(self, Self::Setting { .. })
    }
}
