//! Detection of panics in code that a future or a closure runs.
//!
//! A `Drop` implementation cannot tell a panic from a cancellation: a layer that catches panics drops the future after
//! unwinding has ended, and a future that only waits may be dropped while other code unwinds. Each poll is therefore guarded.

use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

/// Calls a closure when dropped, unless it was taken before.
struct OnDrop<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        if let Some(run) = self.0.take() {
            run();
        }
    }
}

/// Runs `work`, and then `on_panic` if it panics. The panic goes on.
#[inline]
pub(crate) fn run_guarded<T>(work: impl FnOnce() -> T, on_panic: impl FnOnce()) -> T {
    let mut guard = OnDrop(Some(on_panic));
    let result = work();
    guard.0 = None;
    result
}

/// Returns a future that calls `on_panic` if polling `future` panics. The panic goes on.
pub(crate) fn guarded<F: Future, P: FnMut()>(future: F, on_panic: P) -> Guarded<F, P> {
    Guarded { future, on_panic }
}

pin_project! {
    /// A future whose panics are detected.
    #[must_use = "futures do nothing unless they are polled"]
    pub(crate) struct Guarded<F, P> {
        #[pin]
        future: F,
        on_panic: P,
    }
}

impl<F: Future, P: FnMut()> Future for Guarded<F, P> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        run_guarded(|| this.future.poll(cx), this.on_panic)
    }
}
