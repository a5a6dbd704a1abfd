//! The scope of a request, which can be passed to spawned tasks.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

use crate::pool::request::{self, ActiveRequest, ScopeGuard};

/// The request that the current code serves, or one request of each of several pools.
///
/// A spawned task serves no request. Pass the scope to it, to account its checkouts to the request:
///
/// ```
/// use poolscope::middleware::RequestScope;
///
/// # async fn mail() {}
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// tokio::spawn(RequestScope::current().scope(mail()));
/// # }
/// ```
///
/// The scope may outlive the request. Later checkouts are counted for its route, but not reported in its span and response.
#[derive(Clone, Debug)]
pub struct RequestScope(Vec<ActiveRequest>);

impl RequestScope {
    /// Returns the scope of the current code; outside of requests an empty one, which has no effect.
    #[must_use]
    pub fn current() -> Self {
        Self(request::current())
    }

    /// Runs the future in this scope.
    pub fn scope<F>(self, future: F) -> Scoped<F> {
        Scoped { inner: future, requests: self.0.into_iter().map(Some).collect() }
    }

    /// Runs the closure in this scope, as in `spawn_blocking`.
    pub fn in_scope<T>(self, run: impl FnOnce() -> T) -> T {
        let mut requests: Vec<_> = self.0.into_iter().map(Some).collect();
        enter_all(&mut requests, run)
    }
}

/// Enters the requests in order, and leaves them in the opposite order.
fn enter_all<T>(requests: &mut [Option<ActiveRequest>], run: impl FnOnce() -> T) -> T {
    match requests.split_first_mut() {
        Some((first, others)) => {
            let _scope = ScopeGuard::enter(first);
            enter_all(others, run)
        }
        None => run(),
    }
}

pin_project! {
    /// A future that runs in a [`RequestScope`].
    #[must_use = "futures do nothing unless they are polled"]
    pub struct Scoped<F> {
        #[pin]
        inner: F,
        requests: Vec<Option<ActiveRequest>>,
    }
}

impl<F: Future> Future for Scoped<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        enter_all(this.requests, || this.inner.poll(cx))
    }
}

impl<F: fmt::Debug> fmt::Debug for Scoped<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scoped").field("inner", &self.inner).finish_non_exhaustive()
    }
}
