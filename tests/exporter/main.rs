//! The exporter over HTTP, and the pages that it writes, through the public API.
//!
//! - `harness`: a running exporter, a client that sends exactly what it is given, collectors that are scripted, and a
//!   clock that stands still;
//! - `exposition`: the text of a page, read back by strict parsers;
//! - `web_config`: TLS, passwords and headers, with real certificates;
//! - the others: one risk each.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod bind;
mod client_limits;
mod endpoints;
mod exposition;
mod formats;
mod harness;
mod history;
mod pools_api;
mod record;
mod replay;
mod scrapes;
mod shutdown;
mod streams;
#[cfg(feature = "web-config")]
mod web_config;
