//! The stream of a client or of the server.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;

/// A TCP or Unix socket, with or without TLS.
pub(super) enum Stream {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
    /// With TLS, from a client or to the server. Boxed, because few sessions need its memory.
    FromClient(Box<tokio_rustls::server::TlsStream<Socket>>),
    ToServer(Box<tokio_rustls::client::TlsStream<Socket>>),
}

/// A socket below TLS.
pub(super) enum Socket {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
}

impl Stream {
    /// Registers a socket, which may be that of another runtime, with the one that this is called in.
    pub(super) fn moved_to_this_runtime(self) -> io::Result<Self> {
        match self {
            Self::Tcp(stream) => TcpStream::from_std(stream.into_std()?).map(Self::Tcp),
            #[cfg(unix)]
            Self::Unix(stream) => UnixStream::from_std(stream.into_std()?).map(Self::Unix),
            // Created where it is used.
            Self::FromClient(_) | Self::ToServer(_) => Ok(self),
        }
    }

    /// Returns the socket of a stream without TLS.
    pub(super) fn into_socket(self) -> Option<Socket> {
        match self {
            Self::Tcp(stream) => Some(Socket::Tcp(stream)),
            #[cfg(unix)]
            Self::Unix(stream) => Some(Socket::Unix(stream)),
            Self::FromClient(_) | Self::ToServer(_) => None,
        }
    }

    /// Returns the address of the peer; `None` for a Unix socket.
    pub(super) fn peer_ip(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(stream) => stream.peer_addr().ok().map(|address| address.ip().to_canonical()),
            #[cfg(unix)]
            Self::Unix(_) => None,
            Self::FromClient(stream) => stream.get_ref().0.peer_ip(),
            Self::ToServer(stream) => stream.get_ref().0.peer_ip(),
        }
    }

    /// Returns whether written bytes may wait for a flush.
    pub(super) const fn is_buffered(&self) -> bool {
        matches!(self, Self::FromClient(_) | Self::ToServer(_))
    }
}

impl Socket {
    fn peer_ip(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(stream) => stream.peer_addr().ok().map(|address| address.ip().to_canonical()),
            #[cfg(unix)]
            Self::Unix(_) => None,
        }
    }
}

/// Calls a method of the stream of any variant.
macro_rules! forward {
    ($type:ident, $self:ident, $stream:ident => $call:expr, $($variant:ident),+) => {
        match $self.get_mut() {
            $($type::$variant($stream) => $call,)+
            #[cfg(unix)]
            $type::Unix($stream) => $call,
        }
    };
}

macro_rules! stream {
    ($type:ident, $($variant:ident),+) => {
        impl AsyncRead for $type {
            #[inline]
            fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
                forward!($type, self, stream => Pin::new(stream).poll_read(cx, buf), $($variant),+)
            }
        }

        impl AsyncWrite for $type {
            #[inline]
            fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
                forward!($type, self, stream => Pin::new(stream).poll_write(cx, buf), $($variant),+)
            }

            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                forward!($type, self, stream => Pin::new(stream).poll_flush(cx), $($variant),+)
            }

            fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                forward!($type, self, stream => Pin::new(stream).poll_shutdown(cx), $($variant),+)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($type)).finish_non_exhaustive()
            }
        }
    };
}

stream!(Stream, Tcp, FromClient, ToServer);
stream!(Socket, Tcp);
