//! The body of a response, which is read in the scope of its request.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::accounting::Accounting;
use super::outcome::of_grpc_status;
use crate::labels::Outcome;

pin_project! {
    /// The body of a response: that of the inner service, or an empty one if the request was refused. The request ends at
    /// its end.
    #[derive(Debug)]
    pub struct ResponseBody<B> {
        // Dropped before the request is counted as ended.
        #[pin]
        inner: Option<B>,
        // `None` if another layer does the accounting.
        accounting: Option<Accounting>,
    }
}

impl<B> ResponseBody<B> {
    pub(super) fn empty() -> Self {
        Self { inner: None, accounting: None }
    }

    /// `accounting` is `None` if another layer does it.
    #[inline]
    pub(super) fn new(inner: B, accounting: Option<Accounting>) -> Self {
        Self { inner: Some(inner), accounting }
    }
}

/// An empty body, for layers that respond instead of the service.
impl<B> Default for ResponseBody<B> {
    fn default() -> Self {
        Self::empty()
    }
}

impl<B: Body> Body for ResponseBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let mut this = self.project();
        let Some(mut inner) = this.inner.as_mut().as_pin_mut() else { return Poll::Ready(None) };
        let Some(accounting) = this.accounting else { return inner.poll_frame(cx) };
        let frame = ready!(accounting.enter(|| inner.as_mut().poll_frame(cx)));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    accounting.send(bytes::Buf::remaining(data));
                }
                if let Some(outcome) = frame.trailers_ref().and_then(of_grpc_status) {
                    accounting.end_as(outcome);
                }
                // A server that knows that the body has ended does not poll again.
                if frame.is_trailers() || inner.is_end_stream() {
                    accounting.complete_on_drop();
                }
            }
            Some(Err(_)) | None => {
                // Connections that the body holds belong to the cost of the request.
                this.inner.set(None);
                if frame.is_some() { accounting.end(Outcome::Error) } else { accounting.complete() }
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}
