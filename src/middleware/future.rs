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
    pub(super) fn accounted(inner: F, accounting: Accounting) -> Self {
        Self { state: RequestState::Running { inner, accounting: Some(accounting) } }
    }

    pub(super) fn unaccounted(inner: F) -> Self {
        Self { state: RequestState::Running { inner, accounting: None } }
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
        let polled = match slot {
            Some(accounting) => accounting.enter(|| inner.poll(cx)),
            None => inner.poll(cx),
        };
        let result = ready!(polled);
        let Some(mut accounting) = slot.take() else {
            return Poll::Ready(result.map(|response| response.map(ResponseBody::unaccounted)));
        };
        Poll::Ready(match result {
            Ok(mut response) => {
                accounting.respond(&mut response);
                Ok(response.map(|body| ResponseBody::accounted(body, accounting)))
            }
            Err(error) => {
                accounting.end(Outcome::Error);
                Err(error)
            }
        })
    }
}
