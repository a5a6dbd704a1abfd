//! The resets that are under way, and the checkouts that wait for one of them.
//!
//! A connection that is reset after its return is not idle yet. A checkout that finds no other one would open a
//! connection, which takes longer than most resets and is surplus afterwards. It therefore waits for a reset first, if
//! more resets are under way than checkouts wait for them.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, SemaphorePermit};
use tokio::time::timeout;

use super::super::gate::Waiting;
use super::super::shared::Shared;

/// How long a checkout waits for a reset before it opens a connection: this twice. Most resets take one round trip.
///
/// When a process was suspended, or its runtime blocked, the timer of a part may have expired although the server has
/// answered. If it was the first part, the answer is read during the second.
const RESET_WAIT_PART: Duration = Duration::from_millis(50);

/// Whether a checkout waits for the reset of a returned connection, which it does once at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::pool) enum ResetWait {
    NotYet,
    /// It has not waited, but looked once more for an idle connection.
    LookedAgain,
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
    permits: Semaphore,
    /// The permits in use that are forgotten when they are released, as the pool has shrunk.
    owed: AtomicUsize,
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
            permits: Semaphore::new(permits(max)),
            owed: AtomicUsize::new(0),
            under_way: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            ended: Notify::new(),
        }
    }

    /// Changes the maximum number of connections from `before` to `now`. A reset that is under way keeps its permit. Calls
    /// must not overlap.
    pub(in crate::pool) fn resize(&self, before: usize, now: usize) {
        let (before, now) = (permits(before), permits(now));
        let (more, less) = (now.saturating_sub(before), before.saturating_sub(now));
        let kept = (0..more).take_while(|_| self.take_owed()).count();
        self.permits.add_permits(more - kept);
        let in_use = less - self.permits.forget_permits(less);
        self.owed.fetch_add(in_use, SeqCst);
    }

    /// Returns whether a permit was owed, which is no longer.
    fn take_owed(&self) -> bool {
        self.owed.fetch_update(SeqCst, SeqCst, |owed| owed.checked_sub(1)).is_ok()
    }

    /// Returns a permit to reset a connection, if there is one.
    pub(super) fn try_permit(&self) -> Option<ResetPermit<'_>> {
        Some(ResetPermit { resets: self, permit: Some(self.permits.try_acquire().ok()?) })
    }

    /// Waits for a permit to reset a connection.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives up its place in the line.
    pub(super) async fn permit(&self) -> Option<ResetPermit<'_>> {
        Some(ResetPermit { resets: self, permit: Some(self.permits.acquire().await.ok()?) })
    }

    /// Returns whether a checkout waits for a reset rather than open a connection.
    pub(in crate::pool) fn is_awaited(&self, wait: ResetWait) -> bool {
        match wait {
            ResetWait::NotYet | ResetWait::LookedAgain => self.waiting.load(SeqCst) < self.under_way.load(SeqCst),
            ResetWait::Waiting => self.under_way.load(SeqCst) > 0,
            ResetWait::Over => false,
        }
    }
}

/// A permit to reset a connection.
#[must_use]
#[derive(Debug)]
pub(super) struct ResetPermit<'a> {
    resets: &'a Resets,
    /// `Some` until it is dropped.
    permit: Option<SemaphorePermit<'a>>,
}

impl Drop for ResetPermit<'_> {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take()
            && self.resets.take_owed()
        {
            permit.forget();
        }
    }
}

/// Waits until a reset has ended, at most for [`RESET_WAIT_PART`] twice.
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
        if timeout(RESET_WAIT_PART, ended.as_mut()).await.is_err() {
            let _ = timeout(RESET_WAIT_PART, ended).await;
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns how many permits there are, and returns them.
    fn available(resets: &Resets) -> usize {
        std::iter::from_fn(|| resets.try_permit()).collect::<Vec<_>>().len()
    }

    #[test]
    fn permits_follow_the_size_while_they_are_in_use() {
        let resets = Resets::new(40);
        let in_use: Vec<_> = std::iter::from_fn(|| resets.try_permit()).take(8).collect();
        for _ in 0..3 {
            resets.resize(40, 4);
            assert_eq!(available(&resets), 0);
            resets.resize(4, 40);
            assert_eq!(available(&resets), 2);
        }
        resets.resize(40, 12);
        drop(in_use);
        assert_eq!(available(&resets), 3);
        resets.resize(12, 80);
        assert_eq!(available(&resets), 20);
    }
}
