//! Checkouts: `Pool::get`, its future, and the context that the future passes to the manager.

pub(super) mod context;
mod future;

pub(super) use self::future::AtGate;
