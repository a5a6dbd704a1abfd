//! What precedes a session: requests for encryption, and the start-up message or a cancel request.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::ServerConfig;
use tokio::io::AsyncWriteExt as _;
use tokio_rustls::TlsAcceptor;

use super::messages::{CANCEL_REQUEST, GSSENC_REQUEST, SSL_REQUEST, number, read_untagged};
use super::settings::Settings;
use super::stream::{Socket, Stream};
use crate::config::ConfigError;
use crate::files::{Files, Live, Source};
use crate::net::tls::{ReloadLog, server_config};
use crate::text::ErrorChain;

/// A client requests encryption at most once of each kind, and may then send its start-up message.
const MAX_REQUESTS: usize = 4;

/// The first byte of a TLS handshake, which begins a connection with direct negotiation.
const TLS_HANDSHAKE: u8 = 0x16;

const PROTOCOL: &[u8] = b"postgresql";

/// What a client wants.
pub(super) enum Opening {
    /// A session, with this start-up message.
    Session(Vec<u8>),
    /// To cancel the query of another connection, with this message.
    Cancel(Vec<u8>),
}

/// The TLS that is offered to clients.
#[derive(Debug)]
pub(super) struct ClientTls(Arc<Live<CertificateFiles>>);

impl ClientTls {
    /// Reads the certificate, if one is configured.
    pub(super) fn new(settings: &Settings) -> Result<Option<Self>, ConfigError> {
        let Some((certificate, key)) = settings.tls_certificate.clone().zip(settings.tls_key.clone()) else {
            return Ok(None);
        };
        let source = CertificateFiles { certificate, key, log: ReloadLog::of_proxy("from clients") };
        let mut files = Files::first();
        let loaded = source.load(&mut files)?;
        Ok(Some(Self(Arc::new(Live::new(source, loaded, files)))))
    }

    async fn accept(&self, socket: Socket) -> io::Result<Stream> {
        let config = self.0.current().await;
        let stream = TlsAcceptor::from(config).accept(socket).await?;
        Ok(Stream::FromClient(Box::new(stream)))
    }
}

/// Answers requests for encryption until the client sends what it wants. Also returns the stream, which may be encrypted
/// now.
pub(super) async fn open(mut stream: Stream, tls: Option<&ClientTls>) -> io::Result<(Stream, Opening)> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidData);
    if let (Stream::Tcp(socket), Some(tls)) = (&stream, tls) {
        let mut first = [0];
        if socket.peek(&mut first).await? == 1 && first == [TLS_HANDSHAKE] {
            stream = tls.accept(stream.into_socket().ok_or_else(invalid)?).await?;
            // Without it, the client may be of another protocol.
            let Stream::FromClient(encrypted) = &stream else { return Err(invalid()) };
            if encrypted.get_ref().1.alpn_protocol() != Some(PROTOCOL) {
                return Err(invalid());
            }
        }
    }
    for _ in 0..MAX_REQUESTS {
        let message = read_untagged(&mut stream).await?;
        match (number(&message, 4), message.len()) {
            (SSL_REQUEST, 8) => match (tls, &stream) {
                (Some(tls), Stream::Tcp(_)) => {
                    stream.write_all(b"S").await?;
                    stream = tls.accept(stream.into_socket().ok_or_else(invalid)?).await?;
                }
                _ => decline(&mut stream).await?,
            },
            (GSSENC_REQUEST, 8) => decline(&mut stream).await?,
            (CANCEL_REQUEST, _) => return Ok((stream, Opening::Cancel(message))),
            // The server decides whether it is valid.
            _ => return Ok((stream, Opening::Session(message))),
        }
    }
    Err(invalid())
}

async fn decline(stream: &mut Stream) -> io::Result<()> {
    stream.write_all(b"N").await?;
    stream.flush().await
}

/// The certificate for clients.
#[derive(Debug)]
struct CertificateFiles {
    certificate: PathBuf,
    key: PathBuf,
    log: ReloadLog,
}

impl CertificateFiles {
    fn load(&self, files: &mut Files) -> Result<ServerConfig, ConfigError> {
        let mut config = server_config(&self.certificate, &self.key, files)?;
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        Ok(config)
    }
}

impl Source for CertificateFiles {
    type Value = ServerConfig;

    fn reread(&self, _: &ServerConfig, files: &mut Files) -> Result<ServerConfig, String> {
        self.load(files).map_err(|error| ErrorChain(&error).to_string())
    }

    fn log(&self, result: Result<(), &str>) {
        self.log.record(result);
    }
}
