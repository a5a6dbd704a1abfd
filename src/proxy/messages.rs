//! The messages that the proxy reads or writes itself: those of the start-up, and errors of its own.

use std::fmt;
use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::labels::ErrorCode;

/// The codes in place of a protocol version.
pub(super) const SSL_REQUEST: u32 = 80_877_103;
pub(super) const GSSENC_REQUEST: u32 = 80_877_104;
pub(super) const CANCEL_REQUEST: u32 = 80_877_102;

/// The longest start-up message that PostgreSQL accepts, with its length.
const MAX_STARTUP_BYTES: usize = 10_000 + 4;

/// The longest message of an authentication: PostgreSQL's limit is 64 KiB for tokens of GSSAPI.
const MAX_MESSAGE_BYTES: usize = 65_536 + 5;

/// Reads a message without a tag, and returns it whole.
///
/// # Errors
///
/// Returns `InvalidData` if its length is impossible.
///
/// # Cancel safety
///
/// Not cancel safe: what was read is lost.
pub(super) async fn read_untagged(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let mut message = vec![0; 8];
    stream.read_exact(&mut message[..4]).await?;
    let length = number(&message, 0) as usize;
    if !(8..=MAX_STARTUP_BYTES).contains(&length) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    message.resize(length, 0);
    stream.read_exact(&mut message[4..]).await?;
    Ok(message)
}

/// Returns the number at this position of a message, or zero if the message is shorter.
pub(super) fn number(message: &[u8], at: usize) -> u32 {
    message.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

/// Bytes that were read from a peer and not yet passed on, from which whole messages are taken.
#[derive(Default)]
pub(super) struct Inbox {
    pub(super) bytes: Vec<u8>,
}

/// The bytes may contain a password.
impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox").field("bytes", &self.bytes.len()).finish()
    }
}

/// What an [`Inbox`] holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// A whole message of this length, with its tag.
    Message(usize),
    /// The beginning of a message.
    Incomplete,
    /// Something else.
    Invalid,
}

impl Inbox {
    /// Returns what the bytes begin with.
    pub(super) fn next(&self) -> Next {
        if self.bytes.len() < 5 {
            return Next::Incomplete;
        }
        let length = number(&self.bytes, 1) as usize;
        match length {
            4..MAX_MESSAGE_BYTES if self.bytes.len() > length => Next::Message(length + 1),
            4..MAX_MESSAGE_BYTES => Next::Incomplete,
            _ => Next::Invalid,
        }
    }

    /// Removes and returns a message of this length.
    pub(super) fn take(&mut self, length: usize) -> Vec<u8> {
        let rest = self.bytes.split_off(length.min(self.bytes.len()));
        std::mem::replace(&mut self.bytes, rest)
    }

    /// Reads more bytes. Returns how many: zero at the end of the stream.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: what was read is kept.
    pub(super) async fn fill(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> io::Result<usize> {
        self.bytes.reserve(1024);
        stream.read_buf(&mut self.bytes).await
    }
}

/// The parameters of a start-up message that name its client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct StartupParameters {
    pub(super) user: String,
    pub(super) database: String,
    pub(super) application: String,
}

impl StartupParameters {
    /// Reads a start-up message. What cannot be read is empty; the server decides whether the message is valid.
    pub(super) fn of(message: &[u8]) -> Self {
        let mut texts = message.get(8..).unwrap_or_default().split(|byte| *byte == 0);
        let mut found = Self::default();
        while let (Some(name), Some(value)) = (texts.next(), texts.next()) {
            let field = match name {
                b"user" => &mut found.user,
                b"database" => &mut found.database,
                b"application_name" => &mut found.application,
                b"" => break,
                _ => continue,
            };
            *field = String::from_utf8_lossy(value).into_owned();
        }
        if found.database.is_empty() {
            found.database.clone_from(&found.user);
        }
        found
    }
}

/// Returns an `ErrorResponse` that ends a session.
pub(super) fn fatal_error(code: ErrorCode, message: &str) -> Vec<u8> {
    let mut body = Vec::with_capacity(64 + message.len());
    for (field, text) in [(b'S', "FATAL"), (b'V', "FATAL"), (b'C', code.as_str()), (b'M', message)] {
        body.push(field);
        body.extend_from_slice(text.as_bytes());
        body.push(0);
    }
    body.push(0);
    let mut error = vec![b'E'];
    error.extend_from_slice(&u32::try_from(body.len() + 4).unwrap_or(u32::MAX).to_be_bytes());
    error.append(&mut body);
    error
}

/// Returns the SQLSTATE of an `ErrorResponse`.
pub(super) fn code_of(error: &[u8]) -> ErrorCode {
    let mut fields = error.get(5..).unwrap_or_default().split(|byte| *byte == 0);
    let code = fields.find_map(|field| field.strip_prefix(b"C"));
    match code.map(str::from_utf8) {
        Some(Ok(code)) if code.len() == 5 => ErrorCode::new(code),
        _ => ErrorCode::OTHER,
    }
}

/// The message with which a client ends its session.
pub(super) const TERMINATE: [u8; 5] = [b'X', 0, 0, 0, 4];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn startup_parameters_are_read() {
        let parameters = |text: &[u8]| StartupParameters::of(&[&[0, 0, 0, 0, 0, 3, 0, 0][..], text].concat());
        let found = parameters(b"user\0app\0database\0shop\0application_name\0api\0\0");
        assert_eq!((&*found.user, &*found.database, &*found.application), ("app", "shop", "api"));
        let found = parameters(b"application_name\0\xff\0user\0app\0\0user\0other\0");
        assert_eq!((&*found.user, &*found.database, &*found.application), ("app", "app", "\u{fffd}"));
        assert_eq!(StartupParameters::of(b"\0\0"), StartupParameters::default());
    }

    #[test]
    fn error_has_its_code() {
        let error = fatal_error(ErrorCode::new("53300"), "sorry");
        assert_eq!(error, b"E\0\0\0\x21SFATAL\0VFATAL\0C53300\0Msorry\0\0".to_vec());
        assert_eq!(code_of(&error), ErrorCode::new("53300"));
        assert_eq!(code_of(b"E"), ErrorCode::OTHER);
    }

    #[test]
    fn inbox_yields_whole_messages() {
        let mut inbox = Inbox { bytes: b"R\0\0\0\x08\0\0\0\0Z\0\0\0".to_vec() };
        assert_eq!(inbox.next(), Next::Message(9));
        assert_eq!(inbox.take(9), b"R\0\0\0\x08\0\0\0\0");
        assert_eq!(inbox.next(), Next::Incomplete);
        inbox.bytes = b"R\xff\0\0\x08".to_vec();
        assert_eq!(inbox.next(), Next::Invalid);
        inbox.bytes = b"R\0\0\0\x03".to_vec();
        assert_eq!(inbox.next(), Next::Invalid);
    }
}
