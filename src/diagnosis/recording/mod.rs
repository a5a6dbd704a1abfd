//! Recordings of a pool: what its diagnosis used, second by second, and what it concluded.
//!
//! An [`IncidentRecorder`] writes a file for each problem. A [`Recorder`] keeps the last minutes of a pool and writes them
//! as JSON lines; `docs/recording.md` in the repository describes the format. A [`Recording`] is read from such a file,
//! and [`Recording::replay`] passes it through the diagnosis again, without a server.
//!
//! ```no_run
//! # fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use poolscope::recording::Recording;
//!
//! let recording = Recording::open("incident.jsonl.gz")?;
//! for (second, verdict) in recording.replay() {
//!     println!("{:.0} s: {verdict}", second.at_seconds);
//! }
//! # Ok(())
//! # }
//! ```

mod format;
mod incident;
pub(super) mod labels;
mod listing;
pub(super) mod lists;
mod points;
mod pool;
mod read;
mod record;
#[cfg(test)]
mod tests;

pub use self::format::{FORMAT_VERSION, FormatVersion, Header, IncidentHeader, RecordedEvidence, RecordedVerdict};
pub use self::incident::{IncidentRecorder, IncidentSettings};
pub use self::listing::Listing;
pub(crate) use self::pool::RecordedPool;
pub use self::read::{ReadError, Recording, Replay, Second, Truncation};
pub use self::record::Recorder;
