#![cfg_attr(not(doctest), doc = include_str!("../README.md"))]
#![cfg_attr(doctest, doc = "Observability for PostgreSQL connection pools.")]

#[cfg(feature = "redis")]
pub mod cache;
pub mod config;
mod diagnosis;
pub mod error;
#[cfg(feature = "exporter")]
pub mod exporter;
mod files;
#[cfg(fuzzing)]
pub mod fuzzing;
#[cfg(test)]
mod generated;
mod global;
#[cfg(test)]
mod imports;
pub mod labels;
#[cfg(feature = "middleware")]
pub mod middleware;
mod net;
#[cfg(feature = "otlp")]
pub mod otlp;
pub mod pool;
#[cfg(feature = "proxy")]
pub mod proxy;
mod query_error;
#[cfg(feature = "redis")]
pub mod redis;
pub mod retry;
#[cfg(all(doc, not(doctest)))]
pub mod runbooks;
mod suggest;
mod sync;
pub mod telemetry;
pub mod text;
mod wire;

pub use deadpool_postgres;
pub use diagnosis::causes;
#[cfg(feature = "exporter")]
pub use diagnosis::recording;
pub use tokio_postgres;

pub use config::{ConfigError, Settings};
pub use global::{
    ExecutionResult, ExecutionStatus, GlobalError, GlobalPoolError, execute_with_pool, execute_with_pool_connection,
    get_connection_pool, get_pooled_connection, get_postgres_connection, init_connection_pool,
};
pub use pool::postgres::{
    CancelToken, CheckoutError, Client, ConnectError, Connection, ListenError, Listener, Notification, PoolBuilder,
    RunError, Secret, ServerViewError, UnpooledConnection,
};
pub use pool::{Operation, Pool};
pub use query_error::Error;
pub use retry::{RetryError, RetryPolicy};
pub use telemetry::Collector;
