#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

/// Returns its reads one by one and accepts at most three bytes a write, each at the second poll.
#[derive(Default)]
struct Scripted {
    reads: VecDeque<io::Result<&'static [u8]>>,
    written: Vec<u8>,
    polled: bool,
}

impl Scripted {
    fn is_pending(&mut self, cx: &Context<'_>) -> bool {
        self.polled = !self.polled;
        if self.polled {
            cx.waker().wake_by_ref();
        }
        self.polled
    }
}

impl AsyncRead for Scripted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.is_pending(cx) {
            return Poll::Pending;
        }
        if let Some(read) = self.reads.pop_front() {
            buf.put_slice(read?);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Scripted {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.is_pending(cx) {
            return Poll::Pending;
        }
        let bytes: Vec<u8> = bufs.iter().flat_map(|buf| buf.iter().copied()).take(3).collect();
        self.written.extend_from_slice(&bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Err(io::Error::other("shut down")))
    }
}

/// Records what was shown to it.
#[derive(Default)]
struct RecordingObserver {
    sent: Vec<Vec<u8>>,
    received: Vec<Vec<u8>>,
}

impl TapObserver for RecordingObserver {
    fn sent(&mut self, bytes: &[u8]) {
        self.sent.push(bytes.to_vec());
    }

    fn received(&mut self, bytes: &[u8]) -> Result<(), LimitExceeded> {
        self.received.push(bytes.to_vec());
        Ok(())
    }
}

fn tap(reads: impl Into<VecDeque<io::Result<&'static [u8]>>>) -> Tap<Scripted, RecordingObserver> {
    let scripted = Scripted { reads: reads.into(), ..Scripted::default() };
    Tap::new(scripted, Some(Box::default()), None)
}

fn parts(tap: Tap<Scripted, RecordingObserver>) -> (Scripted, RecordingObserver) {
    (tap.stream, *tap.observer.unwrap())
}

#[tokio::test]
async fn read_shows_only_the_bytes_it_added() {
    let mut tap = tap([Ok(&b"one"[..]), Ok(b"two")]);
    let mut bytes = [0; 16];
    let mut buf = ReadBuf::new(&mut bytes);
    buf.put_slice(b"zero");
    for _ in 0..3 {
        std::future::poll_fn(|cx| Pin::new(&mut tap).poll_read(cx, &mut buf)).await.unwrap();
    }
    assert_eq!(buf.filled(), b"zeroonetwo");
    assert_eq!(parts(tap).1.received, [b"one", b"two"]);
}

#[tokio::test]
async fn reads_after_an_error_are_shown() {
    let mut tap = tap([Err(io::ErrorKind::ConnectionReset.into()), Ok(&b"more"[..])]);
    let mut bytes = [0; 8];
    assert_eq!(tap.read(&mut bytes).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(tap.read(&mut bytes).await.unwrap(), 4);
    assert_eq!(tap.shutdown().await.unwrap_err().to_string(), "shut down");
    assert_eq!(parts(tap).1.received, [b"more"]);
}

#[tokio::test]
async fn write_shows_the_bytes_accepted() {
    let mut tap = tap([]);
    tap.write_all(b"seven of").await.unwrap();
    tap.flush().await.unwrap();
    let (stream, observer) = parts(tap);
    assert_eq!(stream.written, b"seven of");
    assert_eq!(observer.sent, [&b"sev"[..], b"en ", b"of"]);
}

#[tokio::test]
async fn vectored_write_shows_the_bytes_accepted_in_order() {
    let mut tap = tap([]);
    assert!(tap.is_write_vectored());
    let bufs = [&b""[..], b"ab", b"cd", b"e"].map(IoSlice::new);
    assert_eq!(tap.write_vectored(&bufs).await.unwrap(), 3);
    let (stream, observer) = parts(tap);
    assert_eq!(stream.written, b"abc");
    assert_eq!(observer.sent, [&b"ab"[..], b"c"]);
}

#[tokio::test]
async fn bytes_pass_without_an_observer() {
    let scripted = Scripted { reads: [Ok(&b"one"[..])].into(), ..Scripted::default() };
    let mut tap: Tap<Scripted> = Tap::new(scripted, None, None);
    tap.write_all(b"word").await.unwrap();
    let mut bytes = Vec::new();
    tap.read_to_end(&mut bytes).await.unwrap();
    assert_eq!((&*bytes, &*tap.stream.written), (&b"one"[..], &b"word"[..]));
}

#[test]
fn vectored_writes_depend_on_the_stream() {
    struct Plain;
    impl AsyncWrite for Plain {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Pending
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }
    assert!(!Tap::<_, RecordingObserver>::new(Plain, None, None).is_write_vectored());
}
