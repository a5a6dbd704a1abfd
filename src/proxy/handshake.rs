//! The start of a session, up to the server's first `ReadyForQuery`.
//!
//! Whole messages are passed on, so that their kinds are known: whether the server has accepted the client decides in
//! which pool the connection is counted. A client that was not accepted creates no pool.

use std::io;

use tokio::io::AsyncWriteExt as _;

use super::messages::{Inbox, Next, code_of, number};
use super::stream::Stream;
use crate::labels::ErrorCode;

/// Authentication messages, by their code.
const AUTHENTICATION_OK: u32 = 0;
const AUTHENTICATION_SASL: u32 = 10;

/// The mechanism that binds a SCRAM exchange to the server's certificate, which no client sees: its own TLS, if it uses any,
/// ends at the proxy. Without TLS, libpq refuses a server that offers it.
const CHANNEL_BINDING_SUFFIX: &[u8] = b"-PLUS";

/// A session that is starting.
#[derive(Debug)]
pub(super) struct Handshake<'a> {
    pub(super) client: &'a mut Stream,
    pub(super) server: &'a mut Stream,
    pub(super) from_client: Inbox,
    pub(super) from_server: Inbox,
    /// Bytes passed on so far.
    pub(super) sent: usize,
    pub(super) received: usize,
    /// The server's messages since it has accepted the client.
    accepted: Vec<u8>,
}

/// The most bytes that a server may send after it has accepted a client and before it is ready. Some hundred are usual.
const MAX_ACCEPTED_BYTES: usize = 256 * 1024;

/// How the start ended.
#[derive(Debug)]
pub(super) enum Step {
    /// The server has accepted the client and is ready. Has its messages since then, which were passed on.
    Ready(Vec<u8>),
    /// The server refused the client, with this code.
    Refused(ErrorCode),
    /// The server's stream ended or failed.
    ServerLost,
    /// The client's stream ended or failed.
    ClientLost,
    /// A message was not understood, and has not been passed on.
    Unknown,
}

impl<'a> Handshake<'a> {
    pub(super) fn new(client: &'a mut Stream, server: &'a mut Stream) -> Self {
        let (from_client, from_server) = (Inbox::default(), Inbox::default());
        let (sent, received, accepted) = (0, 0, Vec::new());
        Self { client, server, from_client, from_server, sent, received, accepted }
    }

    /// Passes the start-up message on.
    pub(super) async fn start(&mut self, message: &[u8]) -> io::Result<()> {
        self.server.write_all(message).await?;
        self.server.flush().await?;
        self.sent += message.len();
        Ok(())
    }

    /// Passes messages on until the server is ready, or has refused the client.
    pub(super) async fn complete(&mut self) -> Step {
        loop {
            if let Some(step) = self.server_messages().await {
                return step;
            }
            match self.from_client.next() {
                // The client does not answer the server's request for authentication, but ends the session.
                Next::Message(_)
                    if self.from_client.bytes[0] == b'X' && self.received > 0 && self.accepted.is_empty() =>
                {
                    return Step::ClientLost;
                }
                // Anything else has to wait until the server is ready.
                Next::Message(length) if self.from_client.bytes[0] == b'p' => {
                    let message = self.from_client.take(length);
                    if self.server.write_all(&message).await.is_err() || self.server.flush().await.is_err() {
                        return self.last_words().await;
                    }
                    self.sent += length;
                    continue;
                }
                Next::Invalid => return Step::Unknown,
                Next::Message(_) | Next::Incomplete => {}
            }
            let may_read = matches!(self.from_client.next(), Next::Incomplete);
            tokio::select! {
                read = self.from_server.fill(self.server) => match read {
                    Ok(1..) => {}
                    Ok(0) | Err(_) => return Step::ServerLost,
                },
                read = self.from_client.fill(self.client), if may_read => match read {
                    Ok(1..) => {}
                    Ok(0) | Err(_) => return Step::ClientLost,
                },
            }
        }
    }

    /// Passes the server's whole messages on, in one write: it usually sends some fifteen at once when it accepts a client.
    /// Returns the step that they end.
    async fn server_messages(&mut self) -> Option<Step> {
        let mut read = Vec::new();
        let step = loop {
            match self.from_server.next() {
                Next::Message(length) => {
                    if let Some(step) = self.read_server_message(length, &mut read) {
                        break Some(step);
                    }
                }
                Next::Invalid => break Some(Step::Unknown),
                Next::Incomplete => break None,
            }
        };
        if !read.is_empty() && self.pass_to_client(&read).await.is_err() {
            return Some(Step::ClientLost);
        }
        step
    }

    /// Appends the server's next message, of this length, to those that are to be passed on. Returns the step that it ends.
    fn read_server_message(&mut self, length: usize, read: &mut Vec<u8>) -> Option<Step> {
        let mut message = self.from_server.take(length);
        let code = number(&message, 5);
        if message[0] == b'R' && code == AUTHENTICATION_SASL {
            message = without_channel_binding(&message);
        }
        read.extend_from_slice(&message);
        match message[0] {
            b'E' => return Some(Step::Refused(code_of(&message))),
            b'R' if code == AUTHENTICATION_OK => self.accepted = message,
            tag if !self.accepted.is_empty() => {
                self.accepted.append(&mut message);
                if tag == b'Z' {
                    return Some(Step::Ready(std::mem::take(&mut self.accepted)));
                }
                if self.accepted.len() > MAX_ACCEPTED_BYTES {
                    return Some(Step::Unknown);
                }
            }
            _ => {}
        }
        None
    }

    /// Returns why the server no longer reads: it may have sent an error.
    async fn last_words(&mut self) -> Step {
        loop {
            if let Some(step) = self.server_messages().await {
                return step;
            }
            if !matches!(self.from_server.fill(self.server).await, Ok(1..)) {
                return Step::ServerLost;
            }
        }
    }

    async fn pass_to_client(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.client.write_all(bytes).await?;
        self.client.flush().await?;
        self.received += bytes.len();
        Ok(())
    }
}

/// Returns a list of SASL mechanisms without those that bind to the TLS session. If it has no other, it is unchanged, and
/// the client fails with a message about it.
fn without_channel_binding(message: &[u8]) -> Vec<u8> {
    let mechanisms: Vec<_> = message[9..].split(|byte| *byte == 0).filter(|mechanism| !mechanism.is_empty()).collect();
    let kept: Vec<_> = mechanisms.iter().filter(|mechanism| !mechanism.ends_with(CHANNEL_BINDING_SUFFIX)).collect();
    if kept.is_empty() || kept.len() == mechanisms.len() {
        return message.to_vec();
    }
    let mut body = AUTHENTICATION_SASL.to_be_bytes().to_vec();
    for mechanism in kept {
        body.extend_from_slice(mechanism);
        body.push(0);
    }
    body.push(0);
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX).to_be_bytes();
    [&b"R"[..], &length, &body].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channel_binding_is_not_offered() {
        let offer = b"R\0\0\0\x2a\0\0\0\x0aSCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0";
        assert_eq!(without_channel_binding(offer), b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0");
        for unchanged in
            [&b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0"[..], b"R\0\0\0\x1c\0\0\0\x0aSCRAM-SHA-256-PLUS\0\0"]
        {
            assert_eq!(without_channel_binding(unchanged), unchanged);
        }
    }

    /// Sockets that keep the bounds of what is written.
    #[cfg(target_os = "linux")]
    fn packet_sockets() -> [tokio::net::UnixStream; 2] {
        let (one, other) = socket2::Socket::pair(socket2::Domain::UNIX, socket2::Type::SEQPACKET, None).unwrap();
        [one, other].map(|socket| {
            socket.set_nonblocking(true).unwrap();
            tokio::net::UnixStream::from_std(std::os::fd::OwnedFd::from(socket).into()).unwrap()
        })
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn messages_that_arrive_together_are_one_write() {
        use tokio::io::AsyncReadExt as _;

        let ([mut client, to_client], [mut server, to_server]) = (packet_sockets(), packet_sockets());
        let (mut to_client, mut to_server) = (Stream::Unix(to_client), Stream::Unix(to_server));
        let accepted = b"R\0\0\0\x08\0\0\0\0S\0\0\0\x09a\0on\0S\0\0\0\x09b\0on\0Z\0\0\0\x05I";
        // What follows is passed on by the relay.
        server.write_all(&[&accepted[..], b"N\0"].concat()).await.unwrap();
        let mut handshake = Handshake::new(&mut to_client, &mut to_server);
        let Step::Ready(messages) = handshake.complete().await else { panic!("not ready") };
        assert_eq!(
            (&*messages, handshake.received, &*handshake.from_server.bytes),
            (&accepted[..], accepted.len(), &b"N\0"[..])
        );
        let mut received = [0; 1024];
        let length = client.read(&mut received).await.unwrap();
        assert_eq!(received[..length], accepted[..]);
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn what_precedes_an_unknown_message_is_passed_on() {
        use tokio::io::AsyncReadExt as _;

        let pair = || tokio::net::UnixStream::pair().unwrap();
        let ((mut client, to_client), (mut server, to_server)) = (pair(), pair());
        let (mut to_client, mut to_server) = (Stream::Unix(to_client), Stream::Unix(to_server));
        server.write_all(b"R\0\0\0\x08\0\0\0\0S\xff\xff\xff\xff").await.unwrap();
        let mut handshake = Handshake::new(&mut to_client, &mut to_server);
        assert!(matches!(handshake.complete().await, Step::Unknown));
        assert_eq!(&*handshake.from_server.bytes, b"S\xff\xff\xff\xff");
        let mut received = [0; 9];
        client.read_exact(&mut received).await.unwrap();
        assert_eq!(&received, b"R\0\0\0\x08\0\0\0\0");
    }
}
