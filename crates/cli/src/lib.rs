//! The `poolscope` command line: a demo, a standalone exporter, and the generator of rules and dashboards.

mod cli;
pub mod demo;
mod document;
pub mod monitoring;
mod output;
mod pool_listing;
mod proxy;
mod recorded;
mod serve;
mod service;
mod top;

pub use self::cli::run;
