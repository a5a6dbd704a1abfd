//! The pool: deadpool's, observed.

mod backend;
mod checkout;
mod clean;
mod context;
mod core;
mod gate;
mod guard;
mod life;
mod observed;
mod operation;
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

pub use self::backend::{Backend, Observer, Refusal};
pub(crate) use self::checkout::code_of;
pub use self::core::Core;
pub use self::guard::Guard;
pub use self::operation::Operation;
#[cfg(fuzzing)]
pub(crate) use self::wire::exercise as exercise_wire;
