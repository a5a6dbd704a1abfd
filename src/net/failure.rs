//! The classification of errors of the operating system and of the resolver.

use std::io::{self, ErrorKind};

use super::unix;
use crate::labels::{ConnectFailure, ErrorCode};

/// Returns the code of an error of a socket.
pub(crate) fn io_code(error: &io::Error) -> ErrorCode {
    match error.kind() {
        ErrorKind::TimedOut => ErrorCode::TIMEOUT,
        _ => ErrorCode::IO,
    }
}

/// Classifies an error of connecting.
pub(crate) fn io_failure(error: &io::Error) -> ConnectFailure {
    match error.kind() {
        // A Unix socket returns EAGAIN when the server's accept queue is full.
        ErrorKind::WouldBlock | ErrorKind::Interrupted | ErrorKind::OutOfMemory | ErrorKind::AddrNotAvailable => {
            ConnectFailure::LocalResource
        }
        ErrorKind::PermissionDenied => ConnectFailure::Configuration,
        _ if unix::is_exhausted(error) || is_interrupted_lookup(error) => ConnectFailure::LocalResource,
        _ => ConnectFailure::ServerDown,
    }
}

/// Returns whether an error is EAI_AGAIN of `getaddrinfo`. The standard library passes on its text alone, that of glibc
/// and BSD or that of musl.
fn is_interrupted_lookup(error: &io::Error) -> bool {
    let text = error.to_string();
    text.starts_with("failed to lookup address information: ")
        && (text.ends_with("Temporary failure in name resolution") || text.ends_with("Try again"))
}
