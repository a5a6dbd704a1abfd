//! The demo: a private PostgreSQL, a workload that looks like a service, and the exporter.
//!
//! [`Demo::run`] puts the parts together: [`poolscope_testing::server`] is the private PostgreSQL, `schema` the tables, `shop` the
//! HTTP service that has them, `workload` its customers, [`Scenario`] what goes wrong with them, [`Screen`] what a person
//! sees, [`Traces`] where its spans go. Whatever ends it, the parts end in the order in which they lean on each other:
//! workload, shop, scenario, pool, traces, schema, server, exporter.

mod banner;
mod chance;
mod conduct;
mod course;
mod error;
#[cfg(feature = "jaeger")]
mod jaeger;
mod scenario;
mod schema;
mod screen;
mod settings;
mod shop;
mod traces;
mod workload;

pub use self::conduct::Demo;
pub use self::error::DemoError;
pub use self::scenario::{CALM_FOR, Fires, Play, Scenario, Timing};
pub use self::screen::{LogWriter, Screen};
pub use self::settings::defaults;
pub use self::traces::{SERVICE_NAME, Traces};
