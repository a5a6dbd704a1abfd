//! Reads pools once per second for their diagnosis and their history, and ten times per second for their load, however
//! often they are scraped.

#[cfg(feature = "exporter")]
use std::convert::Infallible;
use std::sync::{Arc, Weak};
use std::time::Duration;
#[cfg(feature = "exporter")]
use std::time::SystemTime;

use tokio::task::{JoinHandle, spawn_blocking};
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

/// The time between two readings of the load: shorter bursts are not told apart.
const LOAD_INTERVAL: Duration = Duration::from_millis(100);

/// Samples the pools of a collector, and records their history.
#[cfg(feature = "exporter")]
pub(crate) async fn sample_all(collector: Collector, history: &History) -> Infallible {
    let mut sampler = Sampler::new();
    let mut ledgers = Vec::new();
    loop {
        let tick = sampler.tick().await;
        collector.ledgers(&mut ledgers);
        match tick {
            Tick::Load => ledgers.drain(..).for_each(|ledger| ledger.record_load()),
            Tick::Sample { late } => {
                let tick = history.begin(Instant::now(), SystemTime::now());
                for ledger in ledgers.drain(..) {
                    if let Some(tick) = tick {
                        ledger.read_or_sample(&mut sampler.buffer, MIN_SAMPLE_INTERVAL, late);
                        history.record(tick, sampler.buffer.snapshot());
                        sampler.size(&ledger);
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
    }
}

/// Samples one pool until it no longer exists.
pub(crate) async fn sample_one(ledger: Weak<Ledger>) {
    let mut sampler = Sampler::new();
    loop {
        let tick = sampler.tick().await;
        let Some(ledger) = ledger.upgrade() else { return };
        sampler.read(&ledger, tick);
    }
}

/// What is due.
#[derive(Clone, Copy, Debug)]
enum Tick {
    /// A reading of the load.
    Load,
    /// A sample for the diagnosis, whose timer is this late.
    Sample { late: Duration },
}

struct Sampler {
    samples: Interval,
    loads: Interval,
    buffer: SnapshotBuffer,
    /// The replay under way. One at a time, whatever the number of pools, so that no more than one processor is busy.
    sizing: Option<JoinHandle<()>>,
}

impl Sampler {
    fn new() -> Self {
        let every = |time| {
            let mut ticks = interval(time);
            // After a stall, one sample is taken for all that were missed.
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        };
        let (samples, loads) = (every(SAMPLE_INTERVAL), every(LOAD_INTERVAL));
        Self { samples, loads, buffer: SnapshotBuffer::new(), sizing: None }
    }

    /// Waits until something is due.
    async fn tick(&mut self) -> Tick {
        tokio::select! {
            biased;
            due = self.samples.tick() => Tick::Sample { late: Instant::now().saturating_duration_since(due) },
            _ = self.loads.tick() => Tick::Load,
        }
    }

    fn read(&mut self, ledger: &Arc<Ledger>, tick: Tick) {
        match tick {
            Tick::Load => ledger.record_load(),
            Tick::Sample { late } => self.sample(ledger, late),
        }
    }

    fn sample(&mut self, ledger: &Arc<Ledger>, late: Duration) {
        ledger.close_idle();
        ledger.sample(&mut self.buffer, MIN_SAMPLE_INTERVAL, late);
        self.size(ledger);
    }

    /// Replays the load of a pool on another thread, if that is due and no other replay is under way.
    fn size(&mut self, ledger: &Arc<Ledger>) {
        let is_free = self.sizing.as_ref().is_none_or(JoinHandle::is_finished);
        if is_free && ledger.is_size_due() {
            let ledger = Arc::downgrade(ledger);
            self.sizing = Some(spawn_blocking(move || {
                if let Some(ledger) = ledger.upgrade() {
                    ledger.size();
                }
            }));
        }
    }
}
