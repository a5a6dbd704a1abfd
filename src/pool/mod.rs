//! The pool: deadpool's, observed.

mod backend;
mod checkout;
mod context;
mod core;
mod guard;
mod life;
mod observed;
mod operation;
pub mod postgres;
mod shared;
mod wire;

pub use self::backend::Backend;
pub use self::core::Core;
pub use self::guard::Guard;
pub use self::operation::Operation;
