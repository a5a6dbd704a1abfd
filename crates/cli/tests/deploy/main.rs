//! Checks deploy/ against the tools and schemas of its consumers, and against the binary.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod binary;
mod collector;
mod compose;
mod fleet;
mod image;
mod kubernetes;
mod metrics_push;
#[path = "../support/programs.rs"]
mod programs;
mod release;
mod scale;
mod systemd;
mod tools;
