//! What pools record, and how it is read.
//!
//! Each pool records its events in a ledger. A [`Collector`] reads the ledgers of its pools when Prometheus scrapes
//! them, and [`Pool::snapshot`](crate::Pool::snapshot) returns the same data as a [`PoolSnapshot`]. This module does
//! not depend on the pool.
//!
//! ```
//! use poolscope::Collector;
//!
//! for pool in Collector::global().snapshots() {
//!     println!("{}: {} of {} connections used", pool.name, pool.connections.used, pool.limits.max());
//! }
//! ```

pub(crate) mod budget;
pub(crate) mod caches;
pub mod catalogue;
pub(crate) mod clock;
pub(crate) mod collector;
pub(crate) mod connection;
pub(crate) mod evidence;
mod exemplar;
mod histogram;
#[cfg(feature = "exporter")]
pub(crate) mod history;
pub(crate) mod incidents;
pub(crate) mod ledger;
pub(crate) mod log;
pub(crate) mod names;
pub(crate) mod operations;
pub(crate) mod owned;
pub(crate) mod queries;
mod redis_view;
#[cfg(feature = "middleware")]
pub(crate) mod request_usage;
#[cfg_attr(not(feature = "middleware"), allow(dead_code, reason = "only the middleware serves requests"))]
pub(crate) mod requests;
pub(crate) mod sampler;
pub(crate) mod server;
pub(crate) mod sizing;
pub(crate) mod spans;
pub(crate) mod trace;
mod trace_context;
pub(crate) mod verdict;
pub(crate) mod wire;

pub use caches::{CacheTotals, MAX_CACHES};
pub use collector::Collector;
pub use exemplar::Exemplar;
pub use histogram::Histogram;
pub use ledger::{
    ConnectionErrors, Connections, DirtyReturns, Holder, Limits, OperationTotals, OperationUsage, OwnConnection,
    PoolSnapshot, PoolUsage, QueryDurations, QueryErrors, Retries, RetriesExhausted, SelfDeadlocks, Status,
    UnpooledTotals, Waiter,
};
pub use operations::{MAX_NAME_BYTES, MAX_OPERATIONS};
pub use owned::BOUNDS_SECONDS;
#[cfg(feature = "exporter")]
pub(crate) use owned::BUCKETS;
pub use redis_view::RedisView;
pub use requests::RequestTotals;
pub use server::{Backends, BlockedBackend, ServerPoll, ServerView};
pub use sizing::{Sizing, SizingRow};
pub use trace_context::{Hex, TraceContext};
pub use verdict::{Evidence, Verdict};
