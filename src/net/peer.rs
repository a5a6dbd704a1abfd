//! One address of a server.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use tokio::net::TcpStream;

use super::socket::Socket;
use super::tcp_options::TcpOptions;
use super::unix;
use crate::telemetry::trace::{DatabaseSystem, ServerAddress};
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
pub(crate) enum Address {
    /// The whole socket address: that of a link-local address includes the interface.
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Peer {
    /// Creates a peer. `hostname` is the name expected in the server's certificate, and `connect_timeout` the limit of
    /// opening one socket.
    pub(crate) fn new(
        address: Address,
        hostname: Option<String>,
        connect_timeout: Option<Duration>,
        tcp_options: TcpOptions,
    ) -> Self {
        Self { address, hostname, connect_timeout, tcp_options }
    }

    /// Returns the server's name for TLS. Empty on a Unix socket, where TLS is not used.
    pub(crate) fn hostname(&self) -> &str {
        self.hostname.as_deref().unwrap_or_default()
    }

    /// Returns whether no network is between client and server.
    pub(crate) fn is_local(&self) -> bool {
        match &self.address {
            Address::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Address::Unix(_) => true,
        }
    }

    /// Returns the address, and the name that was looked up for it, if one was.
    pub(crate) fn address(&self) -> (&Address, Option<&str>) {
        (&self.address, self.hostname.as_deref())
    }

    /// Returns the server's attributes for spans.
    pub(crate) fn server(&self, system: DatabaseSystem, database: String) -> ServerAddress {
        let (address, port) = match &self.address {
            Address::Tcp(address) => {
                (self.hostname.clone().unwrap_or_else(|| address.ip().to_string()), Some(address.port()))
            }
            Address::Unix(path) => (path.display().to_string(), None),
        };
        ServerAddress { system, database, address, port }
    }

    /// Opens a socket, within the connect timeout of a single address.
    pub(crate) async fn open(&self) -> io::Result<Socket> {
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
            Peer::new(address, name.map(str::to_owned), None, TcpOptions::new(None, None)).to_string()
        };
        assert_eq!(shown("10.1.2.3:5433", Some("db.example")), "db.example:5433 (10.1.2.3)");
        assert_eq!(shown("10.1.2.3:5433", Some("10.1.2.3")), "10.1.2.3:5433");
        assert_eq!(shown("[::1]:5433", Some("0:0::1")), "[::1]:5433");
        assert_eq!(shown("[::1]:5433", None), "[::1]:5433");
        assert_eq!(shown("10.1.2.3:1", Some("a\u{1b}[2Jb")), r"a\u{1b}[2Jb:1 (10.1.2.3)");
        let path = Address::Unix("/tmp/\nforged\u{9b}m/.s.PGSQL.1".into());
        let socket = Peer::new(path, None, None, TcpOptions::new(None, None));
        assert_eq!(socket.to_string(), r"/tmp/\nforged\u{9b}m/.s.PGSQL.1");
    }
}
