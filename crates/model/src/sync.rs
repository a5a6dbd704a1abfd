//! Stands for `src/sync.rs`.

pub(crate) use loom::sync::{Mutex, MutexGuard};

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
}
