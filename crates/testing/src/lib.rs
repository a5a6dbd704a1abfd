//! A private PostgreSQL server and test doubles, for the tests of this workspace, the benches and the demo.
//!
//! - [`server`]: a private PostgreSQL server, which ends with its process;
//! - `proxy` (feature `proxy`): a TCP proxy that injects faults;
//! - `otlp` (feature `otlp-receiver`): an OTLP collector that keeps the spans that arrive;
//! - `run`, `remains`, `http`, `kept`, `prometheus`, `scrape` (feature `harness`): processes under test, their leftovers,
//!   and their metrics.

pub mod server;

#[cfg(feature = "harness")]
pub mod http;
#[cfg(feature = "harness")]
pub mod kept;
#[cfg(feature = "otlp-receiver")]
pub mod otlp;
#[cfg(feature = "harness")]
pub mod prometheus;
#[cfg(feature = "proxy")]
pub mod proxy;
#[cfg(any(feature = "harness", test))]
pub mod remains;
#[cfg(feature = "harness")]
pub mod run;
#[cfg(feature = "harness")]
pub mod scrape;
