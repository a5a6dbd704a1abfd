//! The verdict of the diagnosis, as plain data, and the seam through which a ledger obtains it.

use std::fmt::{self, Debug, Display, Write as _};
use std::sync::Arc;
use std::time::Duration;

use super::clock::Nanos;
use super::ledger::{Limits, PoolSnapshot};
use super::sizing::{LoadReading, Sizing};
use crate::labels::Cause;

/// A measured value that supports a verdict.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Evidence {
    /// What was measured, for example `held_idle_connections`.
    pub name: &'static str,
    /// The value over the last seconds. Always finite.
    pub value: f64,
    /// The unit, for example `connections`, `seconds`, `per_second` or `ratio`.
    pub unit: &'static str,
    /// The mean of the value while the pool was healthy, if it was observed then. Always finite.
    pub usual: Option<f64>,
}

/// What the diagnosis says about a pool.
///
/// Displays as one line: the finding, then the advice.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Verdict {
    /// The cause of the problem, or [`Cause::Healthy`].
    pub cause: Cause,
    /// For how long the cause has held, as of the last sample.
    pub lasting: Duration,
    /// The operation responsible, if the cause has one.
    pub operation: Option<Arc<str>>,
    /// The call site responsible, as in `src/report.rs:88`, if known.
    pub call_site: Option<Arc<str>>,
    /// The finding in one sentence, without a full stop.
    pub finding: String,
    /// The measured values that the verdict rests on; never empty.
    pub evidence: Vec<Evidence>,
    /// What to do, in one sentence with its full stop; empty if the pool is healthy.
    pub advice: String,
    /// Other causes whose conditions hold as a consequence of this one.
    pub consequences: Vec<Cause>,
    /// The time between the last samples. Above two seconds, short events may have been missed.
    pub sample_interval: Duration,
}

impl Verdict {
    /// Returns whether the verdict names a problem.
    #[must_use]
    pub fn is_problem(&self) -> bool {
        !matches!(self.cause, Cause::Healthy | Cause::NotEnoughData)
    }

    /// Returns whether no size is recommended while this verdict lasts; see [`Self::withheld_by`].
    #[must_use]
    pub fn withholds_size(&self) -> bool {
        self.withheld_by().is_some()
    }

    /// Returns the cause, or consequence, that inflates the demand: connections are in use for longer than the workload
    /// needs them, or retries add to the checkouts. A size computed from that would answer the wrong question.
    #[must_use]
    pub fn withheld_by(&self) -> Option<Cause> {
        std::iter::once(&self.cause).chain(&self.consequences).copied().find(|cause| {
            matches!(
                cause,
                Cause::CacheDown
                    | Cause::HeldIdle
                    | Cause::IdleInTransaction
                    | Cause::Leak
                    | Cause::LockWait
                    | Cause::RetryStorm
                    | Cause::RuntimeStalled
                    | Cause::SelfDeadlock
                    | Cause::ServerDown
                    | Cause::SlowQueries
            )
        })
    }
}

/// The longest time between samples that is not mentioned.
const FINE_INTERVAL: Duration = Duration::from_secs(2);

impl Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { finding, advice, call_site, lasting, sample_interval, .. } = self;
        f.write_str(finding)?;
        if self.is_problem() {
            f.write_str(" (")?;
            if let Some(site) = call_site {
                write!(f, "{site}, ")?;
            }
            write!(f, "for {}", humantime::format_duration(Duration::from_secs(lasting.as_secs())))?;
            if *sample_interval > FINE_INTERVAL {
                write!(
                    f,
                    ", sampled every {}",
                    humantime::format_duration(Duration::from_secs(sample_interval.as_secs()))
                )?;
            }
            f.write_char(')')?;
        }
        if advice.is_empty() { Ok(()) } else { write!(f, ". {advice}") }
    }
}

/// Receives the samples of one pool.
pub(crate) trait SampleObserver: Debug + Send + Sync {
    /// Called with each snapshot that was diagnosed. It was read at `now`, `late` after it should have been, and has the
    /// verdict, the holders, and at least those waiters whose task holds a connection. Must not block.
    fn observe(&self, now: Nanos, late: Duration, snapshot: &PoolSnapshot);
}

/// Derives verdicts from the snapshots of one pool. This module does not know the implementation.
pub(crate) trait Diagnoser: Debug + Send + Sync {
    /// Returns whether a snapshot read at `now` would be used, because the last one was read `interval` ago or earlier.
    /// Takes no lock.
    fn is_due(&self, now: Nanos, interval: Duration) -> bool;

    /// Uses a snapshot with holders that was read at `now`, `late` after it should have been.
    fn observe(&self, now: Nanos, late: Duration, snapshot: &PoolSnapshot);

    /// Returns the last verdict.
    fn verdict(&self) -> Option<Arc<Verdict>>;

    /// Records a reading of the load. Readings that follow each other closely are ignored.
    fn record(&self, reading: &LoadReading);

    /// Returns whether [`Self::size`] would replay the load now.
    fn is_size_due(&self, now: Nanos) -> bool;

    /// Replays the recorded load if that is due, which takes some ten milliseconds. No lock is held meanwhile that another
    /// method of this trait takes.
    fn size(&self, now: Nanos, limits: &Limits);

    /// Returns the last sizing.
    fn sizing(&self) -> Option<Arc<Sizing>>;
}
