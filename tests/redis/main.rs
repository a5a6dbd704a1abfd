//! The pool against a real Redis.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cache;
mod commands;
mod connecting;
mod exposition;
mod invariants;
mod outages;
mod retries;
mod server_view;
mod sessions;
mod spans;
mod support;
mod tls;
