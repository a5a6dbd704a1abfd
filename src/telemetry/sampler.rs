//! Reads pools once per second for their diagnosis, however often they are scraped.

use std::convert::Infallible;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use super::collector::Collector;
use super::ledger::{Ledger, SnapshotBuffer};

/// The time between two samples.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);

/// A sample is skipped if the pool was sampled within this time, as by a second sampler.
const MIN_SAMPLE_INTERVAL: Duration = Duration::from_millis(500);

/// Samples the pools of a collector.
#[cfg_attr(not(feature = "exporter"), allow(dead_code, reason = "only the exporter samples a whole collector"))]
pub(crate) async fn sample_all(collector: Collector) -> Infallible {
    let mut sampler = Sampler::new();
    let mut ledgers = Vec::new();
    loop {
        let late = sampler.tick().await;
        collector.ledgers(&mut ledgers);
        for ledger in ledgers.drain(..) {
            sampler.sample(&ledger, late);
            // Many pools take a while together.
            tokio::task::yield_now().await;
        }
    }
}

/// Samples one pool until it no longer exists.
pub(crate) async fn sample_one(ledger: Weak<Ledger>) {
    let mut sampler = Sampler::new();
    loop {
        let late = sampler.tick().await;
        let Some(ledger) = ledger.upgrade() else { return };
        sampler.sample(&ledger, late);
    }
}

struct Sampler {
    ticks: Interval,
    buffer: SnapshotBuffer,
}

impl Sampler {
    fn new() -> Self {
        let mut ticks = interval(SAMPLE_INTERVAL);
        // After a stall, one sample is taken for all that were missed.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { ticks, buffer: SnapshotBuffer::new() }
    }

    /// Waits for the next sample and returns how late its timer is.
    async fn tick(&mut self) -> Duration {
        let due = self.ticks.tick().await;
        Instant::now().saturating_duration_since(due)
    }

    fn sample(&mut self, ledger: &Arc<Ledger>, late: Duration) {
        ledger.close_idle();
        ledger.sample(&mut self.buffer, MIN_SAMPLE_INTERVAL, late);
    }
}
