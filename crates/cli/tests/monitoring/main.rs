//! What is made to watch pools with: that it says what it should, that Prometheus takes it, and that it fires.

#![allow(clippy::unwrap_used)]

mod alertmanager;
mod dashboards;
mod live;
#[path = "../support/programs.rs"]
mod programs;
mod promql;
mod promtool;
mod rules;
#[path = "../support/run.rs"]
mod run;
mod runbooks;
mod stack;
mod tools;
mod web_config;
