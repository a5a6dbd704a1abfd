//! The body of an answer, read on behalf of its request.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::outcome::is_grpc_failure;
use super::tracking::Tracking;

pin_project! {
    /// The body of an answer: the inner one's, or none where the request was refused. The request ends with it.
    #[derive(Debug)]
    pub struct ResponseBody<B> {
        // Dropped before the request is counted as ended.
        #[pin]
        inner: Option<B>,
        // There until the request has ended.
        tracking: Option<Tracking>,
    }
}

impl<B> ResponseBody<B> {
    pub(super) fn empty() -> Self {
        Self { inner: None, tracking: None }
    }

    pub(super) fn untracked(inner: B) -> Self {
        Self { inner: Some(inner), tracking: None }
    }
}

impl<B: Body> ResponseBody<B> {
    pub(super) fn tracked(inner: B, mut tracking: Tracking) -> Self {
        // One that has nothing to read is not read, but dropped.
        if inner.is_end_stream() {
            tracking.may_end();
        }
        Self { inner: Some(inner), tracking: Some(tracking) }
    }
}

/// An empty one, as layers make it that answer for the service.
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
        let Some(tracking) = this.tracking else { return inner.poll_frame(cx) };
        let frame = ready!(tracking.enter(|| inner.as_mut().poll_frame(cx)));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    tracking.sent(bytes::Buf::remaining(data));
                }
                if frame.trailers_ref().is_some_and(is_grpc_failure) {
                    tracking.will_fail();
                }
                // Who knows that no more comes does not ask again.
                if frame.is_trailers() || inner.is_end_stream() {
                    tracking.may_end();
                }
            }
            Some(Err(_)) | None => {
                // What it holds is part of what the request cost.
                this.inner.set(None);
                if frame.is_some() { tracking.failed() } else { tracking.complete() }
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
