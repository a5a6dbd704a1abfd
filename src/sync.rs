//! What the lock-free protocols use of the standard library. `crates/model` compiles their files with loom's instead, which
//! runs them in every order that the memory model permits.

pub(crate) use std::sync::{Mutex, MutexGuard};

pub(crate) mod atomic {
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering, fence};
}
