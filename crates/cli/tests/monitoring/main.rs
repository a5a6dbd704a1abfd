//! Rules, alerts, dashboards and runbooks, checked with Prometheus, Alertmanager and Grafana's schema.

#![allow(clippy::unwrap_used)]

mod alertmanager;
#[path = "../support/certificates.rs"]
mod certificates;
mod dashboards;
mod diagnosed;
mod live;
mod notifications;
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
