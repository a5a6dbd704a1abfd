//! One address of a server.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio_postgres::Config;

use super::socket::Socket;
use super::tcp_options::TcpOptions;
use super::unix;
use crate::telemetry::trace::ServerAddress;
use crate::text::Printable;

/// An address of a server, with all that is needed to open sockets to it.
#[derive(Clone)]
pub(crate) struct Peer {
    address: Address,
    hostname: Option<String>,
    connect_timeout: Option<Duration>,
    tcp_options: TcpOptions,
}

/// The address on which a server listens.
#[derive(Clone)]
pub(super) enum Address {
    /// The whole socket address: that of a link-local address includes the interface.
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Peer {
    /// Creates a peer. `hostname` is the name expected in the server's certificate.
    pub(super) fn new(address: Address, hostname: Option<String>, config: &Config) -> Self {
        Self {
            address,
            hostname,
            connect_timeout: config.get_connect_timeout().copied(),
            tcp_options: TcpOptions::new(config),
        }
    }

    /// Returns the server's name for TLS. Empty on a Unix socket, where TLS is not used.
    pub(super) fn hostname(&self) -> &str {
        self.hostname.as_deref().unwrap_or_default()
    }

    /// Returns whether no network is between client and server.
    pub(super) fn is_local(&self) -> bool {
        match &self.address {
            Address::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Address::Unix(_) => true,
        }
    }

    /// Returns host and port as configured: a name, an address, or the directory of a Unix socket.
    pub(super) fn configured(&self) -> (Cow<'_, str>, u16) {
        match &self.address {
            Address::Tcp(address) => match &self.hostname {
                Some(name) => (Cow::Borrowed(name), address.port()),
                None => (Cow::Owned(address.ip().to_string()), address.port()),
            },
            Address::Unix(path) => {
                let directory = path.parent().map_or(Cow::Borrowed(""), Path::to_string_lossy);
                // The socket's name is `.s.PGSQL.` and the port.
                let port = path.extension().and_then(|port| port.to_str()?.parse().ok());
                (directory, port.unwrap_or_default())
            }
        }
    }

    /// Returns the server's attributes for spans. Without a database name, the server uses the user's name.
    pub(super) fn server(&self, config: &Config) -> ServerAddress {
        let database = config.get_dbname().or(config.get_user()).unwrap_or_default().to_owned();
        match &self.address {
            Address::Tcp(address) => {
                let name = self.hostname.clone().unwrap_or_else(|| address.ip().to_string());
                ServerAddress { database, address: name, port: Some(address.port()) }
            }
            Address::Unix(path) => ServerAddress { database, address: path.display().to_string(), port: None },
        }
    }

    /// Opens a socket, within the connect timeout of a single address.
    pub(super) async fn open(&self) -> io::Result<Socket> {
        let Some(timeout) = self.connect_timeout else { return self.connect().await };
        let timed_out = || io::Error::new(io::ErrorKind::TimedOut, "connection timed out");
        tokio::time::timeout(timeout, self.connect()).await.map_err(|_| timed_out())?
    }

    async fn connect(&self) -> io::Result<Socket> {
        match &self.address {
            Address::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                self.tcp_options.apply(&stream)?;
                Ok(Socket::tcp(stream))
            }
            Address::Unix(path) => Ok(Socket::unix(unix::connect(path).await?)),
        }
    }
}

/// The name in messages: the host and port, and also the IP address if the name is another one; or the socket's path.
impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.address, &self.hostname) {
            (Address::Tcp(address), Some(name)) if name.parse() != Ok::<IpAddr, _>(address.ip()) => {
                write!(f, "{}:{} ({})", Printable(name), address.port(), address.ip())
            }
            (Address::Tcp(address), _) => write!(f, "{address}"),
            (Address::Unix(path), _) => Printable(path.display()).fmt(f),
        }
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Peer({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_shows_the_name_and_its_address() {
        let shown = |address: &str, name: Option<&str>| {
            let address = Address::Tcp(address.parse().unwrap());
            Peer::new(address, name.map(str::to_owned), &Config::new()).to_string()
        };
        assert_eq!(shown("10.1.2.3:5433", Some("db.example")), "db.example:5433 (10.1.2.3)");
        assert_eq!(shown("10.1.2.3:5433", Some("10.1.2.3")), "10.1.2.3:5433");
        assert_eq!(shown("[::1]:5433", Some("0:0::1")), "[::1]:5433");
        assert_eq!(shown("[::1]:5433", None), "[::1]:5433");
        assert_eq!(shown("10.1.2.3:1", Some("a\u{1b}[2Jb")), r"a\u{1b}[2Jb:1 (10.1.2.3)");
        let socket = Peer::new(Address::Unix("/tmp/\nforged\u{9b}m/.s.PGSQL.1".into()), None, &Config::new());
        assert_eq!(socket.to_string(), r"/tmp/\nforged\u{9b}m/.s.PGSQL.1");
    }
}
