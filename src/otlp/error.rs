use std::io;

use crate::text::Printable;

/// An error in the export of spans. No message contains a header, an endpoint or another value that may be a secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OtlpError {
    /// A setting is invalid.
    #[error("{origin}: {}", Printable(problem))]
    Setting {
        /// Where it is set: `environment variable OTEL_…`, or the flag.
        origin: String,
        /// What is wrong, and how to correct it.
        problem: String,
    },
    /// The exporter could not be created from the settings.
    #[error("cannot create the span exporter: {}", Printable(.0))]
    Exporter(String),
    /// The thread that exports could not be started.
    #[error("cannot start the thread that exports spans: {0}")]
    Thread(io::Error),
}

impl OtlpError {
    pub(super) fn variable(name: &str, problem: impl Into<String>) -> Self {
        Self::Setting { origin: format!("environment variable {name}"), problem: problem.into() }
    }

    /// Returns whether a setting is invalid.
    #[must_use]
    pub const fn is_usage(&self) -> bool {
        matches!(self, Self::Setting { .. })
    }
}
