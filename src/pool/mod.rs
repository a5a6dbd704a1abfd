//! The connection pool: deadpool's, instrumented.
//!
//! A checkout passes through the modules in this order: `checkout` names its operation and polls deadpool; deadpool
//! calls the manager in `connection`, which checks an idle connection or, if the `gate` admits it, opens a new one;
//! and `release` has the guard that holds the connection and returns it.

mod backend;
mod builder;
mod checkout;
mod connection;
mod gate;
mod operation;
#[allow(clippy::module_inception, reason = "the pool itself, beside its parts")]
mod pool;
pub(crate) mod postgres;
#[cfg(feature = "redis")]
pub(crate) mod redis;
mod release;
#[cfg_attr(not(feature = "middleware"), path = "request/off.rs")]
pub(crate) mod request;
mod shared;
pub(crate) mod unwind;
mod warm_up;

pub(crate) use self::backend::error_code;
pub use self::backend::{Backend, ConnectFailure, Observer};
pub(crate) use self::checkout::AtGate;
pub(crate) use self::operation::End;
pub use self::operation::Operation;
pub use self::pool::Pool;
pub use self::postgres::PostgresManager;
pub use self::release::Guard;
