//! The error of establishing a connection.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::time::Duration;

use tokio_postgres::Error;

use super::error_source::find_source;
use super::tls;
use crate::config::TlsMode;
use crate::labels::ErrorCode;
use crate::net::io_code;
use crate::text::{ErrorChain, Printable, printable};
use crate::wire::LimitExceeded;

/// An error of establishing a connection.
///
/// The message is one line without secrets. It contains the cause, so that [`source`](StdError::source) is `None`: the
/// variants' fields have the errors underneath. Of an error that the server sent, it omits what may quote values.
#[derive(Debug)]
#[non_exhaustive]
pub enum ConnectError {
    /// Connecting, with TLS and authentication, took longer than `connect_timeout`.
    #[non_exhaustive]
    Timeout {
        /// The configured hosts and ports, or paths of Unix sockets.
        address: String,
        /// The `connect_timeout`.
        after: Duration,
    },

    /// The server does not offer TLS, the handshake failed, or the server's certificate could not be verified.
    #[non_exhaustive]
    Tls {
        /// As in [`Unreachable`](Self::Unreachable).
        address: String,
        /// A description, with a remedy if there is one. Names in certificates and paths are escaped.
        problem: String,
        /// The error underneath.
        source: Error,
    },

    /// No socket could be opened: the name is unknown, or the address refuses connections or does not answer.
    #[non_exhaustive]
    Unreachable {
        /// Host and port, with the IP address that was tried if the host is a name; or the path of the Unix socket.
        address: String,
        /// The operating system's error.
        source: io::Error,
    },

    /// The server accepted the connection, but the session does not match `target_session_attrs`.
    #[non_exhaustive]
    WrongSession {
        /// As in [`Unreachable`](Self::Unreachable).
        address: String,
        /// The difference.
        problem: &'static str,
    },

    /// The numbers of hosts, addresses and ports do not match. The URL's parser reports that earlier.
    #[non_exhaustive]
    Hosts {
        /// A description with a remedy.
        problem: String,
    },

    /// The password provider failed, or the password file has no password for this server.
    #[non_exhaustive]
    Password {
        /// A description with a remedy.
        problem: String,
        /// The provider's error.
        source: Option<Box<dyn StdError + Send + Sync>>,
    },

    /// The server's answer to a query of the pool itself is longer than PostgreSQL's.
    #[non_exhaustive]
    Answer {},

    /// The hook [`after_connect`](crate::PoolBuilder::after_connect) failed, left a transaction or a query behind, or had
    /// not ended after `connect_timeout`.
    #[non_exhaustive]
    AfterConnect {
        /// The hook's error.
        source: Box<dyn StdError + Send + Sync>,
    },

    /// The hook [`before_checkout`](crate::PoolBuilder::before_checkout) failed, or left a transaction or a query behind.
    #[non_exhaustive]
    BeforeCheckout {
        /// The hook's error.
        source: Box<dyn StdError + Send + Sync>,
    },

    /// A query of the pool itself failed on an established connection: a ping or a reset.
    #[non_exhaustive]
    Query {
        /// The error of tokio-postgres.
        source: Error,
    },

    /// The server refused the connection, closed it, or sent more than a session's start may need.
    #[non_exhaustive]
    Postgres {
        /// As in [`Unreachable`](Self::Unreachable).
        address: String,
        /// The error of tokio-postgres.
        source: Error,
    },
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeout { address, after } => {
                let after = humantime::format_duration(*after);
                write!(f, "not connected to PostgreSQL at {} within connect_timeout ({after})", Printable(address))
            }
            Self::Tls { address, problem, .. } => {
                write!(f, "could not connect to PostgreSQL at {}: {problem}", Printable(address))
            }
            Self::Unreachable { address, source } => {
                write!(f, "could not connect to PostgreSQL at {}: {}", Printable(address), ErrorChain(source))
            }
            Self::WrongSession { address, problem } => write!(f, "PostgreSQL at {} {problem}", Printable(address)),
            Self::Hosts { problem } | Self::Password { problem, source: None } => f.write_str(problem),
            Self::Password { problem, source: Some(source) } => write!(f, "{problem}: {}", ErrorChain(&**source)),
            Self::Answer {} => f.write_str(
                "the server's answer to a query of the pool is too long: check that the address is a PostgreSQL server's",
            ),
            Self::Query { source } => write!(f, "a query of the pool failed: {}", ErrorChain(source)),
            Self::AfterConnect { source } => write!(f, "the hook after_connect failed: {}", ErrorChain(&**source)),
            Self::BeforeCheckout { source } => write!(f, "the hook before_checkout failed: {}", ErrorChain(&**source)),
            Self::Postgres { address, source } => {
                write!(f, "could not connect to PostgreSQL at {}: {}", Printable(address), ErrorChain(source))
            }
        }
    }
}

impl StdError for ConnectError {}

impl ConnectError {
    /// Classifies an error of connecting to `address` under `mode`.
    pub(crate) fn classify(error: Error, mode: &TlsMode, address: String) -> Self {
        match tls_problem(&error, mode) {
            Some(problem) => Self::Tls { address, problem: printable(&problem).into_owned(), source: error },
            None => Self::Postgres { address, source: error },
        }
    }

    pub(super) fn query(source: Error) -> Self {
        Self::Query { source }
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
            Self::Query { source } | Self::Postgres { source, .. } => error_code(source),
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
        let cause = StdError::source(error).map_or_else(|| error.to_string(), |source| ErrorChain(source).to_string());
        format!("the TLS handshake failed (sslmode={sslmode}): {cause}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What prints the sources of an error as well must not print the cause twice.
    #[test]
    fn messages_have_the_address_and_the_cause() {
        let address = || "db.example:5432 (10.1.2.3)".to_owned();
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let boxed = |text: &str| -> Box<dyn StdError + Send + Sync> { text.into() };
        for (error, expected) in [
            (
                ConnectError::Timeout { address: address(), after: Duration::from_secs(5) },
                "not connected to PostgreSQL at db.example:5432 (10.1.2.3) within connect_timeout (5s)",
            ),
            (
                ConnectError::Unreachable { address: address(), source: refused() },
                "could not connect to PostgreSQL at db.example:5432 (10.1.2.3): connection refused",
            ),
            (
                ConnectError::Unreachable { address: "/run/a\nb".to_owned(), source: refused() },
                "could not connect to PostgreSQL at /run/a\\nb: connection refused",
            ),
            (
                ConnectError::WrongSession { address: address(), problem: "does not allow writes" },
                "PostgreSQL at db.example:5432 (10.1.2.3) does not allow writes",
            ),
            (ConnectError::no_host(), "no host to connect to: give one as host or hostaddr"),
            (
                ConnectError::Password {
                    problem: "the password provider failed".to_owned(),
                    source: Some(boxed("no token")),
                },
                "the password provider failed: no token",
            ),
            (
                ConnectError::Answer {},
                "the server's answer to a query of the pool is too long: check that the address is a PostgreSQL server's",
            ),
            (ConnectError::AfterConnect { source: boxed("no role") }, "the hook after_connect failed: no role"),
            (ConnectError::BeforeCheckout { source: boxed("no tenant") }, "the hook before_checkout failed: no tenant"),
        ] {
            assert_eq!(error.to_string(), expected);
            assert!(error.source().is_none(), "{error:?}");
            assert_eq!(ErrorChain(&error).to_string(), expected);
        }
    }
}
