//! Stands for `src/sync.rs`.

use std::cell::Cell;
use std::ops::Add;
use std::time::Duration;

pub(crate) use loom::sync::{Mutex, MutexGuard};

pub(crate) use self::notify::Notify;

mod notify;

thread_local! {
    /// The time of the model, whose threads all run in one of the system's.
    static NOW: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// Stands for tokio's. Time stands still until a model advances it, so that each run takes the same steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Instant(Duration);

impl Instant {
    pub(crate) fn now() -> Self {
        Self(NOW.get())
    }

    pub(crate) fn elapsed(self) -> Duration {
        NOW.get().saturating_sub(self.0)
    }

    pub(crate) fn advance(by: Duration) {
        NOW.set(NOW.get() + by);
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0 + duration)
    }
}

/// Stands for tokio's. No deadline passes: what only a deadline would end is a deadlock, which loom reports.
pub(crate) async fn timeout_at<T>(_: Instant, future: impl Future<Output = T>) -> Result<T, ()> {
    Ok(future.await)
}

pub(crate) mod atomic {
    pub(crate) use loom::sync::atomic::{AtomicU64, Ordering, fence};

    /// An atomic whose accesses are all sequentially consistent. Loom weakens such loads and stores to acquire and
    /// release, except for those that read and write, which see the latest value.
    #[derive(Debug, Default)]
    pub(crate) struct AtomicU8(loom::sync::atomic::AtomicU8);

    impl AtomicU8 {
        pub(crate) fn load(&self, order: Ordering) -> u8 {
            self.0.fetch_or(0, order)
        }

        pub(crate) fn store(&self, value: u8, order: Ordering) {
            self.0.swap(value, order);
        }

        pub(crate) fn swap(&self, value: u8, order: Ordering) -> u8 {
            self.0.swap(value, order)
        }

        pub(crate) fn fetch_or(&self, value: u8, order: Ordering) -> u8 {
            self.0.fetch_or(value, order)
        }

        pub(crate) fn fetch_and(&self, value: u8, order: Ordering) -> u8 {
            self.0.fetch_and(value, order)
        }
    }

    /// The same for a word.
    #[derive(Debug, Default)]
    pub(crate) struct SeqCstU64(AtomicU64);

    impl SeqCstU64 {
        pub(crate) fn load(&self, order: Ordering) -> u64 {
            self.0.fetch_or(0, order)
        }

        pub(crate) fn fetch_add(&self, value: u64, order: Ordering) -> u64 {
            self.0.fetch_add(value, order)
        }
    }

    /// The same for a flag.
    #[derive(Debug, Default)]
    pub(crate) struct AtomicBool(AtomicU8);

    impl AtomicBool {
        pub(crate) fn load(&self, order: Ordering) -> bool {
            self.0.load(order) != 0
        }

        pub(crate) fn store(&self, value: bool, order: Ordering) {
            self.0.store(u8::from(value), order);
        }
    }

    /// The same for a number, unless the access is weaker.
    #[derive(Debug, Default)]
    pub(crate) struct AtomicUsize(loom::sync::atomic::AtomicUsize);

    impl AtomicUsize {
        pub(crate) fn new(value: usize) -> Self {
            Self(loom::sync::atomic::AtomicUsize::new(value))
        }

        pub(crate) fn load(&self, order: Ordering) -> usize {
            if order == Ordering::SeqCst { self.0.fetch_or(0, order) } else { self.0.load(order) }
        }

        pub(crate) fn store(&self, value: usize, order: Ordering) {
            self.0.store(value, order);
        }

        pub(crate) fn fetch_add(&self, value: usize, order: Ordering) -> usize {
            self.0.fetch_add(value, order)
        }

        pub(crate) fn fetch_sub(&self, value: usize, order: Ordering) -> usize {
            self.0.fetch_sub(value, order)
        }
    }
}
