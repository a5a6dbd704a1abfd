//! The future of an answer.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::header::RETRY_AFTER;
use http::{HeaderValue, Response, StatusCode};
use http_body::Body;
use pin_project_lite::pin_project;

use super::body::ResponseBody;
use super::shed::Overload;
use super::tracking::Tracking;

pin_project! {
    /// The future of an answer; see [`PoolLayer`](super::PoolLayer).
    #[derive(Debug)]
    #[must_use = "futures do nothing unless they are polled"]
    pub struct ResponseFuture<F> {
        #[pin]
        course: Course<F>,
    }
}

pin_project! {
    #[project = CourseProjection]
    #[derive(Debug)]
    enum Course<F> {
        ActiveRequest {
            // Dropped before the request is counted as ended.
            #[pin]
            inner: F,
            // There until the answer has it; none where another layer has.
            tracking: Option<Tracking>,
        },
        Refused { overload: Overload },
    }
}

impl<F> ResponseFuture<F> {
    pub(super) fn serving(inner: F, tracking: Tracking) -> Self {
        Self { course: Course::ActiveRequest { inner, tracking: Some(tracking) } }
    }

    /// One that another layer accounts.
    pub(super) fn passed(inner: F) -> Self {
        Self { course: Course::ActiveRequest { inner, tracking: None } }
    }

    pub(super) fn refused(overload: Overload) -> Self {
        Self { course: Course::Refused { overload } }
    }
}

impl<F, R, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    R: Body,
{
    type Output = Result<Response<ResponseBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let (inner, place) = match self.project().course.project() {
            CourseProjection::ActiveRequest { inner, tracking } => (inner, tracking),
            CourseProjection::Refused { overload } => return Poll::Ready(Ok(refusal(overload))),
        };
        let polled = match place {
            Some(tracking) => tracking.enter(|| inner.poll(cx)),
            None => inner.poll(cx),
        };
        let answer = ready!(polled);
        let Some(mut tracking) = place.take() else {
            return Poll::Ready(answer.map(|answer| answer.map(ResponseBody::untracked)));
        };
        Poll::Ready(match answer {
            Ok(mut answer) => {
                tracking.answered(&mut answer);
                Ok(answer.map(|body| ResponseBody::tracked(body, tracking)))
            }
            Err(error) => {
                tracking.failed();
                Err(error)
            }
        })
    }
}

/// What a request gets that is not served.
fn refusal<R>(overload: &Overload) -> Response<ResponseBody<R>> {
    let mut answer = Response::new(ResponseBody::empty());
    *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(overload.retry_after()));
    answer
}
