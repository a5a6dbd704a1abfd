//! One server at one address.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
#[cfg(unix)]
use std::path::PathBuf;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;
use tokio_postgres::Config;

use super::socket::Sock;
use crate::telemetry::trace::Server;

/// All that is needed to open a socket to a server, and later another one to the very same.
#[derive(Clone)]
pub(crate) struct Peer {
    address: Address,
    hostname: Option<String>,
    connect_timeout: Option<Duration>,
    #[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "no other system has it"))]
    tcp_user_timeout: Option<Duration>,
    keepalive: Option<TcpKeepalive>,
}

/// Where a server listens.
#[derive(Clone)]
pub(super) enum Address {
    /// Whole, since of a link-local address the interface is a part.
    Tcp(SocketAddr),
    #[cfg(unix)]
    Unix(PathBuf),
}

impl Peer {
    /// `hostname`: the name that the server has in its certificate.
    pub(super) fn new(address: Address, hostname: Option<String>, config: &Config) -> Self {
        Self {
            address,
            hostname,
            connect_timeout: config.get_connect_timeout().copied(),
            tcp_user_timeout: config.get_tcp_user_timeout().copied(),
            keepalive: config.get_keepalives().then(|| keepalive(config)),
        }
    }

    /// The server's name for TLS; empty on a Unix socket, where there is no TLS.
    #[cfg(feature = "tls")]
    pub(super) fn hostname(&self) -> &str {
        self.hostname.as_deref().unwrap_or_default()
    }

    /// What spans say of it. The server takes the user's name for the database's where there is none.
    pub(super) fn server(&self, config: &Config) -> Server {
        let database = config.get_dbname().or(config.get_user()).unwrap_or_default().to_owned();
        match &self.address {
            Address::Tcp(address) => {
                let name = self.hostname.clone().unwrap_or_else(|| address.ip().to_string());
                Server { database, address: name, port: Some(address.port()) }
            }
            #[cfg(unix)]
            Address::Unix(path) => Server { database, address: path.display().to_string(), port: None },
        }
    }

    /// Opens a socket, within the time that one address has.
    pub(super) async fn open(&self) -> io::Result<Sock> {
        let Some(limit) = self.connect_timeout else { return self.dial().await };
        let late = || io::Error::new(io::ErrorKind::TimedOut, "connection timed out");
        tokio::time::timeout(limit, self.dial()).await.map_err(|_| late())?
    }

    async fn dial(&self) -> io::Result<Sock> {
        match &self.address {
            Address::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                let socket = SockRef::from(&stream);
                #[cfg(target_os = "linux")]
                if let Some(timeout) = self.tcp_user_timeout {
                    socket.set_tcp_user_timeout(Some(timeout))?;
                }
                if let Some(keepalive) = &self.keepalive {
                    socket.set_tcp_keepalive(keepalive)?;
                }
                Ok(Sock::Tcp(stream))
            }
            #[cfg(unix)]
            Address::Unix(path) => Ok(Sock::Unix(UnixStream::connect(path).await?)),
        }
    }
}

/// What of it the operating system can be told.
fn keepalive(config: &Config) -> TcpKeepalive {
    let keepalive = TcpKeepalive::new().with_time(config.get_keepalives_idle());
    #[cfg(not(any(target_os = "aix", target_os = "redox", target_os = "solaris", target_os = "openbsd")))]
    let keepalive = match config.get_keepalives_interval() {
        Some(interval) => keepalive.with_interval(interval),
        None => keepalive,
    };
    #[cfg(not(any(
        target_os = "aix",
        target_os = "redox",
        target_os = "solaris",
        target_os = "windows",
        target_os = "openbsd"
    )))]
    let keepalive = match config.get_keepalives_retries() {
        Some(retries) => keepalive.with_retries(retries),
        None => keepalive,
    };
    keepalive
}

/// As a message names it: of a name that stands for several addresses, which of them it is.
impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.address, &self.hostname) {
            (Address::Tcp(address), Some(name)) if name.parse() != Ok::<IpAddr, _>(address.ip()) => {
                write!(f, "{name}:{} ({})", address.port(), address.ip())
            }
            (Address::Tcp(address), _) => write!(f, "{address}"),
            #[cfg(unix)]
            (Address::Unix(path), _) => write!(f, "{}", path.display()),
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

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_socket_is_tuned_as_the_configuration_says() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = |config: &Config| Peer::new(Address::Tcp(listener.local_addr().unwrap()), None, config);
        let mut config = Config::new();
        config
            .keepalives_idle(Duration::from_secs(31))
            .keepalives_interval(Duration::from_secs(7))
            .keepalives_retries(4)
            .tcp_user_timeout(Duration::from_secs(21));
        let Sock::Tcp(stream) = peer(&config).open().await.unwrap() else { panic!("a TCP socket") };
        let socket = SockRef::from(&stream);
        assert!(stream.nodelay().unwrap() && socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(31));
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), Duration::from_secs(7));
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), 4);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_secs(21)));

        let Sock::Tcp(stream) = peer(Config::new().keepalives(false)).open().await.unwrap() else { panic!("TCP") };
        let socket = SockRef::from(&stream);
        assert!(stream.nodelay().unwrap() && !socket.keepalive().unwrap());
        assert_eq!(socket.tcp_user_timeout().unwrap(), None);
    }

    #[test]
    fn a_peer_is_called_by_its_name_and_by_which_of_its_addresses_it_is() {
        let shown = |address: &str, name: Option<&str>| {
            let address = Address::Tcp(address.parse().unwrap());
            Peer::new(address, name.map(str::to_owned), &Config::new()).to_string()
        };
        assert_eq!(shown("10.1.2.3:5433", Some("db.example")), "db.example:5433 (10.1.2.3)");
        assert_eq!(shown("10.1.2.3:5433", Some("10.1.2.3")), "10.1.2.3:5433");
        assert_eq!(shown("[::1]:5433", Some("0:0::1")), "[::1]:5433");
        assert_eq!(shown("[::1]:5433", None), "[::1]:5433");
    }
}
