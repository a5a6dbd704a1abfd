//! The bodies of responses: whole ones, and streams of events.

use std::fmt;
use std::io::IoSlice;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::Stream;
use http_body_util::Full;
use hyper::body::{Body, Buf, Bytes, Frame, SizeHint};

use super::page::PooledPage;

/// A part of a body.
#[derive(Debug)]
pub(super) enum Data {
    Bytes(Bytes),
    Page(PooledPage),
}

impl<T: Into<Bytes>> From<T> for Data {
    fn from(bytes: T) -> Self {
        Self::Bytes(bytes.into())
    }
}

impl Buf for Data {
    fn remaining(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.remaining(),
            Self::Page(pooled) => pooled.page().remaining(),
        }
    }

    fn chunk(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes.chunk(),
            Self::Page(pooled) => pooled.page().chunk(),
        }
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.chunks_vectored(slices),
            Self::Page(pooled) => pooled.page().chunks_vectored(slices),
        }
    }

    fn advance(&mut self, count: usize) {
        match self {
            Self::Bytes(bytes) => bytes.advance(count),
            Self::Page(pooled) => pooled.page_mut().advance(count),
        }
    }
}

/// Events that are sent as they occur.
pub(super) type Events = Pin<Box<dyn Stream<Item = Bytes> + Send>>;

/// The body of a response.
pub(super) enum ResponseBody {
    Whole(Full<Data>),
    Events(Events),
}

impl ResponseBody {
    pub(super) fn whole(data: impl Into<Data>) -> Self {
        Self::Whole(Full::new(data.into()))
    }

    pub(super) fn is_stream(&self) -> bool {
        matches!(self, Self::Events(_))
    }
}

impl fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_stream() { "Events" } else { "Whole" })
    }
}

impl Body for ResponseBody {
    type Data = Data;
    type Error = std::convert::Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Data>, Self::Error>>> {
        match &mut *self {
            Self::Whole(full) => Pin::new(full).poll_frame(cx),
            Self::Events(events) => {
                events.as_mut().poll_next(cx).map(|event| event.map(|bytes| Ok(Frame::data(bytes.into()))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(full) => full.is_end_stream(),
            Self::Events(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(full) => full.size_hint(),
            Self::Events(_) => SizeHint::default(),
        }
    }
}
