//! Passes bytes between a client and the server, in both directions, and shows them to the observer.
//!
//! A direction reads only if everything that it has read was written, so a peer that does not read stops the other one,
//! and memory does not grow. An idle connection has no buffer: each read uses that of the thread, and only what the other
//! side did not accept at once is kept.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::observer::SessionObserver;
use super::stream::Stream;

/// The most bytes that are read at once. Also bounds what is kept for one direction of a connection.
const CHUNK_BYTES: usize = 32 * 1024;

thread_local! {
    static CHUNK: RefCell<Box<[u8]>> = RefCell::new(vec![0; CHUNK_BYTES].into_boxed_slice());
}

/// One established session.
pub(super) struct Relay {
    pub(super) client: Stream,
    pub(super) server: Stream,
    pub(super) observer: SessionObserver,
    to_server: Direction,
    to_client: Direction,
    /// Whether the session is to end as soon as it is idle.
    pub(super) is_draining: bool,
    /// The side that closed first.
    first: Option<Side>,
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    By(Side),
    /// It is idle, and to be ended.
    Drained,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Server,
}

/// The state of one direction.
#[derive(Default)]
struct Direction {
    /// What was read and not yet written, from `written` on.
    pending: Vec<u8>,
    written: usize,
    needs_flush: bool,
    /// Whether the source has ended.
    is_source_ended: bool,
    /// Whether nothing more is passed on.
    is_done: bool,
}

/// Which end of a direction failed.
#[derive(Debug)]
enum Failed {
    Source,
    Target,
}

impl Relay {
    /// `from_client` and `from_server` are bytes that were read and not yet passed on.
    pub(super) fn new(
        client: Stream,
        server: Stream,
        mut observer: SessionObserver,
        from_client: Vec<u8>,
        from_server: Vec<u8>,
    ) -> Self {
        if !from_client.is_empty() {
            observer.sent(&from_client);
        }
        if !from_server.is_empty() {
            observer.received(&from_server);
        }
        let direction = |pending| Direction { pending, ..Direction::default() };
        let (to_server, to_client) = (direction(from_client), direction(from_server));
        Self { client, server, observer, to_server, to_client, is_draining: false, first: None }
    }

    /// Passes bytes on until the session ends.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is lost.
    pub(super) async fn run(&mut self) -> Ended {
        poll_fn(|cx| self.poll_run(cx)).await
    }

    /// As [`run`](Self::run).
    pub(super) fn poll_run(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        CHUNK.with_borrow_mut(|chunk| self.poll(cx, chunk))
    }

    /// Returns whether a message of the proxy may follow what the client has received.
    pub(super) fn may_send_error(&self) -> bool {
        self.to_client.pending.is_empty() && self.observer.is_server_between_messages()
    }

    fn poll(&mut self, cx: &mut Context<'_>, chunk: &mut [u8]) -> Poll<Ended> {
        let Self { client, server, observer, to_server, to_client, first, .. } = self;
        if !to_server.is_done {
            match to_server.poll(client, server, cx, chunk, |bytes| observer.sent(bytes)) {
                Poll::Pending => {}
                Poll::Ready(Ok(())) => {
                    to_server.is_done = true;
                    first.get_or_insert(Side::Client);
                }
                Poll::Ready(Err(Failed::Source)) => return Poll::Ready(Ended::By(*first.get_or_insert(Side::Client))),
                // What the server sent before is still to be passed on.
                Poll::Ready(Err(Failed::Target)) => {
                    to_server.is_done = true;
                    first.get_or_insert(Side::Server);
                }
            }
        }
        match to_client.poll(server, client, cx, chunk, |bytes| observer.received(bytes)) {
            Poll::Pending => {}
            Poll::Ready(Ok(()) | Err(Failed::Source)) => {
                return Poll::Ready(Ended::By(*first.get_or_insert(Side::Server)));
            }
            Poll::Ready(Err(Failed::Target)) => return Poll::Ready(Ended::By(*first.get_or_insert(Side::Client))),
        }
        let is_passed = self.to_server.pending.is_empty() && self.to_client.pending.is_empty();
        if self.is_draining && is_passed && self.observer.is_idle() {
            return Poll::Ready(Ended::Drained);
        }
        Poll::Pending
    }
}

impl Direction {
    /// Passes bytes from `source` to `target` as far as possible. Ready when the source's end was passed on.
    fn poll(
        &mut self,
        source: &mut Stream,
        target: &mut Stream,
        cx: &mut Context<'_>,
        chunk: &mut [u8],
        mut observe: impl FnMut(&[u8]),
    ) -> Poll<Result<(), Failed>> {
        loop {
            ready!(self.poll_write_pending(target, cx))?;
            if self.is_source_ended {
                return Pin::new(target).poll_shutdown(cx).map_err(|_| Failed::Target);
            }
            let mut read = ReadBuf::new(chunk);
            ready!(Pin::new(&mut *source).poll_read(cx, &mut read)).map_err(|_| Failed::Source)?;
            let bytes = read.filled();
            if bytes.is_empty() {
                self.is_source_ended = true;
                continue;
            }
            // Written first, so that the peer does not wait for the observer.
            let mut written = 0;
            let result = loop {
                match Pin::new(&mut *target).poll_write(cx, &bytes[written..]) {
                    Poll::Ready(Ok(count @ 1..)) => {
                        written += count;
                        self.needs_flush = target.is_buffered();
                        if written == bytes.len() {
                            break Ok(());
                        }
                    }
                    Poll::Ready(Ok(0) | Err(_)) => break Err(Failed::Target),
                    Poll::Pending => {
                        self.pending = bytes[written..].to_vec();
                        self.written = 0;
                        break Ok(());
                    }
                }
            };
            observe(bytes);
            result?;
        }
    }

    fn poll_write_pending(&mut self, target: &mut Stream, cx: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        while self.written < self.pending.len() {
            match ready!(Pin::new(&mut *target).poll_write(cx, &self.pending[self.written..])) {
                Ok(count @ 1..) => self.written += count,
                Ok(0) | Err(_) => return Poll::Ready(Err(Failed::Target)),
            }
            self.needs_flush = target.is_buffered();
        }
        if !self.pending.is_empty() {
            (self.pending, self.written) = (Vec::new(), 0);
        }
        if self.needs_flush {
            ready!(Pin::new(target).poll_flush(cx)).map_err(|_| Failed::Target)?;
            self.needs_flush = false;
        }
        Poll::Ready(Ok(()))
    }
}
