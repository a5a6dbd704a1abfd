//! The pool: deadpool's, observed.

mod backend;
mod checkout;
mod clean;
mod context;
mod gate;
mod guard;
mod life;
mod observed;
mod operation;
mod pool;
pub mod postgres;
#[cfg_attr(not(feature = "middleware"), allow(dead_code, reason = "nobody serves requests"))]
pub(crate) mod serving;
#[cfg_attr(not(feature = "middleware"), allow(dead_code, reason = "nobody serves requests"))]
mod share;
mod shared;
mod task;
#[cfg_attr(not(feature = "middleware"), allow(dead_code, reason = "nobody serves requests"))]
mod visit;
mod wire;

pub use self::backend::{Backend, ConnectFailure, Observer};
pub(crate) use self::checkout::code_of;
pub use self::guard::Guard;
pub use self::operation::Operation;
pub use self::pool::Pool;
#[cfg(fuzzing)]
pub(crate) use self::wire::fuzz_protocol;
