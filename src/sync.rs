//! What the modelled protocols use of the standard library and of tokio. `crates/model` compiles their files with loom's
//! atomics and locks instead, and runs them in every order that the memory model permits.

pub(crate) use std::sync::{Mutex, MutexGuard};

pub(crate) use tokio::sync::Notify;
pub(crate) use tokio::time::{Instant, timeout_at};

pub(crate) mod atomic {
    /// One whose accesses are all sequentially consistent, which loom does not support for plain loads and stores.
    pub(crate) use std::sync::atomic::AtomicU64 as SeqCstU64;
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering, fence};
}
