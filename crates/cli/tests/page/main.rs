//! The exporter's page in headless Chromium, and the API that it reads.
//!
//! - `browser`: a client of Chromium's DevTools protocol;
//! - `site`: an exporter in this process, with pools of a server that only accepts connections;
//! - the others: one risk each.
//!
//! `make page` also takes the pictures of the documentation.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod accessibility;
mod browser;
mod cost;
mod hostile;
mod interaction;
mod many;
mod pictures;
#[path = "../support/programs.rs"]
mod programs;
mod reconnect;
mod recorded;
#[path = "../support/run.rs"]
mod run;
mod scenarios;
mod site;
