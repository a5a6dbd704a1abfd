//! The errors of a proxy.

use std::io;

use crate::config::ConfigError;
use crate::text::Printable;

/// Why a proxy cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyError {
    /// The URL of the server is invalid.
    #[error("the upstream's URL")]
    Url(#[source] Box<ConfigError>),
    /// The URL of the server has parts that a proxy does not need.
    #[error("the upstream's URL {0}")]
    Upstream(&'static str),
    /// A setting is out of range.
    #[error("{0}")]
    Setting(&'static str),
    /// A file of TLS is unusable.
    #[error("TLS")]
    Tls(#[source] Box<ConfigError>),
    /// A thread cannot be started.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
    /// The proxy cannot listen at an address.
    #[error("cannot listen at {}", Printable(address))]
    Listen {
        /// The address.
        address: String,
        /// The error of the operating system.
        source: io::Error,
    },
}

impl ProxyError {
    /// Returns whether a setting is the cause, rather than the state of the system.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        !matches!(self, Self::Listen { .. } | Self::Thread(_))
    }
}
