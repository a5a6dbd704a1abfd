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

/// The time per sample after which no other pool's load is replayed: a tenth of a processor, however many pools there are.
const SIZING_TIME: Duration = Duration::from_millis(100);

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
                for ledger in &ledgers {
                    if let Some(tick) = tick {
                        ledger.read_or_sample(&mut sampler.buffer, MIN_SAMPLE_INTERVAL, late);
                        history.record(tick, sampler.buffer.snapshot());
                    } else {
                        sampler.sample(ledger, late);
                    }
                    // Many pools take a while together.
                    tokio::task::yield_now().await;
                }
                if let Some(tick) = tick {
                    history.end(tick);
                }
                sampler.size(&ledgers, SIZING_TIME);
                ledgers.clear();
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
        match tick {
            Tick::Load => ledger.record_load(),
            Tick::Sample { late } => {
                sampler.sample(&ledger, late);
                sampler.size(&[ledger], SIZING_TIME);
            }
        }
    }
}

/// What is due.
#[derive(Clone, Copy, Debug)]
enum Tick {
    /// A reading of the load.
    Load,
    /// A sample for the diagnosis. This is the longest delay of a timer since the last one.
    Sample { late: Duration },
}

struct Sampler {
    samples: Interval,
    loads: Interval,
    /// The longest delay of a timer since the last sample. Those of the load count, because stalls may be in step with the
    /// timer of samples, which then is never late.
    latest: Duration,
    buffer: SnapshotBuffer,
    /// The replays under way. One at a time, whatever the number of pools, so that no more than one processor is busy.
    sizing: Option<JoinHandle<()>>,
    /// The pool whose load was replayed first by these.
    sized_first: usize,
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
        Self { samples, loads, latest: Duration::ZERO, buffer: SnapshotBuffer::new(), sizing: None, sized_first: 0 }
    }

    /// Waits until something is due.
    async fn tick(&mut self) -> Tick {
        // After a stall both are due; the sample is the one that has to know.
        let (due, is_sample) = tokio::select! {
            biased;
            due = self.loads.tick() => (due, false),
            due = self.samples.tick() => (due, true),
        };
        self.latest = self.latest.max(Instant::now().saturating_duration_since(due));
        if is_sample { Tick::Sample { late: std::mem::take(&mut self.latest) } } else { Tick::Load }
    }

    fn sample(&mut self, ledger: &Ledger, late: Duration) {
        ledger.close_idle();
        ledger.sample(&mut self.buffer, MIN_SAMPLE_INTERVAL, late);
    }

    /// Replays the loads for which that is due on another thread, unless replays are under way there. None is begun after
    /// `time`; those that are left follow at the next call, which begins with another pool than this one.
    fn size(&mut self, ledgers: &[Arc<Ledger>], time: Duration) {
        if self.sizing.as_ref().is_some_and(|sizing| !sizing.is_finished()) {
            return;
        }
        self.sized_first = if self.sized_first + 1 < ledgers.len() { self.sized_first + 1 } else { 0 };
        let (last, first) = ledgers.split_at(self.sized_first);
        let due = first.iter().chain(last).filter(|ledger| ledger.is_size_due());
        let due: Vec<_> = due.map(Arc::downgrade).collect();
        if due.is_empty() {
            return;
        }
        self.sizing = Some(spawn_blocking(move || {
            let began = std::time::Instant::now();
            for ledger in due {
                if let Some(ledger) = ledger.upgrade() {
                    ledger.size();
                }
                if began.elapsed() >= time {
                    return;
                }
            }
        }));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::time::advance;

    use super::super::clock::{Clock, Nanos};
    use super::super::ledger::{Limits, PoolSnapshot};
    use super::super::sizing::{LoadReading, Sizing};
    use super::super::verdict::{Diagnoser, Verdict};
    use super::*;

    /// Records which pool's load is replayed, which is always due.
    #[derive(Debug)]
    struct Replays(usize, Arc<Mutex<Vec<usize>>>);

    impl Diagnoser for Replays {
        fn is_due(&self, _: Nanos, _: Duration) -> bool {
            true
        }

        fn observe(&self, _: Nanos, _: Duration, _: &PoolSnapshot) {}

        fn verdict(&self) -> Option<Arc<Verdict>> {
            None
        }

        fn record(&self, _: &LoadReading) {}

        fn is_size_due(&self, _: Nanos) -> bool {
            true
        }

        fn size(&self, _: Nanos, _: &Limits) {
            self.1.lock().unwrap().push(self.0);
        }

        fn sizing(&self) -> Option<Arc<Sizing>> {
            None
        }
    }

    fn ledger(id: usize, replays: &Arc<Mutex<Vec<usize>>>) -> Arc<Ledger> {
        let ledger = Ledger::new("test".into(), Limits::for_tests(), Clock::mock().0);
        ledger.set_diagnoser(Box::new(Replays(id, Arc::clone(replays))));
        Arc::new(ledger)
    }

    #[tokio::test]
    async fn every_pool_is_sized_though_the_time_suffices_for_one() {
        let replays = Arc::default();
        let ledgers: Vec<_> = (0..4).map(|id| ledger(id, &replays)).collect();
        let mut sampler = Sampler::new();
        for _ in 0..8 {
            sampler.size(&ledgers, Duration::ZERO);
            sampler.sizing.take().unwrap().await.unwrap();
        }
        assert_eq!(*replays.lock().unwrap(), [1, 2, 3, 0, 1, 2, 3, 0]);
        // With enough time, all of them.
        sampler.size(&ledgers, Duration::MAX);
        sampler.sizing.take().unwrap().await.unwrap();
        assert_eq!(replays.lock().unwrap()[8..], [1, 2, 3, 0]);
        // Fewer are left.
        sampler.size(&ledgers[..1], Duration::MAX);
        sampler.sizing.take().unwrap().await.unwrap();
        assert_eq!(replays.lock().unwrap()[12..], [0]);
    }

    #[test]
    fn replaced_pool_is_not_sized() {
        let replays = Arc::default();
        let [old, new] = [0, 1].map(|id| ledger(id, &replays));
        new.replace(&old);
        drop(new.collected_snapshot(true));
        drop(new.collected_snapshot(false));
        assert_eq!(*replays.lock().unwrap(), [1, 1]);
    }

    async fn next_sample(sampler: &mut Sampler) -> Duration {
        loop {
            if let Tick::Sample { late } = sampler.tick().await {
                return late;
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn stalls_in_step_with_samples_are_noticed() {
        let mut sampler = Sampler::new();
        next_sample(&mut sampler).await;
        assert_eq!(next_sample(&mut sampler).await, Duration::ZERO);
        for _ in 0..5 {
            // Nothing is polled for 0.9 s of each second, just after a sample.
            advance(Duration::from_millis(900)).await;
            assert_eq!(next_sample(&mut sampler).await, Duration::from_millis(800));
        }
        // The sample's own timer is late.
        advance(Duration::from_millis(1500)).await;
        assert_eq!(next_sample(&mut sampler).await, Duration::from_millis(1400));
        assert_eq!(next_sample(&mut sampler).await, Duration::ZERO);
    }
}
