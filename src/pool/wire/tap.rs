//! A stream that is read along.

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, TlsStream};

use super::eyes::ProtocolObserver;

/// Passes everything on unchanged, and shows the [`ProtocolObserver`] what did pass: each byte once, in the order in which the
/// stream took or gave it.
pub(crate) struct Tap<S, E = ProtocolObserver> {
    stream: S,
    eyes: Option<Box<E>>,
}

/// What eyes do, so that a test can have its own.
pub(super) trait Look {
    fn sent(&mut self, bytes: &[u8]);
    fn received(&mut self, bytes: &[u8]);
}

impl Look for ProtocolObserver {
    #[inline]
    fn sent(&mut self, bytes: &[u8]) {
        Self::sent(self, bytes);
    }

    #[inline]
    fn received(&mut self, bytes: &[u8]) {
        Self::received(self, bytes);
    }
}

impl<S, E> Tap<S, E> {
    /// Without `eyes` nobody looks.
    pub(crate) fn new(stream: S, eyes: Option<Box<E>>) -> Self {
        Self { stream, eyes }
    }

    /// For putting the eyes elsewhere.
    #[cfg_attr(not(any(feature = "tls", test)), allow(dead_code, reason = "only TLS moves them"))]
    pub(crate) fn into_parts(self) -> (S, Option<Box<E>>) {
        (self.stream, self.eyes)
    }
}

impl<S, E> fmt::Debug for Tap<S, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tap").finish_non_exhaustive()
    }
}

impl<S: AsyncRead + Unpin, E: Look> AsyncRead for Tap<S, E> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // What is filled already came of an earlier read.
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let read = &buf.filled()[before..];
        if let Some(eyes) = &mut self.eyes
            && !read.is_empty()
        {
            eyes.received(read);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin, E: Look> AsyncWrite for Tap<S, E> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, buf))?;
        if let Some(eyes) = &mut self.eyes
            && written > 0
        {
            eyes.sent(&buf[..written]);
        }
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, bufs))?;
        if let Some(eyes) = &mut self.eyes {
            let mut left = written;
            for buf in bufs {
                let taken = left.min(buf.len());
                if taken > 0 {
                    eyes.sent(&buf[..taken]);
                }
                left -= taken;
            }
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The TLS session is the stream's: what a password is bound to is seen through the tap.
impl<S: TlsStream + Unpin> TlsStream for Tap<S> {
    fn channel_binding(&self) -> ChannelBinding {
        self.stream.channel_binding()
    }
}

#[cfg(test)]
#[path = "tap_tests.rs"]
mod tests;
