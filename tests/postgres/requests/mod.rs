//! Requests over real HTTP, and what they cost.

mod cancelled;
mod fields;
mod parents;
mod served;
mod service;
