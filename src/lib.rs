#![doc = include_str!("../README.md")]

pub mod config;
pub mod error;
pub mod event;
#[cfg(feature = "exporter")]
pub mod exporter;
pub mod pool;
pub mod telemetry;

#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod demo;

pub use config::ConfigError;
pub use config::Settings;
pub use pool::postgres::{CheckoutError, ConnectError, Connection, Operation, Pool, PoolBuilder, RunError};
pub use telemetry::Collector;
