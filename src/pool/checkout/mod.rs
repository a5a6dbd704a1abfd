//! Checkouts: `Pool::get` and its future, and what the manager knows of the checkout that it works for.

pub(super) mod context;
mod future;
