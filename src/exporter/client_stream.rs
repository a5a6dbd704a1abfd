//! The stream of a client, with bounds on how long it may leave a response unread.

use std::future::Future as _;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::clients::Client;
use super::limits::{RESPONSE_TIMEOUT, WRITE_TIMEOUT};

/// A stream whose writes fail once nothing could be written for [`WRITE_TIMEOUT`], or not everything within
/// [`RESPONSE_TIMEOUT`]. It records in its [`Client`] whether the client sends and reads.
///
/// hyper has a timeout for a request's head but none for its response. A client that stops reading would hold the
/// memory of the response and its connection forever.
#[derive(Debug)]
pub(super) struct ClientStream<S> {
    stream: S,
    client: Arc<Client>,
    /// Elapses [`WRITE_TIMEOUT`] after the last progress.
    pending: Option<Pin<Box<Sleep>>>,
    /// Elapses [`RESPONSE_TIMEOUT`] after the client was first found not to read.
    unflushed: Option<Pin<Box<Sleep>>>,
}

impl<S: Unpin> ClientStream<S> {
    pub(super) fn new(stream: S, client: Arc<Client>) -> Self {
        Self { stream, client, pending: None, unflushed: None }
    }

    fn poll_with_timeout<T>(
        &mut self,
        cx: &mut Context<'_>,
        poll: impl FnOnce(Pin<&mut S>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let polled = poll(Pin::new(&mut self.stream), cx);
        if polled.is_ready() {
            self.pending = None;
        } else {
            self.client.blocked();
            self.pending.get_or_insert_with(|| Box::pin(sleep(WRITE_TIMEOUT)));
            self.unflushed.get_or_insert_with(|| Box::pin(sleep(RESPONSE_TIMEOUT)));
        }
        let mut timers = [&mut self.pending, &mut self.unflushed].into_iter().flatten();
        if timers.any(|timer| timer.as_mut().poll(cx).is_ready()) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        polled
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ClientStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.client.received();
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ClientStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_with_timeout(cx, |stream, cx| stream.poll_write(cx, buf))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = self.poll_with_timeout(cx, |stream, cx| stream.poll_flush(cx));
        if matches!(polled, Poll::Ready(Ok(()))) {
            self.unflushed = None;
            self.client.flushed();
        }
        polled
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_with_timeout(cx, |stream, cx| stream.poll_shutdown(cx))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_with_timeout(cx, |stream, cx| stream.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
