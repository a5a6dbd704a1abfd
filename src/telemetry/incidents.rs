//! Counters of incident files, over all recorders of the process.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// Counts at one point in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct IncidentTotals {
    pub(crate) files: u64,
    pub(crate) errors: u64,
}

static FILES: AtomicU64 = AtomicU64::new(0);
static ERRORS: AtomicU64 = AtomicU64::new(0);

/// When the first recorder was started.
#[cfg(feature = "exporter")]
static SINCE: std::sync::OnceLock<std::time::SystemTime> = std::sync::OnceLock::new();

/// Makes the process report the counters.
#[cfg(feature = "exporter")]
pub(crate) fn register() {
    SINCE.get_or_init(std::time::SystemTime::now);
}

#[cfg(feature = "exporter")]
pub(crate) fn count_file() {
    FILES.fetch_add(1, Relaxed);
}

#[cfg(feature = "exporter")]
pub(crate) fn count_error() {
    ERRORS.fetch_add(1, Relaxed);
}

/// Returns since when the counters count; `None` without a recorder.
pub(crate) fn counting_since() -> Option<std::time::SystemTime> {
    #[cfg(feature = "exporter")]
    return SINCE.get().copied();
    #[cfg(not(feature = "exporter"))]
    None
}

/// Returns the counters; `None` without a recorder.
pub(crate) fn totals() -> Option<IncidentTotals> {
    counting_since().map(|_| IncidentTotals { files: FILES.load(Relaxed), errors: ERRORS.load(Relaxed) })
}
