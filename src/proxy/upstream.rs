//! Connects to the server.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;
use tokio::time::timeout;
use tokio_postgres::config::Host;
use tokio_rustls::TlsConnector;

use super::messages::SSL_REQUEST;
use super::settings::Settings;
use super::stream::Stream;
use crate::config::{self, ConfigError, DatabaseUrl, TlsMode};
use crate::labels::ErrorCode;
use crate::net::tcp_options::{Keepalive, TcpOptions};
use crate::net::tls::ClientTls;

const DEFAULT_PORT: u16 = 5432;

/// When TCP probes a client without traffic. Those of the server are settings of the upstream.
const CLIENT_KEEPALIVE: Keepalive = Keepalive {
    idle: Duration::from_secs(30),
    interval: Some(Keepalive::DEFAULT_INTERVAL),
    retries: Some(Keepalive::DEFAULT_RETRIES),
};

/// Where the server is.
#[derive(Clone, Debug)]
enum Address {
    Tcp {
        host: String,
        ip: Option<IpAddr>,
        port: u16,
    },
    #[cfg_attr(not(unix), allow(dead_code, reason = "connecting fails"))]
    Unix(PathBuf),
}

/// Connects to the server.
pub(super) struct Upstream {
    address: Address,
    tls: Option<Tls>,
    options: TcpOptions,
    timeout: Duration,
}

/// How TLS is used.
struct Tls {
    is_required: bool,
    is_direct: bool,
    name: ServerName<'static>,
    config: ClientTls,
}

/// Why the server was not connected to.
#[derive(Debug, thiserror::Error)]
pub(super) enum UpstreamError {
    #[error("could not connect to the server")]
    Io(#[from] io::Error),
    #[error("the server did not answer in time")]
    Timeout,
    #[error("the server does not offer TLS, which the upstream's sslmode requires")]
    NoTls,
    #[error("the TLS handshake with the server failed")]
    Handshake(#[source] io::Error),
}

impl UpstreamError {
    pub(super) fn code(&self) -> ErrorCode {
        match self {
            Self::Io(_) => ErrorCode::IO,
            Self::Timeout => ErrorCode::TIMEOUT,
            Self::NoTls | Self::Handshake(_) => ErrorCode::TLS,
        }
    }
}

impl Upstream {
    /// Reads the certificate files.
    pub(super) fn new(settings: &Settings) -> Result<Self, ConfigError> {
        let url = &settings.upstream;
        let config = url.config();
        let port = config.get_ports().first().copied().unwrap_or(DEFAULT_PORT);
        let ip = config.get_hostaddrs().first().copied();
        let address = match config.get_hosts().first() {
            Some(Host::Tcp(host)) => Address::Tcp { host: host.clone(), ip, port },
            #[cfg(unix)]
            Some(Host::Unix(directory)) => Address::Unix(directory.join(format!(".s.PGSQL.{port}"))),
            #[allow(unreachable_patterns, reason = "only Unix has other hosts")]
            _ => Address::Tcp { host: ip.map_or_else(|| "localhost".to_owned(), |ip| ip.to_string()), ip, port },
        };
        let tls = match (url.tls(), &address) {
            (TlsMode::Prefer(_) | TlsMode::Require(_), Address::Tcp { host, .. }) => {
                let name =
                    ServerName::try_from(host.clone()).unwrap_or_else(|_| ServerName::from(IpAddr::from([0, 0, 0, 0])));
                Some(Tls {
                    is_required: matches!(url.tls(), TlsMode::Require(_)),
                    is_direct: url.alpn().is_some(),
                    name,
                    config: ClientTls::of_proxy(url.tls(), url.client_certificate(), url.alpn())?,
                })
            }
            _ => None,
        };
        Ok(Self { address, tls, options: server_options(url), timeout: settings.connect_timeout })
    }

    /// Returns the host or path, and the port, for spans.
    pub(super) fn server(&self) -> (String, Option<u16>) {
        match &self.address {
            Address::Tcp { host, port, .. } => (host.clone(), Some(*port)),
            Address::Unix(path) => (path.display().to_string(), None),
        }
    }

    /// Connects within the time limit, and encrypts the connection.
    pub(super) async fn connect(&self) -> Result<Stream, UpstreamError> {
        timeout(self.timeout, self.open()).await.unwrap_or(Err(UpstreamError::Timeout))
    }

    async fn open(&self) -> Result<Stream, UpstreamError> {
        let stream = match &self.address {
            Address::Tcp { host, ip, port } => {
                let stream = match ip {
                    Some(ip) => TcpStream::connect(SocketAddr::new(*ip, *port)).await?,
                    None => TcpStream::connect((host.as_str(), *port)).await?,
                };
                self.options.apply(&stream)?;
                Stream::Tcp(stream)
            }
            #[cfg(unix)]
            Address::Unix(path) => Stream::Unix(UnixStream::connect(path).await?),
            #[cfg(not(unix))]
            Address::Unix(_) => return Err(io::Error::from(io::ErrorKind::Unsupported).into()),
        };
        match &self.tls {
            Some(tls) => tls.connect(stream).await,
            None => Ok(stream),
        }
    }
}

/// Returns the options of sockets to the server: those of the URL, or else the defaults of a pool, except that there is no
/// user timeout. It would also end a COPY for which the server does not read, because it waits for a lock.
fn server_options(url: &DatabaseUrl) -> TcpOptions {
    let defaults = config::Settings { tcp_user_timeout: None, ..config::Settings::default() };
    let settings = defaults.apply_url(url.clone());
    let keepalive = settings.tcp_keepalive.map(|idle| Keepalive {
        idle,
        interval: url.config().get_keepalives_interval().or(CLIENT_KEEPALIVE.interval),
        retries: url.config().get_keepalives_retries().or(CLIENT_KEEPALIVE.retries),
    });
    TcpOptions::new(settings.tcp_user_timeout, keepalive)
}

/// Returns the options of the clients' sockets.
pub(super) fn client_options() -> TcpOptions {
    TcpOptions::new(None, Some(CLIENT_KEEPALIVE))
}

impl Tls {
    async fn connect(&self, mut stream: Stream) -> Result<Stream, UpstreamError> {
        if !self.is_direct {
            stream.write_all(&[&8_u32.to_be_bytes()[..], &SSL_REQUEST.to_be_bytes()].concat()).await?;
            match stream.read_u8().await? {
                b'S' => {}
                // Also the beginning of an error, of a server from before TLS.
                _ if self.is_required => return Err(UpstreamError::NoTls),
                b'N' => return Ok(stream),
                _ => return Err(io::Error::from(io::ErrorKind::InvalidData).into()),
            }
        }
        let current = self.config.current().await;
        let Some(config) = current.config() else { return Ok(stream) };
        let Some(socket) = stream.into_socket() else { return Err(UpstreamError::NoTls) };
        let connected = TlsConnector::from(Arc::clone(config)).connect(self.name.clone(), socket).await;
        Ok(Stream::ToServer(Box::new(connected.map_err(UpstreamError::Handshake)?)))
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use socket2::SockRef;

    use super::*;

    #[tokio::test]
    async fn sockets_have_the_options_of_a_pool() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let connect = async |query: &str| {
            let settings = Settings::new(&format!("postgres://127.0.0.1:{port}?sslmode=disable{query}")).unwrap();
            let Stream::Tcp(stream) = Upstream::new(&settings).unwrap().connect().await.unwrap() else { panic!() };
            stream
        };
        let options = |stream: &TcpStream| {
            let socket = SockRef::from(stream);
            assert!(stream.nodelay().unwrap());
            let probes = [socket.tcp_keepalive_time().unwrap(), socket.tcp_keepalive_interval().unwrap()];
            let retries = socket.tcp_keepalive_retries().unwrap();
            (
                socket.keepalive().unwrap(),
                probes.map(|time| time.as_secs()),
                retries,
                socket.tcp_user_timeout().unwrap(),
            )
        };
        let timeout = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(options(&connect("").await), (true, [30, 10], 3, None));
        let stream =
            connect("&keepalives_idle=31&keepalives_interval=7&keepalives_retries=4&tcp_user_timeout=21s").await;
        assert_eq!(options(&stream), (true, [31, 7], 4, timeout(21)));
        assert!(!options(&connect("&tcp_keepalive=off").await).0);
        client_options().apply(&stream).unwrap();
        assert_eq!(options(&stream).1, [30, 10]);
    }
}
