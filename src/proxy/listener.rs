//! Where clients connect.

use std::fmt;
use std::io;
use std::net::SocketAddr;
#[cfg(unix)]
use std::path::Path;
use std::path::PathBuf;
use std::str::FromStr;

use tokio::net::TcpListener;
#[cfg(unix)]
use tokio::net::UnixListener;

use super::error::ProxyError;
use super::stream::Stream;
use super::upstream::client_options;

/// An address that a proxy listens at: `host:port`, `:port` for all interfaces, or the path of a Unix socket.
///
/// ```
/// use poolscope::proxy::ListenAddress;
///
/// assert!("127.0.0.1:6432".parse::<ListenAddress>().is_ok());
/// assert!("/run/poolscope/.s.PGSQL.6432".parse::<ListenAddress>().is_ok());
/// assert!("localhost".parse::<ListenAddress>().is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ListenAddress {
    /// A host or an IP address, and a port.
    Tcp(String),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => f.write_str(address),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

impl FromStr for ListenAddress {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.starts_with('/') {
            return Ok(Self::Unix(text.into()));
        }
        let port = text.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
        port.map(|_| Self::Tcp(text.to_owned())).ok_or("expected host:port, or the path of a Unix socket")
    }
}

/// A bound listener.
#[derive(Debug)]
pub(super) enum Listener {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix {
        listener: UnixListener,
        _path: UnixPath,
    },
}

/// The path of a Unix socket, which is removed with its listener.
#[cfg(unix)]
#[derive(Debug)]
pub(super) struct UnixPath(PathBuf);

#[cfg(unix)]
impl Drop for UnixPath {
    fn drop(&mut self) {
        if is_socket(&self.0) {
            let _ = std::fs::remove_file(&self.0);
        }
    }
}

#[cfg(unix)]
fn is_socket(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt as _;

    std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket())
}

impl Listener {
    pub(super) async fn bind(address: &ListenAddress) -> Result<Self, ProxyError> {
        let bound = match address {
            ListenAddress::Tcp(address) => bind_tcp(address).await.map(Self::Tcp),
            #[cfg(unix)]
            ListenAddress::Unix(path) => {
                bind_unix(path).await.map(|listener| Self::Unix { listener, _path: UnixPath(path.clone()) })
            }
            #[cfg(not(unix))]
            ListenAddress::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
        };
        bound.map_err(|source| ProxyError::Listen { address: address.to_string(), source })
    }

    /// Returns the address that clients of a TCP listener connect to.
    pub(super) fn tcp_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            #[cfg(unix)]
            Self::Unix { .. } => None,
        }
    }

    pub(super) async fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // Fails if the client has left.
                let _ = client_options().apply(&stream);
                Ok(Stream::Tcp(stream))
            }
            #[cfg(unix)]
            Self::Unix { listener, .. } => Ok(Stream::Unix(listener.accept().await?.0)),
        }
    }
}

async fn bind_tcp(address: &str) -> io::Result<TcpListener> {
    match address.strip_prefix(':') {
        // Where IPv6 is disabled, only IPv4 is left.
        Some(port) => match TcpListener::bind(format!("[::]:{port}")).await {
            Ok(listener) => Ok(listener),
            Err(_) => TcpListener::bind(format!("0.0.0.0:{port}")).await,
        },
        None => TcpListener::bind(address).await,
    }
}

#[cfg(unix)]
async fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    use std::os::unix::fs::PermissionsExt as _;

    let listener = bind_unused(path).await?;
    // As PostgreSQL's: every user who can reach the directory may connect, with any umask.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777))?;
    Ok(listener)
}

#[cfg(unix)]
async fn bind_unused(path: &Path) -> io::Result<UnixListener> {
    match UnixListener::bind(path) {
        // Connecting to a file is refused too.
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && !is_socket(path) => Err(error),
        // A socket that nobody listens at was left by a process that was killed.
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => match tokio::net::UnixStream::connect(path).await {
            Err(refused) if refused.kind() == io::ErrorKind::ConnectionRefused => {
                std::fs::remove_file(path)?;
                UnixListener::bind(path)
            }
            _ => Err(error),
        },
        bound => bound,
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[tokio::test]
    async fn only_a_socket_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("proxy.toml");
        std::fs::write(&file, "text").unwrap();
        let error = Listener::bind(&ListenAddress::Unix(file.clone())).await.unwrap_err();
        assert!(error.to_string().contains("proxy.toml"), "{error}");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "text");

        let socket = directory.path().join("socket");
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        let listener = Listener::bind(&ListenAddress::Unix(socket.clone())).await.unwrap();
        assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o777);
        drop(listener);
        assert!(!socket.exists());
    }
}
