//! The demo: a private PostgreSQL and a workload that looks like a service.

pub mod server;
