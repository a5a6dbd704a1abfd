//! What the exporter writes, read back by parsers of the two formats that forgive nothing.
//!
//! - `pages`: the formats as their specifications define them; `refused`: what is none;
//! - `world`: pools whose every number is known to stand still while it is written twice;
//! - `differential`: our text against that of the `prometheus` crate, and OpenMetrics against our text;
//! - `exemplars`, `moving`, `neighbours`, `size`, `steady`: one promise each, in words.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod differential;
mod exemplars;
mod moving;
mod neighbours;
#[path = "../support/pages/mod.rs"]
mod pages;
mod refused;
mod size;
mod steady;
mod world;
