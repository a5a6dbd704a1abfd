//! The parts of the `poolscope` binary: a demo, a standalone exporter, and the generator of rules and dashboards.

mod chain;
pub mod demo;
pub mod monitoring;
pub mod serve;
pub mod service;
