//! The future of a response.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::Response;
use http_body::Body;
use pin_project_lite::pin_project;

use super::accounting::Accounting;
use super::body::ResponseBody;
use super::shedding::{Overload, refusal};
use crate::labels::Outcome;

pin_project! {
    /// The future of a response; see [`PoolLayer`](super::PoolLayer).
    #[derive(Debug)]
    #[must_use = "futures do nothing unless they are polled"]
    pub struct ResponseFuture<F> {
        #[pin]
        state: RequestState<F>,
    }
}

pin_project! {
    #[project = RequestStateProjection]
    #[derive(Debug)]
    enum RequestState<F> {
        Running {
            // Dropped before the request is counted as ended.
            #[pin]
            inner: F,
            // Moves to the response's body. `None` if another layer does the accounting.
            accounting: Option<Accounting>,
        },
        Refused { overload: Overload },
    }
}

impl<F> ResponseFuture<F> {
    /// `accounting` is `None` if another layer does it.
    #[inline]
    pub(super) fn new(inner: F, accounting: Option<Accounting>) -> Self {
        Self { state: RequestState::Running { inner, accounting } }
    }

    pub(super) fn refused(overload: Overload) -> Self {
        Self { state: RequestState::Refused { overload } }
    }
}

impl<F, R, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    R: Body,
{
    type Output = Result<Response<ResponseBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let (inner, slot) = match self.project().state.project() {
            RequestStateProjection::Running { inner, accounting } => (inner, accounting),
            RequestStateProjection::Refused { overload } => {
                return Poll::Ready(Ok(refusal(overload, ResponseBody::empty())));
            }
        };
        let Some(accounting) = slot else {
            return inner.poll(cx).map_ok(|response| response.map(|body| ResponseBody::new(body, None)));
        };
        match ready!(accounting.enter(|| inner.poll(cx))) {
            Ok(mut response) => {
                accounting.respond(&mut response);
                Poll::Ready(Ok(response.map(|body| ResponseBody::new(body, slot.take()))))
            }
            Err(error) => {
                accounting.end(Outcome::Error);
                Poll::Ready(Err(error))
            }
        }
    }
}
