//! What is made to watch pools with: that it says what it should, that Prometheus takes it, and that it fires.

#![allow(clippy::unwrap_used)]

mod alertmanager;
mod dashboards;
#[path = "../support/http.rs"]
mod http;
#[path = "../support/kept.rs"]
mod kept;
mod live;
#[path = "../support/programs.rs"]
mod programs;
#[path = "../support/prometheus.rs"]
mod prometheus;
mod promql;
mod promtool;
#[path = "../support/remains.rs"]
mod remains;
mod rules;
#[path = "../support/run.rs"]
mod run;
mod runbooks;
mod stack;
mod tools;
mod web_config;
