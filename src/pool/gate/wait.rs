//! The wait at the gate.

use std::pin::Pin;
use std::sync::Arc;

use super::{Gate, RetryAt};
use crate::sync::atomic::Ordering::SeqCst;
use crate::sync::timeout_at;

/// The future of a wait at the gate.
pub(in crate::pool) type Waiting = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Waits at the gate of `owner` until the checkout may try again. The future takes its place in the line at the first
/// poll.
///
/// # Cancel safety
///
/// Dropping the future gives up its place.
pub(in crate::pool) fn wait<O: AsRef<Gate> + Send + Sync + 'static>(owner: Arc<O>, retry: RetryAt) -> Waiting {
    /// Counts a checkout as waiting until dropped.
    struct Counted<'a>(&'a Gate);

    impl Drop for Counted<'_> {
        fn drop(&mut self) {
            self.0.waiting.fetch_sub(1, SeqCst);
        }
    }

    Box::pin(async move {
        let gate = (*owner).as_ref();
        gate.waiting.fetch_add(1, SeqCst);
        let _counted = Counted(gate);
        // Woken or not, the checkout tries again.
        let _ = timeout_at(retry.until, gate.retry.notified()).await;
    })
}
