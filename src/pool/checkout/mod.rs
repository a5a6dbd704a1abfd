//! Checkouts: the future that `Pool::get` returns, and what the manager knows of the checkout that it works for.

pub(super) mod context;
mod future;

pub(super) use self::future::checkout;
