//! From the snapshots of the last minute to a verdict: the cause, the operation responsible, and what to do.
//!
//! - `interval` reduces two consecutive snapshots to what happened between them;
//! - `window` keeps the intervals of the last minute, and computes the figures that rules compare;
//! - `rules` is the table of rules: a row per cause with its conditions, and what it explains;
//! - `causes` has the constant texts about each cause;
//! - `verdict` words a verdict;
//! - `sizing` records the load, and derives the size that it needs;
//! - `engine` holds a pool's window, applies the hysteresis, and remembers what is usual for the pool.
//!
//! Nothing here reads a clock, a server or a pool: the same snapshots yield the same verdicts.

mod call_site;
pub mod causes;
mod engine;
mod figures;
mod interval;
mod locks;
mod measures;
#[cfg(feature = "exporter")]
pub mod recording;
#[cfg(test)]
mod reference;
mod rules;
mod sizing;
#[cfg(test)]
mod tests;
mod totals;
mod verdict;
mod window;

pub(crate) use self::engine::Engine;
