//! What is made to watch pools with: that it says what it should, that Prometheus takes it, and that it fires.

#![allow(clippy::unwrap_used)]

mod alertmanager;
mod dashboards;
mod promql;
mod promtool;
mod rules;
mod runbooks;
mod tools;
