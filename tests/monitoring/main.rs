//! What Prometheus and Alertmanager are given, as they and their own tools see it.

mod alertmanager;
mod promql;
mod promtool;
mod rules;
mod runbooks;
mod tools;
