//! The least that a layer can do to measure requests to the end of their bodies: it reads the clock twice, and counts. What
//! it costs is the lower bound for the middleware.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};

use http::{Request, Response};
use http_body::{Body, Frame};
use pin_project_lite::pin_project;
use tower::Service;

/// Counts of requests, and the sum of their durations.
#[derive(Debug, Default)]
struct Counts {
    clock: quanta::Clock,
    started: AtomicU64,
    ended: AtomicU64,
    nanos: AtomicU64,
}

/// Measures the requests of the inner service.
#[derive(Clone, Debug)]
pub(crate) struct Minimal<S> {
    inner: S,
    counts: Arc<Counts>,
}

impl<S> Minimal<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self { inner, counts: Arc::default() }
    }
}

/// A request. Ends when it is dropped.
struct Measured {
    counts: Arc<Counts>,
    started: u64,
}

impl Drop for Measured {
    fn drop(&mut self) {
        let Self { counts, started } = self;
        let took = counts.clock.delta_as_nanos(*started, counts.clock.raw());
        counts.ended.fetch_add(1, Relaxed);
        counts.nanos.fetch_add(took, Relaxed);
    }
}

impl<S, B, R> Service<Request<B>> for Minimal<S>
where
    S: Service<Request<B>, Response = Response<R>, Error = Infallible>,
{
    type Response = Response<MinimalBody<R>>;
    type Error = Infallible;
    type Future = MinimalFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        self.counts.started.fetch_add(1, Relaxed);
        let measured = Measured { started: self.counts.clock.raw(), counts: Arc::clone(&self.counts) };
        MinimalFuture { inner: self.inner.call(request), measured: Some(measured) }
    }
}

pin_project! {
    pub(crate) struct MinimalFuture<F> {
        #[pin]
        inner: F,
        measured: Option<Measured>,
    }
}

impl<F, R> Future for MinimalFuture<F>
where
    F: Future<Output = Result<Response<R>, Infallible>>,
{
    type Output = Result<Response<MinimalBody<R>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = ready!(this.inner.poll(cx))?;
        Poll::Ready(Ok(response.map(|inner| MinimalBody { inner, measured: this.measured.take() })))
    }
}

pin_project! {
    pub(crate) struct MinimalBody<B> {
        #[pin]
        inner: B,
        measured: Option<Measured>,
    }
}

impl<B: Body> Body for MinimalBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        self.project().inner.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }
}
