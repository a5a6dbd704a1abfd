//! Handing on the request that is being served to other tasks.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

use crate::pool::request::{self, ActiveRequest, ScopeGuard};

/// The request, or requests of several pools, that the code which runs works for.
///
/// A task that is spawned does not know for whom. What is to be accounted to the request has to be told:
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
/// It may outlive the request: what is done then is still counted for its route, but its span and its answer are told
/// no more.
#[derive(Clone, Debug)]
pub struct RequestScope(Vec<ActiveRequest>);

impl RequestScope {
    /// Of the code that runs; outside of requests an empty one, which changes nothing.
    #[must_use]
    pub fn current() -> Self {
        Self(request::current())
    }

    /// Has the future work for the request.
    pub fn scope<F>(self, future: F) -> Scoped<F> {
        Scoped { inner: future, served: self.0.into_iter().map(Some).collect() }
    }

    /// Has the closure work for the request, as within `spawn_blocking`.
    pub fn in_scope<T>(self, run: impl FnOnce() -> T) -> T {
        let mut served: Vec<_> = self.0.into_iter().map(Some).collect();
        enter_all(&mut served, run)
    }
}

/// Enters one after the other, and leaves them in the opposite order.
fn enter_all<T>(served: &mut [Option<ActiveRequest>], run: impl FnOnce() -> T) -> T {
    match served.split_first_mut() {
        Some((first, others)) => {
            let _entered = ScopeGuard::enter(first);
            enter_all(others, run)
        }
        None => run(),
    }
}

pin_project! {
    /// A future that works for a request; see [`RequestScope::scope`].
    #[must_use = "futures do nothing unless they are polled"]
    pub struct Scoped<F> {
        #[pin]
        inner: F,
        served: Vec<Option<ActiveRequest>>,
    }
}

impl<F: Future> Future for Scoped<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        enter_all(this.served, || this.inner.poll(cx))
    }
}

impl<F: fmt::Debug> fmt::Debug for Scoped<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scoped").field("inner", &self.inner).finish_non_exhaustive()
    }
}
