//! The error of establishing a connection.

use std::error::Error as StdError;
use std::io;
use std::time::Duration;

use tokio_postgres::Error;

use super::error_source::find_source;
use super::tls;
use crate::config::TlsMode;
use crate::labels::ErrorCode;
use crate::pool::wire::LimitExceeded;
use crate::text::printable;

/// An error of establishing a connection.
///
/// The message is one line without secrets; [`source`](StdError::source) is the error of the layer below.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// Connecting, with TLS and authentication, took longer than `connect_timeout`.
    #[error("not connected to PostgreSQL within connect_timeout ({})", humantime::format_duration(*after))]
    #[non_exhaustive]
    Timeout {
        /// The `connect_timeout`.
        after: Duration,
    },

    /// The server does not offer TLS, the handshake failed, or the server's certificate could not be verified.
    #[error("{problem}")]
    #[non_exhaustive]
    Tls {
        /// A description, with a remedy if there is one. Names in certificates and paths are escaped.
        problem: String,
        /// The error underneath.
        source: Error,
    },

    /// No socket could be opened: the name is unknown, or the address refuses connections or does not answer.
    #[error("could not connect to PostgreSQL at {address}")]
    #[non_exhaustive]
    Unreachable {
        /// Host and port, with the IP address that was tried if the host is a name; or the path of the Unix socket.
        address: String,
        /// The operating system's error.
        source: io::Error,
    },

    /// The server accepted the connection, but the session does not match `target_session_attrs`.
    #[error("PostgreSQL at {address} {problem}")]
    #[non_exhaustive]
    WrongSession {
        /// As in [`Unreachable`](Self::Unreachable).
        address: String,
        /// The difference.
        problem: &'static str,
    },

    /// The numbers of hosts, addresses and ports do not match. The URL's parser reports that earlier.
    #[error("{problem}")]
    #[non_exhaustive]
    Hosts {
        /// A description with a remedy.
        problem: String,
    },

    /// The password provider failed, or the password file has no password for this server.
    #[error("{problem}")]
    #[non_exhaustive]
    Password {
        /// A description with a remedy.
        problem: String,
        /// The provider's error.
        source: Option<Box<dyn StdError + Send + Sync>>,
    },

    /// The server's answer to a query of the pool itself is longer than PostgreSQL's.
    #[error("the server's answer to a query of the pool is too long: check that the address is a PostgreSQL server's")]
    #[non_exhaustive]
    Answer {},

    /// The hook [`after_connect`](crate::PoolBuilder::after_connect) failed, left a transaction or a query behind, or had
    /// not ended after `connect_timeout`.
    #[error("the hook after_connect failed")]
    #[non_exhaustive]
    AfterConnect {
        /// The hook's error.
        source: Box<dyn StdError + Send + Sync>,
    },

    /// The hook [`before_checkout`](crate::PoolBuilder::before_checkout) failed, or left a transaction or a query behind.
    #[error("the hook before_checkout failed")]
    #[non_exhaustive]
    BeforeCheckout {
        /// The hook's error.
        source: Box<dyn StdError + Send + Sync>,
    },

    /// The server refused the connection, closed it, or sent more than a session's start may need.
    #[error("could not connect to PostgreSQL")]
    Postgres(#[source] Error),
}

impl ConnectError {
    /// Classifies an error of connecting under `mode`.
    pub(crate) fn classify(error: Error, mode: &TlsMode) -> Self {
        match tls_problem(&error, mode) {
            Some(problem) => Self::Tls { problem: printable(&problem).into_owned(), source: error },
            None => Self::Postgres(error),
        }
    }

    pub(super) fn no_host() -> Self {
        Self::Hosts { problem: "no host to connect to: give one as host or hostaddr".to_owned() }
    }

    /// Returns the error's code: the server's SQLSTATE if it sent one, otherwise `timeout`,
    /// `tls`, `auth`, `hook`, `io` or `other`.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Timeout { .. } => ErrorCode::TIMEOUT,
            Self::Tls { .. } => ErrorCode::TLS,
            Self::Unreachable { source, .. } => io_code(source),
            Self::WrongSession { .. } | Self::Answer {} => ErrorCode::IO,
            Self::Hosts { .. } => ErrorCode::OTHER,
            Self::Password { .. } => ErrorCode::AUTH,
            Self::AfterConnect { .. } | Self::BeforeCheckout { .. } => ErrorCode::HOOK,
            Self::Postgres(error) => error_code(error),
        }
    }
}

/// Returns the code of an error of tokio-postgres.
pub(crate) fn error_code(error: &Error) -> ErrorCode {
    if let Some(state) = error.code() {
        return ErrorCode::new(state.code());
    }
    if is_tls(error) {
        return ErrorCode::TLS;
    }
    if is_authentication(error) {
        return ErrorCode::AUTH;
    }
    match find_source::<io::Error>(error) {
        Some(error) if LimitExceeded::is_authentication(error) => ErrorCode::AUTH,
        Some(error) => io_code(error),
        None if error.is_closed() => ErrorCode::IO,
        None => ErrorCode::OTHER,
    }
}

fn io_code(error: &io::Error) -> ErrorCode {
    match error.kind() {
        io::ErrorKind::TimedOut => ErrorCode::TIMEOUT,
        _ => ErrorCode::IO,
    }
}

/// Identifies the kind by its text, since tokio-postgres does not expose it. Tests check the texts.
fn is_tls(error: &Error) -> bool {
    error.to_string() == "error performing TLS handshake"
}

pub(super) fn is_authentication(error: &Error) -> bool {
    error.to_string() == "authentication error" || is_password_missing(error)
}

/// Returns whether the server requires a password and none was configured.
pub(super) fn is_password_missing(error: &Error) -> bool {
    error.source().is_some_and(|source| source.to_string() == "password missing")
}

/// Returns what is wrong with the connection's TLS; `None` if the error has another cause.
fn tls_problem(error: &Error, mode: &TlsMode) -> Option<String> {
    let sslmode = mode.as_str();
    if let Some(problem) = tls::tls_problem(error, sslmode) {
        return Some(problem);
    }
    if !is_tls(error) {
        return None;
    }
    // tokio-postgres's sources have no public type.
    let unsupported = error.source().is_some_and(|source| source.to_string() == "server does not support TLS");
    Some(if unsupported {
        format!("the server does not offer TLS (sslmode={sslmode}): enable it there, or give sslmode=prefer")
    } else {
        format!("the TLS handshake failed (sslmode={sslmode})")
    })
}
