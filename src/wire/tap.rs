//! A stream whose bytes are observed as they pass.

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, TlsStream};

use super::observer::ProtocolObserver;
use super::protocol::{LimitExceeded, ServerGuard};

/// A stream that passes everything on unchanged, and shows its guard and its observer each byte once, in the order in
/// which the inner stream accepted or returned it. A read fails once the server has sent more than it may.
pub(crate) struct Tap<S, O = ProtocolObserver> {
    pub(crate) stream: S,
    pub(crate) observer: Option<Box<O>>,
    /// Removed once it is not needed any more.
    pub(crate) guard: Option<Box<ServerGuard>>,
}

/// An observer of the bytes. A trait so that tests can use their own.
pub(super) trait TapObserver {
    fn sent(&mut self, bytes: &[u8]);
    fn received(&mut self, bytes: &[u8]) -> Result<(), LimitExceeded>;
}

impl TapObserver for ProtocolObserver {
    #[inline]
    fn sent(&mut self, bytes: &[u8]) {
        Self::sent(self, bytes);
    }

    #[inline]
    fn received(&mut self, bytes: &[u8]) -> Result<(), LimitExceeded> {
        Self::received(self, bytes)
    }
}

impl<S, O> Tap<S, O> {
    /// Creates a tap. Without an `observer` and a `guard`, the bytes only pass.
    pub(crate) fn new(stream: S, observer: Option<Box<O>>, guard: Option<Box<ServerGuard>>) -> Self {
        Self { stream, observer, guard }
    }

    #[cold]
    fn check(&mut self, read: &[u8]) -> Result<(), LimitExceeded> {
        if let Some(guard) = &mut self.guard
            && !guard.received(read)?
        {
            self.guard = None;
        }
        Ok(())
    }
}

impl<S, O> fmt::Debug for Tap<S, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tap").finish_non_exhaustive()
    }
}

impl<S: AsyncRead + Unpin, O: TapObserver> AsyncRead for Tap<S, O> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // Bytes filled before come from an earlier read.
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let read = &buf.filled()[before..];
        if self.guard.is_some() {
            self.check(read)?;
        }
        if let Some(observer) = &mut self.observer
            && !read.is_empty()
        {
            observer.received(read)?;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin, O: TapObserver> AsyncWrite for Tap<S, O> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, buf))?;
        if let Some(guard) = &mut self.guard {
            guard.sent(&buf[..written]);
        }
        if let Some(observer) = &mut self.observer
            && written > 0
        {
            observer.sent(&buf[..written]);
        }
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, bufs))?;
        if self.observer.is_some() || self.guard.is_some() {
            let mut left = written;
            for buf in bufs {
                let taken = left.min(buf.len());
                if let Some(guard) = &mut self.guard {
                    guard.sent(&buf[..taken]);
                }
                if let Some(observer) = &mut self.observer
                    && taken > 0
                {
                    observer.sent(&buf[..taken]);
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

/// Channel binding uses the TLS session of the inner stream.
impl<S: TlsStream + Unpin> TlsStream for Tap<S> {
    fn channel_binding(&self) -> ChannelBinding {
        self.stream.channel_binding()
    }
}

#[cfg(test)]
#[path = "tap_tests.rs"]
mod tests;
