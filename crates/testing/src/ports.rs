//! Ports of the loopback address that no other test takes.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::TcpSocket;

/// The ports to choose from, below the ephemeral range: an outgoing connection could occupy an ephemeral port while its
/// server is down, or even connect to itself.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// A port of 127.0.0.1 that is reserved as long as this exists: it refuses connections until a server listens on it, and
/// [`Self::new`] returns it nowhere else, not even in another process.
///
/// The server has to set `SO_REUSEADDR`, as the standard library and nearly every server do. On systems other than Linux,
/// which refuse that, the port was only free just now.
#[derive(Debug)]
pub struct ReservedPort {
    number: u16,
    /// Bound, and not listening.
    _socket: Option<TcpSocket>,
}

impl ReservedPort {
    /// Reserves a port.
    ///
    /// # Errors
    ///
    /// Returns an error if none of many is free.
    pub fn new() -> io::Result<Self> {
        let mut outcome = Err(io::ErrorKind::AddrInUse.into());
        for _ in 0..100 {
            outcome = Self::reserve(fastrand::u16(PORTS));
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }

    fn reserve(number: u16) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        // Without SO_REUSEADDR this fails if any other socket has the port, and not only if one listens.
        socket.set_reuseaddr(false)?;
        socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, number)))?;
        socket.set_reuseaddr(true)?;
        Ok(Self { number, _socket: cfg!(target_os = "linux").then_some(socket) })
    }

    /// Returns the port.
    #[must_use]
    pub const fn number(&self) -> u16 {
        self.number
    }

    /// Returns the port with its address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.number).into()
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn port_is_closed_until_its_server_listens() {
        let port = ReservedPort::new().unwrap();
        assert_eq!(TcpStream::connect(port.address()).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(ReservedPort::reserve(port.number()).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        for _ in 0..2 {
            let listener = TcpListener::bind(port.address()).unwrap();
            TcpStream::connect(port.address()).unwrap();
            assert_eq!(ReservedPort::reserve(port.number()).unwrap_err().kind(), io::ErrorKind::AddrInUse);
            drop(listener);
        }
    }
}
