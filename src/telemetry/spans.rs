//! Counters of exported spans, over all span pipelines of the process.

use std::sync::{Arc, Mutex, PoisonError};

/// Where a pipeline exports its spans to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Destination {
    /// A collector, over OTLP.
    Otlp,
    /// A page served by this process.
    Page,
}

impl Destination {
    pub(crate) const ALL: [Self; 2] = [Self::Otlp, Self::Page];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Otlp => "otlp",
            Self::Page => "page",
        }
    }
}

/// Counts of spans at one point in time: *ended = queued + exported + dropped + failed*.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SpanTotals {
    pub(crate) ended: u64,
    pub(crate) queued: u64,
    pub(crate) exported: u64,
    pub(crate) dropped: u64,
    pub(crate) failed: u64,
}

/// The counters of one pipeline.
pub(crate) trait SpanCounters: Send + Sync {
    fn destination(&self) -> Destination;
    fn totals(&self) -> SpanTotals;
}

/// The counters of all pipelines, including those that have ended, because a counter must never decrease.
static PIPELINES: Mutex<Vec<Arc<dyn SpanCounters>>> = Mutex::new(Vec::new());

/// Returns since when the counters count: the registration of the first pipeline.
#[cfg(feature = "otlp")]
pub(crate) fn counting_since() -> std::time::SystemTime {
    static SINCE: std::sync::LazyLock<std::time::SystemTime> = std::sync::LazyLock::new(std::time::SystemTime::now);
    *SINCE
}

/// Adds the counters of a pipeline to the process's totals.
#[cfg(feature = "otlp")]
pub(crate) fn register(counters: Arc<dyn SpanCounters>) {
    counting_since();
    PIPELINES.lock().unwrap_or_else(PoisonError::into_inner).push(counters);
}

/// Returns the sum for each destination that has a pipeline.
pub(crate) fn totals() -> Vec<(Destination, SpanTotals)> {
    let pipelines = PIPELINES.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let of = |destination| {
        let totals = pipelines.iter().filter(|one| one.destination() == destination).map(|one| one.totals());
        totals.reduce(|sum, one| SpanTotals {
            ended: sum.ended + one.ended,
            queued: sum.queued + one.queued,
            exported: sum.exported + one.exported,
            dropped: sum.dropped + one.dropped,
            failed: sum.failed + one.failed,
        })
    };
    Destination::ALL.into_iter().filter_map(|destination| Some((destination, of(destination)?))).collect()
}
