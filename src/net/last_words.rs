//! A stream whose peer may have closed after an error that explains why.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream that is read only after something was written, and whose writes succeed once the peer has closed, so that what
/// the peer sent before is still read.
///
/// A server that refuses a client sends an error and closes at once, often before the client has sent anything. A driver
/// that reads first would discard that error, since it answers no request, and one that writes first would report the failed
/// write instead. The end of the stream is read after the error.
#[derive(Debug)]
pub(crate) struct LastWords<S> {
    stream: S,
    has_written: bool,
    is_closed: bool,
    /// The task that has read before anything was written.
    reader: Option<Waker>,
}

impl<S> LastWords<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, has_written: false, is_closed: false, reader: None }
    }

    /// Returns `written`, or `instead` if the peer has closed. The stream can be read from then on.
    fn or_closed<T>(&mut self, written: Poll<io::Result<T>>, instead: T) -> Poll<io::Result<T>> {
        if written.is_ready()
            && !std::mem::replace(&mut self.has_written, true)
            && let Some(reader) = self.reader.take()
        {
            reader.wake();
        }
        match written {
            Poll::Ready(Err(error))
                if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) =>
            {
                self.is_closed = true;
                Poll::Ready(Ok(instead))
            }
            written => written,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for LastWords<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.has_written {
            self.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for LastWords<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_closed {
            return Poll::Ready(Ok(buf.len()));
        }
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.or_closed(written, buf.len())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_closed || !self.has_written {
            return Poll::Ready(Ok(()));
        }
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.or_closed(flushed, ())
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn error_of_a_peer_that_has_closed_is_read() {
        let (client, mut server) = tokio::io::duplex(64);
        server.write_all(b"-ERR full\r\n").await.unwrap();
        drop(server);
        let mut stream = LastWords::new(client);
        let mut byte = [0];
        assert!(tokio::time::timeout(Duration::ZERO, stream.read(&mut byte)).await.is_err(), "nothing was written");
        for _ in 0..2 {
            stream.write_all(b"*1\r\n$4\r\nPING\r\n").await.unwrap();
            stream.flush().await.unwrap();
        }
        let mut read = Vec::new();
        stream.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, b"-ERR full\r\n");
    }
}
