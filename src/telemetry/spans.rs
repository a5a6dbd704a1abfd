//! What became of the spans that ended: the accounts of every pipeline in the process.

use std::sync::{Arc, Mutex, PoisonError};

/// Where a pipeline brings its spans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Destination {
    /// A collector, by OTLP.
    Otlp,
    /// A page of this process.
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

/// What became of spans, all of one moment: *ended = queued + exported + dropped + failed*.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SpanTotals {
    pub(crate) ended: u64,
    pub(crate) queued: u64,
    pub(crate) exported: u64,
    pub(crate) dropped: u64,
    pub(crate) failed: u64,
}

/// Something that keeps such accounts.
pub(crate) trait Accounts: Send + Sync {
    fn destination(&self) -> Destination;
    fn totals(&self) -> SpanTotals;
}

/// They stay when their pipeline ends: a counter never falls.
static ACCOUNTS: Mutex<Vec<Arc<dyn Accounts>>> = Mutex::new(Vec::new());

/// Has them counted among the process's.
#[cfg(feature = "otlp")]
pub(crate) fn join(accounts: Arc<dyn Accounts>) {
    ACCOUNTS.lock().unwrap_or_else(PoisonError::into_inner).push(accounts);
}

/// The sums for each destination that there is.
pub(crate) fn totals() -> Vec<(Destination, SpanTotals)> {
    let accounts = ACCOUNTS.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let of = |destination| {
        let totals = accounts.iter().filter(|one| one.destination() == destination).map(|one| one.totals());
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
