#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

/// Gives what it was told to, a piece for each read, and takes at most three bytes at once, after having been asked
/// for each twice.
#[derive(Default)]
struct Scripted {
    pieces: VecDeque<io::Result<&'static [u8]>>,
    taken: Vec<u8>,
    asked: bool,
}

impl Scripted {
    fn is_pending(&mut self, cx: &Context<'_>) -> bool {
        self.asked = !self.asked;
        if self.asked {
            cx.waker().wake_by_ref();
        }
        self.asked
    }
}

impl AsyncRead for Scripted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.is_pending(cx) {
            return Poll::Pending;
        }
        if let Some(piece) = self.pieces.pop_front() {
            buf.put_slice(piece?);
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
        self.taken.extend_from_slice(&bytes);
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

/// What passed, a piece for each look.
#[derive(Default)]
struct Recorder {
    sent: Vec<Vec<u8>>,
    received: Vec<Vec<u8>>,
}

impl Look for Recorder {
    fn sent(&mut self, bytes: &[u8]) {
        self.sent.push(bytes.to_vec());
    }

    fn received(&mut self, bytes: &[u8]) {
        self.received.push(bytes.to_vec());
    }
}

fn tap(pieces: impl Into<VecDeque<io::Result<&'static [u8]>>>) -> Tap<Scripted, Recorder> {
    let scripted = Scripted { pieces: pieces.into(), ..Scripted::default() };
    Tap::new(scripted, Some(Box::default()))
}

fn parts(tap: Tap<Scripted, Recorder>) -> (Scripted, Recorder) {
    let (stream, eyes) = tap.into_parts();
    (stream, *eyes.unwrap())
}

#[tokio::test]
async fn each_read_shows_what_it_added_and_nothing_that_was_there() {
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
async fn an_error_passes_unseen_and_what_follows_it_is_seen() {
    let mut tap = tap([Err(io::ErrorKind::ConnectionReset.into()), Ok(&b"more"[..])]);
    let mut bytes = [0; 8];
    assert_eq!(tap.read(&mut bytes).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(tap.read(&mut bytes).await.unwrap(), 4);
    assert_eq!(tap.shutdown().await.unwrap_err().to_string(), "shut down");
    assert_eq!(parts(tap).1.received, [b"more"]);
}

#[tokio::test]
async fn a_write_shows_what_was_taken_of_it() {
    let mut tap = tap([]);
    tap.write_all(b"seven of").await.unwrap();
    tap.flush().await.unwrap();
    let (stream, eyes) = parts(tap);
    assert_eq!(stream.taken, b"seven of");
    assert_eq!(eyes.sent, [&b"sev"[..], b"en ", b"of"]);
}

#[tokio::test]
async fn a_vectored_write_shows_the_parts_that_were_taken_in_order() {
    let mut tap = tap([]);
    assert!(tap.is_write_vectored());
    let bufs = [&b""[..], b"ab", b"cd", b"e"].map(IoSlice::new);
    assert_eq!(tap.write_vectored(&bufs).await.unwrap(), 3);
    let (stream, eyes) = parts(tap);
    assert_eq!(stream.taken, b"abc");
    assert_eq!(eyes.sent, [&b"ab"[..], b"c"]);
}

#[tokio::test]
async fn without_eyes_everything_passes_all_the_same() {
    let scripted = Scripted { pieces: [Ok(&b"one"[..])].into(), ..Scripted::default() };
    let mut tap: Tap<Scripted> = Tap::new(scripted, None);
    tap.write_all(b"word").await.unwrap();
    let mut bytes = Vec::new();
    tap.read_to_end(&mut bytes).await.unwrap();
    assert_eq!((&*bytes, &*tap.into_parts().0.taken), (&b"one"[..], &b"word"[..]));
}

#[test]
fn a_stream_that_cannot_write_vectored_is_not_said_to() {
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
    assert!(!Tap::<_, Recorder>::new(Plain, None).is_write_vectored());
}
