//! Pages, read back by strict parsers of both formats.
//!
//! - `pages`: the formats as their specifications define them; `parsers`: the tests of the parsers;
//! - `fixtures`: pools whose numbers stand still, so that two pages are the same;
//! - `differential`: our text against that of the `prometheus` crate, and OpenMetrics against our text;
//! - the others: one property each.

mod allocations;
mod differential;
mod exemplars;
pub(super) mod fixtures;
mod label_cache;
mod other_collectors;
#[path = "../../support/pages/mod.rs"]
mod pages;
mod parsers;
mod sending;
mod series_count;
