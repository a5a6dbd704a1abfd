//! Observes pools from the time at which they join the collector: receives the samples of each, and queues what is
//! recorded of them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use super::super::super::interval::Interval;
use super::super::super::totals::Totals;
use super::Message;
use crate::telemetry::clock::Nanos;
use crate::telemetry::collector::PoolObserver;
use crate::telemetry::incidents;
use crate::telemetry::ledger::Ledger;
use crate::telemetry::log::Limiter;
use crate::telemetry::verdict::SampleObserver;
use crate::telemetry::{PoolSnapshot, Verdict};

/// What is recorded of one sample.
#[derive(Debug)]
pub(super) struct Sample {
    /// The number of the pool.
    pub(super) pool: u64,
    /// The time since the first sample.
    pub(super) at_seconds: f64,
    pub(super) interval: Interval,
    pub(super) verdict: Option<Arc<Verdict>>,
    pub(super) queued: usize,
}

/// A pool whose samples are queued.
#[derive(Debug)]
pub(super) struct Watched {
    /// The number of the pool.
    pub(super) number: u64,
    pub(super) ledger: Weak<Ledger>,
    /// The observer of its samples, which the ledger does not own.
    pub(super) _watch: Arc<Watch>,
}

/// Watches each pool that joins the collector, so that its first sample is recorded.
#[derive(Debug)]
pub(super) struct Watches {
    queue: SyncSender<Message>,
    next: AtomicU64,
}

impl Watches {
    pub(super) fn new(queue: SyncSender<Message>) -> Self {
        Self { queue, next: AtomicU64::new(0) }
    }
}

impl PoolObserver for Watches {
    fn joined(&self, ledger: &Arc<Ledger>) {
        let number = self.next.fetch_add(1, Relaxed);
        let watch = Arc::new(Watch::new(number, self.queue.clone()));
        let observer: Weak<Watch> = Arc::downgrade(&watch);
        ledger.add_observer(observer);
        // If the queue is full the observer is dropped: the thread looks for pools that it does not know.
        let _ = self.queue.try_send(Message::Pool(Watched { number, ledger: Arc::downgrade(ledger), _watch: watch }));
    }
}

#[derive(Debug)]
pub(super) struct Watch {
    pool: u64,
    queue: SyncSender<Message>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    first: Option<Nanos>,
    totals: Option<Totals>,
}

impl Watch {
    fn new(pool: u64, queue: SyncSender<Message>) -> Self {
        Self { pool, queue, state: Mutex::default() }
    }
}

impl SampleObserver for Watch {
    fn observe(&self, now: Nanos, late: Duration, snapshot: &PoolSnapshot) {
        static DROPPED: Limiter = Limiter::new();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let first = *state.first.get_or_insert(now);
        let Some(before) = state.totals.replace(Totals::of(now, snapshot)) else { return };
        let Some(totals) = state.totals.as_ref().filter(|_| now > before.at()) else { return };
        let sample = Sample {
            pool: self.pool,
            at_seconds: Duration::from_nanos(now.since(first)).as_secs_f64(),
            interval: Interval::between(&before, totals, late, snapshot),
            verdict: snapshot.diagnosis.clone(),
            queued: snapshot.queued,
        };
        drop(state);
        if self.queue.try_send(Message::Sample(Box::new(sample))).is_err() {
            incidents::count_error();
            if let Some(suppressed) = DROPPED.pass_now() {
                tracing::warn!(suppressed, "a sample is missing in incident files, because the disk does not keep up");
            }
        }
    }
}
