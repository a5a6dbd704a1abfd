//! Private PostgreSQL and Redis servers and test doubles, for the tests of this workspace, the benches and the demo.
//!
//! - [`server`]: a private PostgreSQL server, which ends with its process;
//! - [`redis`]: a private Redis server, which does too;
//! - [`ports`]: ports that no other test takes;
//! - `proxy` (feature `proxy`): a fault-injecting TCP proxy;
//! - `otlp` (feature `otlp-receiver`): an OTLP collector that keeps the spans it receives;
//! - `rogue` (feature `harness`): servers that send too much, nonsense, or nothing;
//! - `run`, `process`, `leftovers`, `http`, `server_process`, `prometheus`, `scrape` (feature `harness`): processes under test,
//!   what they leave behind, and their metrics.

pub mod ports;
pub mod redis;
pub mod server;

#[cfg(feature = "harness")]
pub mod http;
#[cfg(any(feature = "harness", test))]
pub mod leftovers;
#[cfg(feature = "otlp-receiver")]
pub mod otlp;
#[cfg(feature = "harness")]
pub mod process;
#[cfg(feature = "harness")]
pub mod prometheus;
#[cfg(feature = "proxy")]
pub mod proxy;
#[cfg(feature = "harness")]
pub mod rogue;
#[cfg(feature = "harness")]
pub mod run;
#[cfg(feature = "harness")]
pub mod scrape;
#[cfg(feature = "harness")]
pub mod server_process;
