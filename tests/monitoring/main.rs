//! What is generated to watch pools with, held to what it promises.

#![allow(clippy::unwrap_used)]

mod dashboards;
