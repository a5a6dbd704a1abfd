//! What stands in deploy/, held to the tools and schemas of those who read it, and to the binary that it starts.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod binary;
mod collector;
mod compose;
mod fleet;
mod image;
mod kubernetes;
#[path = "../support/programs.rs"]
mod programs;
mod release;
mod scale;
mod systemd;
mod tools;
