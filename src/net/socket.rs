//! A socket to a server.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use super::unix::UnixStream;

/// A TCP or Unix socket.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: Stream,
    /// Takes the stream when the socket is dropped.
    handover: Option<Arc<SocketHandover>>,
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    /// Handed over.
    Taken,
}

/// Evaluates an expression with the stream of either variant.
macro_rules! forward {
    ($self:ident, $stream:ident => $call:expr, taken => $taken:expr) => {
        match &mut $self.get_mut().stream {
            Stream::Tcp($stream) => $call,
            Stream::Unix($stream) => $call,
            Stream::Taken => $taken,
        }
    };
}

/// Returns the error of a stream that was handed over, which happens only when its socket is dropped.
fn taken<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::ErrorKind::NotConnected.into()))
}

impl Socket {
    pub(crate) fn tcp(stream: TcpStream) -> Self {
        Self { stream: Stream::Tcp(stream), handover: None }
    }

    pub(crate) fn unix(stream: UnixStream) -> Self {
        Self { stream: Stream::Unix(stream), handover: None }
    }

    /// Returns the handover of this socket's stream.
    pub(crate) fn handover(&mut self) -> Arc<SocketHandover> {
        Arc::clone(self.handover.get_or_insert_default())
    }

    /// Closes this side, and waits until the server has closed its own or the connection is lost. Discards what the
    /// server sends, so that it is not blocked.
    async fn closed_by_peer(&mut self) {
        if self.shutdown().await.is_err() {
            return;
        }
        let mut discarded = [0; 4096];
        while self.read(&mut discarded).await.is_ok_and(|bytes| bytes > 0) {}
    }
}

/// Hands over the stream of a socket when that is dropped by the task that drives it.
///
/// tokio-postgres does not return the stream of a connection. It can only be dropped, which would close it: whether the
/// server has let go of the connection would remain unknown.
#[derive(Debug, Default)]
pub(crate) struct SocketHandover(Mutex<HandoverState>);

#[derive(Debug, Default)]
enum HandoverState {
    /// The stream is closed with its socket.
    #[default]
    Unrequested,
    Requested(oneshot::Sender<Socket>),
    /// The socket was dropped.
    Over,
}

impl SocketHandover {
    /// Requests the stream. When the socket is dropped, the returned future closes this side and waits until the server
    /// has closed its own.
    pub(crate) fn closed_by_peer(&self) -> impl Future<Output = ()> + Send + use<> {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !matches!(*state, HandoverState::Over) {
            *state = HandoverState::Requested(sender);
        }
        async move {
            if let Ok(mut socket) = receiver.await {
                socket.closed_by_peer().await;
            }
        }
    }

    fn requested(&self) -> Option<oneshot::Sender<Socket>> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut *state, HandoverState::Over) {
            HandoverState::Requested(sender) => Some(sender),
            HandoverState::Unrequested | HandoverState::Over => None,
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Some(sender) = self.handover.as_ref().and_then(|handover| handover.requested()) {
            let stream = std::mem::replace(&mut self.stream, Stream::Taken);
            // If nobody waits for it any more, it is closed.
            let _ = sender.send(Self { stream, handover: None });
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        forward!(self, stream => Pin::new(stream).poll_read(cx, buf), taken => taken())
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        forward!(self, stream => Pin::new(stream).poll_write(cx, buf), taken => taken())
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        forward!(self, stream => Pin::new(stream).poll_write_vectored(cx, bufs), taken => taken())
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Tcp(stream) => stream.is_write_vectored(),
            Stream::Unix(stream) => stream.is_write_vectored(),
            Stream::Taken => false,
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        forward!(self, stream => Pin::new(stream).poll_flush(cx), taken => taken())
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        forward!(self, stream => Pin::new(stream).poll_shutdown(cx), taken => taken())
    }
}
