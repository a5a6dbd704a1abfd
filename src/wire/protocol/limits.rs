//! How much a server may send. Where an application's own queries are answered, only the impossible is refused.

use std::io;

/// The longest possible message: a body of the largest block that the server allocates, and the length field.
pub(super) const MAX_MESSAGE_LENGTH: u32 = 0x3fff_ffff + 4;

/// The longest message that needs no reason: while a session starts, and while no request is pending.
pub(super) const LARGE_MESSAGE_LENGTH: u32 = 64 * 1024;

/// The longest message while the pool itself uses a connection. Longer than its own queries need, because it also waits
/// for the answers that a caller has abandoned.
pub(super) const MAX_MAINTENANCE_MESSAGE_LENGTH: u32 = 16 * 1024 * 1024;

/// The bytes that a server may send before its first `ReadyForQuery`.
pub(super) const MAX_STARTUP_BYTES: u64 = 1024 * 1024;

/// The parameters that a server may report, and the total length of the latest report of each. tokio-postgres keeps
/// them for as long as the connection exists.
const MAX_PARAMETERS: usize = 128;
const MAX_PARAMETER_BYTES: u32 = 256 * 1024;

/// The server sent more than it may, or requests what it must not; the connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LimitExceeded {
    #[error(
        "the server announced a message of {length} bytes, which is not possible in PostgreSQL's protocol: check that \
         the address is a PostgreSQL server's"
    )]
    ImpossibleLength { length: u32 },
    #[error(
        "the server announced a message of {length} bytes while the session was starting, expected at most \
         {LARGE_MESSAGE_LENGTH}: check that the address is a PostgreSQL server's"
    )]
    StartupMessage { length: u32 },
    #[error(
        "the server sent more than {MAX_STARTUP_BYTES} bytes while the session was starting: check that the address is \
         a PostgreSQL server's"
    )]
    Startup,
    #[error(
        "the server announced a message of {length} bytes without a request, expected at most {LARGE_MESSAGE_LENGTH}"
    )]
    Unrequested { length: u32 },
    #[error(
        "the server announced a message of {length} bytes while the pool used the connection itself, expected at most \
         {MAX_MAINTENANCE_MESSAGE_LENGTH}"
    )]
    Maintenance { length: u32 },
    #[error(
        "the server reported more than {MAX_PARAMETERS} parameters, or more than {MAX_PARAMETER_BYTES} bytes of them"
    )]
    Parameters,
    #[error(
        "the server requests the authentication method {method}, which require_auth does not allow: configure another one \
         there, or add it to require_auth"
    )]
    AuthenticationMethod { method: &'static str },
    #[error(
        "the server requests a password in clear text on a connection without TLS: enable TLS there and give \
         sslmode=verify-full or require, or give require_auth=password if the network is trusted"
    )]
    ClearTextPassword,
    #[error("the server's answer is longer than {limit} bytes, the limit of this connection")]
    Answer { limit: u64 },
}

impl LimitExceeded {
    /// Returns whether the error of a stream is about the authentication method.
    pub(crate) fn is_authentication(error: &io::Error) -> bool {
        let exceeded = error.get_ref().and_then(|source| source.downcast_ref());
        matches!(exceeded, Some(Self::AuthenticationMethod { .. } | Self::ClearTextPassword))
    }

    /// Returns whether the error of a stream is this one.
    pub(crate) fn is_source_of(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|source| source.is::<Self>())
    }
}

impl From<LimitExceeded> for io::Error {
    fn from(exceeded: LimitExceeded) -> Self {
        Self::new(io::ErrorKind::InvalidData, exceeded)
    }
}

/// The names of the parameters that the server has reported, and the length of the latest report of each.
#[derive(Debug, Default)]
pub(super) struct ReportedParameters {
    lengths: Vec<(Box<[u8]>, u32)>,
    /// The name that is being read, and the length of its message.
    name: Vec<u8>,
    length: u32,
}

impl ReportedParameters {
    /// Begins a `ParameterStatus`.
    pub(super) fn begin(&mut self, length: u32) -> Result<(), LimitExceeded> {
        self.name.clear();
        self.length = length;
        if length > LARGE_MESSAGE_LENGTH { Err(LimitExceeded::Parameters) } else { Ok(()) }
    }

    /// Reads a part of the body. Returns whether the name is complete.
    pub(super) fn read(&mut self, part: &[u8]) -> Result<bool, LimitExceeded> {
        let end = part.iter().position(|byte| *byte == 0);
        self.name.extend_from_slice(&part[..end.unwrap_or(part.len())]);
        if end.is_none() {
            return Ok(false);
        }
        let length = self.length;
        match self.lengths.iter_mut().find(|(name, _)| **name == *self.name) {
            Some((_, reported)) => *reported = length,
            None => self.lengths.push((self.name.as_slice().into(), length)),
        }
        let total = self.lengths.iter().map(|(_, length)| length).sum::<u32>();
        if self.lengths.len() > MAX_PARAMETERS || total > MAX_PARAMETER_BYTES {
            return Err(LimitExceeded::Parameters);
        }
        Ok(true)
    }
}
