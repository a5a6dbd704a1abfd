//! Checkouts: `Pool::get`, its future, and the context that the future passes to the manager.

pub(super) mod context;
mod future;

pub(crate) use self::future::AtGate;
