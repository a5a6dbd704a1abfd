//! When the store fails repeatedly, it is not called for a while: a lookup would wait for the deadline each time.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::time::Duration;

use tokio::time::Instant;

use super::core::millis;

/// The number of failures in succession after which the store is not called.
const MAX_FAILURES: u32 = 5;

/// For how long it is not called; then one call at a time tries again.
pub(super) const SUSPENSION: Duration = Duration::from_secs(1);

/// Whether the store may be called.
#[derive(Debug)]
pub(super) struct Suspension {
    created: Instant,
    failures: AtomicU32,
    /// When the next call may be made, in milliseconds since `created`; zero while the store is not suspended.
    next_call: AtomicU64,
}

impl Suspension {
    pub(super) fn new() -> Self {
        Self { created: Instant::now(), failures: AtomicU32::new(0), next_call: AtomicU64::new(0) }
    }

    /// Returns whether the store may be called. While it is suspended, this is true once per [`SUSPENSION`].
    pub(super) fn permits_call(&self) -> bool {
        let next_call = self.next_call.load(Relaxed);
        if next_call == 0 {
            return true;
        }
        let now = self.now();
        now >= next_call
            && self.next_call.compare_exchange(next_call, now + millis(SUSPENSION), Relaxed, Relaxed).is_ok()
    }

    /// Returns whether the store was suspended until this call.
    pub(super) fn succeeded(&self) -> bool {
        // Only read, as long as nothing fails: all lookups share these.
        // Both, since a failure on another thread may have stored its time after its failures were cleared.
        if self.failures.load(Relaxed) == 0 && self.next_call.load(Relaxed) == 0 {
            return false;
        }
        self.failures.store(0, Relaxed);
        self.next_call.swap(0, Relaxed) != 0
    }

    /// Returns whether the store is suspended.
    pub(super) fn failed(&self) -> bool {
        let failures = self.failures.fetch_add(1, Relaxed).saturating_add(1);
        let is_suspended = failures >= MAX_FAILURES;
        if is_suspended {
            self.failures.store(MAX_FAILURES, Relaxed);
            self.next_call.store(self.now() + millis(SUSPENSION), Relaxed);
        }
        is_suspended
    }

    fn now(&self) -> u64 {
        millis(self.created.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_call_per_second_tries_again() {
        let suspension = Suspension::new();
        let failed: Vec<_> = (0..5).map(|_| suspension.failed()).collect();
        assert_eq!(failed, [false, false, false, false, true]);
        assert!(!suspension.permits_call());
        for _ in 0..3 {
            advance(SUSPENSION).await;
            assert_eq!([suspension.permits_call(), suspension.permits_call()], [true, false]);
            assert!(suspension.failed());
        }
        advance(SUSPENSION).await;
        assert!(suspension.permits_call() && suspension.succeeded() && !suspension.succeeded());
        assert!(suspension.permits_call() && suspension.permits_call());
    }

    #[tokio::test(start_paused = true)]
    async fn success_ends_a_suspension_whose_failures_were_cleared() {
        let suspension = Suspension::new();
        suspension.next_call.store(1, Relaxed);
        assert!(suspension.succeeded() && suspension.permits_call() && suspension.permits_call());
    }

    #[tokio::test(start_paused = true)]
    async fn success_in_between_prevents_suspension() {
        let suspension = Suspension::new();
        for _ in 0..20 {
            assert!(!suspension.failed() && !suspension.failed() && !suspension.succeeded());
        }
        assert!(suspension.permits_call());
    }
}
