//! Why a connection was not established.

use std::error::Error as StdError;
use std::io;
use std::time::Duration;

use tokio_postgres::Error;

use crate::config::TlsMode;
use crate::labels::ErrorCode;
use crate::pool::ConnectFailure;

/// A connection that was not established.
///
/// The message is one line without secrets; [`source`](StdError::source) has what the layers below say.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// It took longer than `connect_timeout`, whichever of its steps it was at.
    #[error("not connected to PostgreSQL within connect_timeout ({})", humantime::format_duration(*after))]
    #[non_exhaustive]
    Timeout {
        /// The `connect_timeout`.
        after: Duration,
    },

    /// The server does not offer TLS, the handshake failed, or the server's certificate does not verify.
    #[error("{problem}")]
    #[non_exhaustive]
    Tls {
        /// What is wrong, and of a certificate that does not verify also what would do.
        problem: String,
        /// The error underneath.
        source: Error,
    },

    /// No socket could be opened: the name is not known, nobody listens there, or nobody answers.
    #[error("could not connect to PostgreSQL at {address}")]
    #[non_exhaustive]
    Unreachable {
        /// Host and port, or the path of the Unix socket; behind a name, which of its addresses was tried.
        address: String,
        /// What the operating system says.
        source: io::Error,
    },

    /// The server let the connection in, but is not of the kind that `target_session_attrs` asks for.
    #[error("PostgreSQL at {address} {problem}")]
    #[non_exhaustive]
    WrongSession {
        /// As of [`Unreachable`](Self::Unreachable).
        address: String,
        /// In what it differs.
        problem: &'static str,
    },

    /// The configured hosts, their addresses and their ports do not go together. The URL's reader finds that earlier.
    #[error("{problem}")]
    #[non_exhaustive]
    Hosts {
        /// What does not, and what would do.
        problem: String,
    },

    /// The server refused the connection, or it broke off.
    #[error("could not connect to PostgreSQL")]
    Postgres(#[source] Error),
}

impl ConnectError {
    /// Sorts an error that came of connecting under `mode`.
    pub(crate) fn classify(error: Error, mode: &TlsMode) -> Self {
        match tls_problem(&error, mode) {
            Some(problem) => Self::Tls { problem, source: error },
            None => Self::Postgres(error),
        }
    }

    /// There is nothing to connect to.
    pub(super) fn no_host() -> Self {
        Self::Hosts { problem: "no host to connect to: give one as host or hostaddr".to_owned() }
    }

    /// What the error is called in the `sqlstate` label: the server's SQLSTATE if it sent one, else `timeout`,
    /// `tls`, `auth`, `io` or `other`.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Timeout { .. } => ErrorCode::TIMEOUT,
            Self::Tls { .. } => ErrorCode::TLS,
            Self::Unreachable { source, .. } => io_code(source),
            Self::WrongSession { .. } => ErrorCode::IO,
            Self::Hosts { .. } => ErrorCode::OTHER,
            Self::Postgres(error) => error_code(error),
        }
    }
}

impl ConnectError {
    /// Classifies the failure. Every error but 53300, a wrong password included, would be the same for the next checkouts.
    pub(crate) fn connect_failure(&self) -> ConnectFailure {
        // too_many_connections, of the server, of a database or of a role.
        if self.code() == ErrorCode::word("53300") {
            ConnectFailure::TooManyConnections
        } else {
            ConnectFailure::ServerDown
        }
    }
}

/// What tokio-postgres' error is called in the `sqlstate` label.
pub(crate) fn error_code(error: &Error) -> ErrorCode {
    if let Some(state) = error.code() {
        return ErrorCode::word(state.code());
    }
    if is_tls(error) {
        return ErrorCode::TLS;
    }
    if is_authentication(error) {
        return ErrorCode::AUTH;
    }
    match find::<io::Error>(error) {
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

/// tokio-postgres keeps the kind of its errors to itself; the text of each kind is fixed, and held by the tests.
fn is_tls(error: &Error) -> bool {
    error.to_string() == "error performing TLS handshake"
}

fn is_authentication(error: &Error) -> bool {
    let no_password = || error.source().is_some_and(|source| source.to_string() == "password missing");
    error.to_string() == "authentication error" || no_password()
}

/// The first `E` among the error and its sources.
fn find<'a, E: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        // An io::Error's source is that of the error within it, not the error within it.
        next = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(within) => Some(within),
            None => error.source(),
        };
    }
    None
}

/// What to tell about an error that has to do with TLS; `None` if it does not.
fn tls_problem(error: &Error, mode: &TlsMode) -> Option<String> {
    let sslmode = mode.as_str();
    #[cfg(feature = "tls")]
    match find::<rustls::Error>(error) {
        Some(rustls::Error::InvalidCertificate(reason)) => {
            return Some(format!(
                "the server's certificate does not verify (sslmode={sslmode}): {}",
                certificate_problem(reason)
            ));
        }
        Some(_) => return Some(format!("the TLS handshake failed (sslmode={sslmode})")),
        None => {}
    }
    if !is_tls(error) {
        return None;
    }
    // The sources are text without a type here.
    let refused = error.source().is_some_and(|source| source.to_string() == "server does not support TLS");
    Some(if refused {
        format!("the server does not offer TLS (sslmode={sslmode}): turn it on there, or give sslmode=prefer")
    } else {
        format!("the TLS handshake failed (sslmode={sslmode})")
    })
}

#[cfg(feature = "tls")]
fn certificate_problem(reason: &rustls::CertificateError) -> String {
    use rustls::CertificateError as Reason;
    match reason {
        Reason::UnknownIssuer => "unknown issuer: give the certificate of its authority as sslrootcert".to_owned(),
        Reason::NotValidForNameContext { expected, presented } => {
            let expected = expected.to_str();
            if presented.is_empty() {
                format!(
                    "it names no host as subjectAltName, the only place where names count: \
                     issue one for `{expected}`, or give sslmode=verify-ca"
                )
            } else {
                format!(
                    "it is for other names than `{expected}` ({}): connect by one of them, \
                     or give sslmode=verify-ca",
                    presented.iter().map(|name| bare(name)).collect::<Vec<_>>().join(", ")
                )
            }
        }
        Reason::NotValidForName => "it is for other names than the host's".to_owned(),
        Reason::Expired | Reason::ExpiredContext { .. } => "it has expired: renew it".to_owned(),
        Reason::BadSignature => "a signature does not match: the server does not hold the certificate's key, or the \
                                 authority has another key than its namesake in sslrootcert"
            .to_owned(),
        Reason::NotValidYet | Reason::NotValidYetContext { .. } => "it is not valid yet: compare the clocks".to_owned(),
        // webpki's own error, which rustls hands on without its type.
        Reason::Other(other) if other.to_string() == "CaUsedAsEndEntity" => {
            "it is an authority's own, self-signed: issue one for the server with CA:FALSE".to_owned()
        }
        other => other.to_string(),
    }
}

/// A name as rustls presents it, `DnsName("db.example")`, without its type.
#[cfg(feature = "tls")]
fn bare(name: &str) -> &str {
    let within = name.split_once('(').map_or(name, |(_, within)| within.trim_end_matches(')'));
    within.trim_matches('"')
}
