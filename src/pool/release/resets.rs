//! The resets that are under way, and the checkouts that wait for one of them.
//!
//! A connection that is reset after its return is not idle yet. A checkout that finds no other one would open a
//! connection, which takes longer than most resets and is surplus afterwards. It therefore waits for a reset first, if
//! more resets are under way than checkouts wait for them.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio::time::timeout;

use super::super::gate::Waiting;
use super::super::shared::Shared;

/// How long a checkout waits for a reset before it opens a connection. Most resets take one round trip.
const RESET_WAIT_LIMIT: Duration = Duration::from_millis(100);

/// Whether a checkout waits for the reset of a returned connection, which it does once at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::pool) enum ResetWait {
    NotYet,
    Waiting,
    Over,
}

/// Returns how many connections of a pool of at most `max` are reset at once.
fn permits(max: usize) -> usize {
    (max / 4).max(1)
}

/// The resets of one pool.
#[derive(Debug)]
pub(in crate::pool) struct Resets {
    /// Bounds the number of connections that are reset at once.
    pub(super) permits: Arc<Semaphore>,
    /// The number of connections that were returned and are being reset, or wait for a permit.
    under_way: AtomicUsize,
    /// The number of checkouts that wait for one of them.
    waiting: AtomicUsize,
    /// Notified when a reset has ended.
    ended: Notify,
}

impl Resets {
    /// Creates the state of a pool of at most `max` connections.
    pub(in crate::pool) fn new(max: usize) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(permits(max))),
            under_way: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            ended: Notify::new(),
        }
    }

    /// Changes the maximum number of connections from `before` to `now`. A reset that is under way keeps its permit.
    pub(in crate::pool) fn resize(&self, before: usize, now: usize) {
        let (before, now) = (permits(before), permits(now));
        self.permits.add_permits(now.saturating_sub(before));
        self.permits.forget_permits(before.saturating_sub(now));
    }

    /// Returns whether a checkout waits for a reset rather than open a connection.
    pub(in crate::pool) fn is_awaited(&self, wait: ResetWait) -> bool {
        match wait {
            ResetWait::NotYet => self.waiting.load(SeqCst) < self.under_way.load(SeqCst),
            ResetWait::Waiting => self.under_way.load(SeqCst) > 0,
            ResetWait::Over => false,
        }
    }
}

/// Waits until a reset has ended, at most for [`RESET_WAIT_LIMIT`].
///
/// # Cancel safety
///
/// Dropping the future gives up its place in the line.
pub(in crate::pool) fn wait_for_reset(shared: Arc<Shared>) -> Waiting {
    /// Counts a checkout as waiting until dropped.
    struct Counted<'a>(&'a Resets);

    impl Drop for Counted<'_> {
        fn drop(&mut self) {
            self.0.waiting.fetch_sub(1, SeqCst);
        }
    }

    Box::pin(async move {
        let resets = &shared.resets;
        resets.waiting.fetch_add(1, SeqCst);
        let _counted = Counted(resets);
        let mut ended = pin!(resets.ended.notified());
        if ended.as_mut().enable() {
            // This was the end of a reset for which the checkout did not wait.
            ended.set(resets.ended.notified());
        }
        // Woken or not, the checkout tries again.
        let _ = timeout(RESET_WAIT_LIMIT, ended).await;
    })
}

/// Counts a reset as under way until dropped.
#[derive(Debug)]
pub(super) struct ResetUnderWay(Arc<Shared>);

impl ResetUnderWay {
    pub(super) fn begin(shared: &Arc<Shared>) -> Self {
        shared.resets.under_way.fetch_add(1, SeqCst);
        Self(Arc::clone(shared))
    }
}

impl Drop for ResetUnderWay {
    fn drop(&mut self) {
        let resets = &self.0.resets;
        resets.under_way.fetch_sub(1, SeqCst);
        if resets.waiting.load(SeqCst) > 0 {
            resets.ended.notify_one();
        }
    }
}
