//! Bounds what a server may send, where nothing else does: while a session starts, on connections that are not observed,
//! and where an answer is limited.

use super::authentication::{AuthenticationCheck, AuthenticationPolicy};
use super::frames::{FramePart, FrameReader, ProtocolError};
use super::limits::{LARGE_MESSAGE_LENGTH, LimitExceeded, MAX_STARTUP_BYTES, ReportedParameters};

/// How much a server may send once the session has started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AnswerLimit {
    /// Any message that the protocol allows.
    Unlimited,
    /// Messages without large ones, in any number once the first request was answered, as for notifications.
    SmallMessages,
    /// This many bytes from one `ReadyForQuery` to the next.
    Bytes(u64),
}

/// Reads the headers of the server's messages, and compares their lengths with the limits. A limit is exceeded as soon as
/// a message is announced.
#[derive(Debug)]
pub(crate) struct ServerGuard {
    client: FrameReader,
    server: FrameReader,
    /// Whether the session has not started.
    starting: bool,
    /// Whether the server's next byte is its answer to a request for encryption.
    negotiating: bool,
    /// Whether the name of a parameter is being read.
    in_parameter: bool,
    /// The limit once the session has started. `None`: the guard is done then.
    limit: Option<AnswerLimit>,
    /// The bytes that may arrive until the next `ReadyForQuery`.
    left: u64,
    parameters: ReportedParameters,
    /// The check of the authentication method, until it was read.
    authentication: Option<AuthenticationCheck>,
    /// Whether the server's authentication message is being read.
    in_authentication: bool,
    /// The requests that await their `ReadyForQuery`, or more: a `Sync` that the server ignores, during COPY IN, counts
    /// too. `None` if the client's messages are not followed.
    pending: Option<u64>,
}

impl ServerGuard {
    /// Creates a guard for a connection that has passed no bytes.
    pub(crate) fn new(limit: Option<AnswerLimit>) -> Self {
        let (client, server) = (FrameReader::from_client(), FrameReader::default());
        let pending = matches!(limit, Some(AnswerLimit::Unlimited | AnswerLimit::Bytes(_))).then_some(0);
        Self { starting: true, left: MAX_STARTUP_BYTES, pending, ..Self::with_readers(client, server, limit) }
    }

    /// Creates a guard without a limit of answers for a session that `server` has read so far.
    pub(super) fn of_session(server: FrameReader, parameters: ReportedParameters) -> Self {
        let guard = Self::with_readers(FrameReader::default(), server, Some(AnswerLimit::Unlimited));
        Self { parameters, ..guard }
    }

    fn with_readers(client: FrameReader, server: FrameReader, limit: Option<AnswerLimit>) -> Self {
        Self {
            client,
            server,
            starting: false,
            negotiating: false,
            in_parameter: false,
            limit,
            left: u64::MAX,
            parameters: ReportedParameters::default(),
            authentication: None,
            in_authentication: false,
            pending: None,
        }
    }

    /// Also refuses the authentication methods that `policy` does not allow.
    pub(crate) fn authentication(mut self, policy: AuthenticationPolicy) -> Self {
        self.authentication = Some(AuthenticationCheck::new(policy));
        self
    }

    /// Records that the connection is encrypted from now on.
    #[cfg_attr(not(feature = "tls"), allow(dead_code, reason = "called by TLS"))]
    pub(crate) fn begin_tls(&mut self) {
        if let Some(authentication) = &mut self.authentication {
            authentication.begin_tls();
        }
    }

    /// Reads what the client sent: up to the startup message, and the requests after it if they are followed.
    #[cold]
    pub(crate) fn sent(&mut self, mut bytes: &[u8]) {
        while self.client.is_untagged() || self.pending.is_some() {
            match self.client.next(&mut bytes) {
                // A request for encryption consists of a code.
                Ok(Some(FramePart::Header { length: 8, .. })) if self.client.is_untagged() => self.negotiating = true,
                Ok(Some(_)) if self.client.is_untagged() => self.client.expect_tags(),
                // `Query`, `Sync` and `FunctionCall`: what the server answers with a `ReadyForQuery`.
                Ok(Some(
                    FramePart::Header { tag: b'Q' | b'S' | b'F', .. }
                    | FramePart::LargeHeader { tag: b'Q' | b'S' | b'F', .. },
                )) => self.pending = self.pending.map(|pending| pending + 1),
                Ok(Some(_)) => {}
                Ok(None) => return,
                // The server refuses it.
                Err(_) => {
                    self.pending = None;
                    return;
                }
            }
        }
    }

    /// Reads what the server sent. Returns whether the guard is still needed.
    ///
    /// # Errors
    ///
    /// Returns an error if the server exceeds a limit. The guard must not be used after that.
    #[cold]
    pub(crate) fn received(&mut self, mut bytes: &[u8]) -> Result<bool, LimitExceeded> {
        if std::mem::take(&mut self.negotiating) {
            bytes = bytes.get(1..).unwrap_or_default();
        }
        loop {
            match self.server.next(&mut bytes) {
                Ok(None) => return Ok(true),
                Ok(Some(FramePart::Header { tag, length } | FramePart::LargeHeader { tag, length })) => {
                    self.message(tag, length)?;
                    if !self.starting && self.limit.is_none() {
                        return Ok(false);
                    }
                }
                Ok(Some(FramePart::Body(part))) => {
                    if self.in_parameter && self.parameters.read(part)? {
                        self.server.skip_body();
                    }
                    if self.in_authentication
                        && let Some(authentication) = &mut self.authentication
                        && authentication.read(part)?
                    {
                        self.authentication = None;
                        self.server.skip_body();
                    }
                }
                Err(ProtocolError::Limit(exceeded)) => return Err(exceeded),
                // Not returned by the reader.
                Err(ProtocolError::Unknown(_)) => return Ok(true),
            }
        }
    }

    fn message(&mut self, tag: u8, length: u32) -> Result<(), LimitExceeded> {
        let is_large = length > LARGE_MESSAGE_LENGTH;
        if self.starting && is_large {
            return Err(LimitExceeded::StartupMessage { length });
        }
        let is_idle = !self.starting && self.pending == Some(0);
        if is_large && (is_idle || self.limit == Some(AnswerLimit::SmallMessages)) {
            return Err(LimitExceeded::Unrequested { length });
        }
        let left = self.left.checked_sub(u64::from(length) + 1);
        self.left = left.ok_or_else(|| self.exceeded())?;
        self.in_authentication = tag == b'R' && self.authentication.is_some();
        if self.in_authentication {
            self.server.want_body();
        }
        self.in_parameter = tag == b'S';
        if self.in_parameter {
            self.parameters.begin(length)?;
            self.server.want_body();
        }
        if tag == b'Z' {
            self.left = self.max_answer();
            if !std::mem::take(&mut self.starting) {
                self.pending = self.pending.map(|pending| pending.saturating_sub(1));
            }
        }
        Ok(())
    }

    fn max_answer(&self) -> u64 {
        match self.limit {
            Some(AnswerLimit::Bytes(limit)) => limit,
            Some(AnswerLimit::SmallMessages) if self.starting => MAX_STARTUP_BYTES,
            _ => u64::MAX,
        }
    }

    fn exceeded(&self) -> LimitExceeded {
        match self.limit {
            _ if self.starting => LimitExceeded::Startup,
            Some(AnswerLimit::Bytes(limit)) => LimitExceeded::Answer { limit },
            _ => LimitExceeded::Answer { limit: MAX_STARTUP_BYTES },
        }
    }
}

#[cfg(test)]
#[path = "guard_tests.rs"]
mod tests;
