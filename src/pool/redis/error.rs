//! The error of establishing a connection to Redis.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use ::redis::RedisError;

use crate::labels::{ConnectFailure, ErrorCode};
use crate::net::{io_code, io_failure};
use crate::text::{ErrorChain, Printable};

/// An error of establishing a connection to Redis, or of a command of the pool itself.
///
/// The message is one line without secrets. It contains the cause, so that [`source`](std::error::Error::source) is `None`.
/// Of an error that the server sent, it has the first word only: the rest may quote arguments.
#[derive(Debug)]
#[non_exhaustive]
pub enum ConnectError {
    /// Connecting, with TLS and authentication, took longer than `connect_timeout`.
    #[non_exhaustive]
    Timeout {
        /// The configured host and port, or the path of the Unix socket.
        address: String,
        /// The `connect_timeout`.
        after: Duration,
    },

    /// The TLS handshake failed, or the server's certificate could not be verified.
    #[non_exhaustive]
    Tls {
        /// As in [`Unreachable`](Self::Unreachable).
        address: String,
        /// A description, with a remedy if there is one.
        problem: String,
        /// The error underneath.
        source: io::Error,
    },

    /// No socket could be opened, or the connection broke before it could be used.
    #[non_exhaustive]
    Unreachable {
        /// Host and port, with the IP address that was tried if the host is a name; or the path of the Unix socket.
        address: String,
        /// The operating system's error.
        source: io::Error,
    },

    /// The server replied with an error while the connection was being established.
    #[non_exhaustive]
    Refused {
        /// As in [`Unreachable`](Self::Unreachable).
        address: String,
        /// The command that failed.
        command: &'static str,
        /// The first word of the server's error.
        code: ErrorCode,
    },

    /// A command of the pool itself failed on an established connection: a ping or a reset.
    #[non_exhaustive]
    Command {
        /// The command.
        command: &'static str,
        /// The first word of the server's error, or a word such as `io`.
        code: ErrorCode,
    },
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeout { address, after } => {
                let after = humantime::format_duration(*after);
                write!(f, "not connected to Redis at {} within connect_timeout ({after})", Printable(address))
            }
            Self::Tls { address, problem, .. } => {
                write!(f, "could not connect to Redis at {}: {problem}", Printable(address))
            }
            Self::Unreachable { address, source } => {
                write!(f, "could not connect to Redis at {}: {}", Printable(address), ErrorChain(source))
            }
            Self::Refused { address, command, code } => {
                let (address, code) = (Printable(address), code.as_str());
                write!(f, "could not connect to Redis at {address}: {} ({command}: {code})", explanation(command, code))
            }
            Self::Command { command, code } => write!(f, "the pool's {command} failed: {}", code.as_str()),
        }
    }
}

impl StdError for ConnectError {}

/// Returns what an error of the server means for a new connection, with a remedy if there is one.
fn explanation(command: &str, code: &str) -> &'static str {
    match (command, code) {
        (_, "MAXCLIENTS") => "the server has as many clients as its maxclients allows",
        (_, "LOADING") => "the server is loading its data",
        (_, "MASTERDOWN") => "the server is a replica without its primary",
        (_, "NOAUTH") => "the server requires a password: give it in the URL",
        (_, "WRONGPASS") => "the user or the password is wrong, or the user is disabled",
        (_, "NOPERM") => "the user may not do that: check its ACL",
        (_, "DENIED") => "the server is in protected mode: set a password there, or bind it to this network",
        (_, "NOPROTO") => "the server does not support RESP3: remove protocol=resp3",
        ("AUTH" | "HELLO", _) => "the server rejected the login: check the user and the password in the URL",
        ("SELECT", _) => "the database does not exist: check its number in the URL",
        _ => "the server replied with an error",
    }
}

impl ConnectError {
    /// Classifies an error of the driver while connecting to `address`, for `command`.
    pub(super) fn refused(error: &RedisError, command: &'static str, address: String) -> Self {
        match io_kind_of(error) {
            Some(io::ErrorKind::BrokenPipe) => {
                let source = io::Error::new(io::ErrorKind::BrokenPipe, "the server closed the connection");
                Self::Unreachable { address, source }
            }
            Some(kind) => Self::Unreachable { address, source: kind.into() },
            None => Self::Refused { address, command, code: code_of(error) },
        }
    }

    pub(super) fn command(error: &RedisError, command: &'static str) -> Self {
        Self::Command { command, code: code_of(error) }
    }

    /// Returns the error's code: the first word of the server's error if it sent one, otherwise `timeout`, `tls`, `io` or
    /// `other`.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Timeout { .. } => ErrorCode::TIMEOUT,
            Self::Tls { .. } => ErrorCode::TLS,
            Self::Unreachable { source, .. } => io_code(source),
            Self::Refused { code, .. } | Self::Command { code, .. } => *code,
        }
    }

    /// Classifies the failure by its implication for the next attempts.
    pub(super) fn connect_failure(&self) -> ConnectFailure {
        match self {
            Self::Timeout { .. } => ConnectFailure::ServerDown,
            Self::Tls { source, .. } => match source.kind() {
                // rustls's errors are of these kinds.
                io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::Other => {
                    ConnectFailure::Configuration
                }
                _ => io_failure(source),
            },
            Self::Unreachable { source, .. } => io_failure(source),
            Self::Refused { code, .. } | Self::Command { code, .. } => match code.as_str() {
                "MAXCLIENTS" => ConnectFailure::TooManyConnections,
                "LOADING" | "MASTERDOWN" => ConnectFailure::ServerStarting,
                "BUSY" | "CLUSTERDOWN" | "OOM" | "io" | "timeout" => ConnectFailure::ServerDown,
                _ => ConnectFailure::Configuration,
            },
        }
    }
}

/// Returns the kind of an error of the network; `None` for another one.
fn io_kind_of(error: &RedisError) -> Option<io::ErrorKind> {
    let source = StdError::source(error);
    // The crate's source is the pointer, not what it points to.
    let pointed = |source: &'_ (dyn StdError + 'static)| {
        let pointer = source.downcast_ref::<Arc<dyn StdError + Send + Sync>>()?;
        pointer.downcast_ref::<io::Error>().map(io::Error::kind)
    };
    let kind =
        source.and_then(|source| source.downcast_ref::<io::Error>().map(io::Error::kind).or_else(|| pointed(source)));
    kind.or_else(|| error.is_io_error().then_some(io::ErrorKind::BrokenPipe))
}

/// Returns the code of an error of the driver.
pub(super) fn code_of(error: &RedisError) -> ErrorCode {
    if let Some(kind) = io_kind_of(error) {
        return io_code(&kind.into());
    }
    if error.kind() == ::redis::ErrorKind::RESP3NotSupported {
        return ErrorCode::new("NOPROTO");
    }
    match error.code() {
        // It has no word of its own.
        Some("ERR") if error.detail().is_some_and(|detail| detail.starts_with("max number of clients")) => {
            ErrorCode::new("MAXCLIENTS")
        }
        Some(code) => ErrorCode::of_redis(code).unwrap_or(ErrorCode::OTHER),
        None => ErrorCode::OTHER,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_explain_the_code_and_have_the_address() {
        let refused = |command, code: &str| ConnectError::Refused {
            address: "cache:6379".to_owned(),
            command,
            code: ErrorCode::new(code),
        };
        for (error, expected, failure) in [
            (
                refused("AUTH", "WRONGPASS"),
                "could not connect to Redis at cache:6379: the user or the password is wrong, or the user is disabled \
                 (AUTH: WRONGPASS)",
                ConnectFailure::Configuration,
            ),
            (
                refused("PING", "MAXCLIENTS"),
                "could not connect to Redis at cache:6379: the server has as many clients as its maxclients allows \
                 (PING: MAXCLIENTS)",
                ConnectFailure::TooManyConnections,
            ),
            (
                refused("SELECT", "ERR"),
                "could not connect to Redis at cache:6379: the database does not exist: check its number in the URL \
                 (SELECT: ERR)",
                ConnectFailure::Configuration,
            ),
            (
                refused("PING", "LOADING"),
                "could not connect to Redis at cache:6379: the server is loading its data (PING: LOADING)",
                ConnectFailure::ServerStarting,
            ),
            (
                ConnectError::Timeout { address: "cache:6379".to_owned(), after: Duration::from_secs(5) },
                "not connected to Redis at cache:6379 within connect_timeout (5s)",
                ConnectFailure::ServerDown,
            ),
        ] {
            assert_eq!((&*error.to_string(), error.connect_failure()), (expected, failure));
        }
    }
}
