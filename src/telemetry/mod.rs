//! What is counted, and how it is read.
//!
//! The pool reports [events](crate::event); a `Ledger` for each pool keeps the accounts; a
//! [`Collector`] reads them when Prometheus asks. Nothing here knows the pool.

pub(crate) mod budget;
pub mod catalogue;
mod cell;
pub mod clock;
pub(crate) mod collector;
pub(crate) mod evidence;
mod exemplar;
mod histogram;
pub(crate) mod ledger;
pub(crate) mod log;
pub(crate) mod names;
pub(crate) mod operations;
pub(crate) mod queries;
mod reference;
#[cfg_attr(not(feature = "middleware"), allow(dead_code, reason = "nobody serves requests"))]
pub(crate) mod requests;
pub(crate) mod seat;
pub(crate) mod server;
pub(crate) mod spans;
pub(crate) mod trace;
pub(crate) mod wire;

pub use collector::Collector;
pub use exemplar::Exemplar;
pub use histogram::{BOUNDS_SECONDS, Histogram};
pub use ledger::{
    ConnectionErrors, Connections, DirtyReturns, Holder, Holding, Limits, OperationTotals, OwnHold, PoolSnapshot,
    PoolUsage, QueryDurations, QueryErrors, Retries, RetriesExhausted, Status, UnpooledTotals, Waiter,
};
pub use operations::{MAX_NAME_BYTES, MAX_OPERATIONS};
pub use requests::{RequestMethod, RequestTotals, RequestWarning};
pub(crate) use server::Watcher;
pub use server::{BackendState, Backends, ServerLook, ServerRole, ServerView};
pub use trace::{Hex, TraceContext};
