//! The demo: a private PostgreSQL server, a simulated web shop, and the exporter.
//!
//! `Demo::run` starts the components: the server ([`poolscope_testing::server`]), the tables (`schema`), the HTTP service
//! (`shop`), its cache with `--cache` (`cache`), its clients (`workload`), one in another language with `--client`
//! (`client`), the injected fault ([`Scenario`]), the terminal output (`Screen`) and the export of spans (`Traces`). They
//! are stopped in the order of their dependencies: workload, shop, scenario, client, pool, traces, schema, server,
//! exporter.

mod banner;
mod cache;
mod client;
mod drain;
mod environment;
mod error;
#[cfg(feature = "jaeger")]
mod jaeger;
mod random;
mod run;
mod scenario;
mod schema;
mod screen;
mod settings;
mod shop;
mod traces;
mod workload;

pub(crate) use self::error::DemoError;
pub(crate) use self::run::Demo;
pub(crate) use self::scenario::{DEFAULT_FAULT_DELAY, ScenarioPlan, Timing};
pub use self::scenario::{ExpectedAlerts, ExpectedDiagnosis, Scenario};
pub(crate) use self::settings::defaults;
pub(crate) use self::traces::{SERVICE_NAME, Traces};
