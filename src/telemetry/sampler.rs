//! Reads pools once per second for their diagnosis and their history, however often they are scraped.

#[cfg(feature = "exporter")]
use std::convert::Infallible;
use std::sync::Weak;
use std::time::Duration;
#[cfg(feature = "exporter")]
use std::time::SystemTime;

use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

#[cfg(feature = "exporter")]
use super::collector::Collector;
#[cfg(feature = "exporter")]
use super::history::History;
use super::ledger::{Ledger, SnapshotBuffer};

/// The time between two samples.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);

/// A sample is skipped if the pool was sampled within this time, as by a second sampler.
const MIN_SAMPLE_INTERVAL: Duration = Duration::from_millis(500);

/// Samples the pools of a collector, and records their history.
#[cfg(feature = "exporter")]
pub(crate) async fn sample_all(collector: Collector, history: &History) -> Infallible {
    let mut sampler = Sampler::new();
    let mut ledgers = Vec::new();
    loop {
        let late = sampler.tick().await;
        collector.ledgers(&mut ledgers);
        let tick = history.begin(Instant::now(), SystemTime::now());
        for ledger in ledgers.drain(..) {
            if let Some(tick) = tick {
                ledger.read_or_sample(&mut sampler.buffer, MIN_SAMPLE_INTERVAL, late);
                history.record(tick, sampler.buffer.snapshot());
            } else {
                sampler.sample(&ledger, late);
            }
            // Many pools take a while together.
            tokio::task::yield_now().await;
        }
        if let Some(tick) = tick {
            history.end(tick);
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

    fn sample(&mut self, ledger: &Ledger, late: Duration) {
        ledger.close_idle();
        ledger.sample(&mut self.buffer, MIN_SAMPLE_INTERVAL, late);
    }
}
