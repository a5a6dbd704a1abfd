//! The thread that writes.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

use super::super::format::Header;
use super::super::listing::Listing;
use super::watch::{Sample, Watch};
use super::window::{Ended, Window};
use super::{Handle, IncidentSettings, Message, files};
use crate::telemetry::Collector;
use crate::telemetry::incidents;
use crate::telemetry::ledger::Ledger;
use crate::telemetry::log::Limiter;

/// How often new pools are looked for.
const ATTACH_INTERVAL: Duration = Duration::from_secs(1);

/// How often old files are deleted, and those of killed processes completed.
const TIDY_INTERVAL: Duration = Duration::from_secs(60);

/// A pool that was not sampled for so long is not sampled any more. Its file is completed.
const SAMPLE_TIMEOUT: Duration = Duration::from_secs(30);

/// The files that are written at the same time. An outage of the server is a problem of every pool, and the files of some
/// of them are enough to see it.
const MAX_OPEN: usize = 16;

pub(super) struct Writer {
    collector: Collector,
    settings: Arc<IncidentSettings>,
    queue: SyncSender<Message>,
    /// Whether to finish without a message, as the queue was full.
    is_finishing: Arc<AtomicBool>,
    pools: BTreeMap<u64, Pool>,
    next: u64,
    attached: Option<Instant>,
    tidied: Option<Instant>,
}

struct Pool {
    ledger: Weak<Ledger>,
    /// The observer of its samples, which the ledger does not own.
    _watch: Arc<Watch>,
    window: Window,
    sampled: Instant,
}

impl Writer {
    pub(super) fn new(collector: Collector, settings: IncidentSettings, handle: &Handle) -> Self {
        let (queue, is_finishing) = (handle.queue.clone(), Arc::clone(&handle.is_finishing));
        let (settings, pools) = (Arc::new(settings), BTreeMap::new());
        Self { collector, settings, queue, is_finishing, pools, next: 0, attached: None, tidied: None }
    }

    /// Writes until it is told to finish.
    pub(super) fn run(mut self, incoming: &Receiver<Message>) {
        while !self.is_finishing.load(SeqCst) {
            self.maintain();
            match incoming.recv_timeout(ATTACH_INTERVAL) {
                Ok(Message::Sample(sample)) => self.add(&sample),
                Ok(Message::Record(name)) => self.request(name.as_deref()),
                Ok(Message::Finish(finished)) => {
                    self.finish();
                    // The caller may have given up.
                    let _ = finished.send(());
                    return;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
        self.finish();
    }

    fn finish(&mut self) {
        for pool in self.pools.values_mut() {
            report(pool.window.finish());
        }
    }

    fn maintain(&mut self) {
        let now = Instant::now();
        let is_due = |last: Option<Instant>, interval| last.is_none_or(|last| now.duration_since(last) >= interval);
        if is_due(self.attached, ATTACH_INTERVAL) {
            self.attached = Some(now);
            self.attach(now);
        }
        if is_due(self.tidied, TIDY_INTERVAL) {
            self.tidied = Some(now);
            let open: Vec<_> = self.pools.values().filter_map(|pool| pool.window.partial()).collect();
            if let Err(error) = files::tidy(&self.settings, SystemTime::now(), &open) {
                failed(&error, &self.settings);
            }
        }
    }

    /// Observes pools that are new, and completes the files of those that are gone or not sampled.
    fn attach(&mut self, now: Instant) {
        let mut ledgers = Vec::new();
        self.collector.ledgers(&mut ledgers);
        for ledger in &ledgers {
            let is_known = self.pools.values().any(|pool| Weak::as_ptr(&pool.ledger) == Arc::as_ptr(ledger));
            if !is_known {
                let watch = Arc::new(Watch::new(self.next, self.queue.clone()));
                let observer: Weak<Watch> = Arc::downgrade(&watch);
                ledger.add_observer(observer);
                let window = Window::new(Header::new(ledger), Arc::clone(&self.settings));
                let pool = Pool { ledger: Arc::downgrade(ledger), _watch: watch, window, sampled: now };
                self.pools.insert(self.next, pool);
                self.next += 1;
            }
        }
        self.pools.retain(|_, pool| {
            let is_listed = ledgers.iter().any(|ledger| Weak::as_ptr(&pool.ledger) == Arc::as_ptr(ledger));
            if !is_listed || now.duration_since(pool.sampled) > SAMPLE_TIMEOUT {
                report(pool.window.finish());
            }
            is_listed
        });
    }

    /// Returns the number of files that are being written.
    fn open(&self) -> usize {
        self.pools.values().filter(|pool| pool.window.is_recording()).count()
    }

    fn add(&mut self, sample: &Sample) {
        let open = self.open();
        let Some(pool) = self.pools.get_mut(&sample.pool) else { return };
        pool.sampled = Instant::now();
        let ledger = &pool.ledger;
        match pool.window.add(sample, open < MAX_OPEN, || listing(ledger)) {
            Ok(ended) => {
                let has_ended = ended.is_some();
                report(ended);
                if has_ended {
                    self.tidied = None;
                }
            }
            Err(error) => failed(&error, &self.settings),
        }
    }

    fn request(&mut self, name: Option<&str>) {
        let (mut open, mut skipped) = (self.open(), 0);
        for pool in self.pools.values_mut() {
            let Some(ledger) = pool.ledger.upgrade() else { continue };
            if name.is_some_and(|name| **ledger.name() != *name) {
                continue;
            }
            if !pool.window.is_recording() {
                // More would replace the files of other problems.
                if open >= MAX_OPEN {
                    skipped += 1;
                    continue;
                }
                open += 1;
            }
            if let Err(error) = pool.window.request(|| listing(&pool.ledger)) {
                failed(&error, &self.settings);
            }
        }
        if skipped > 0 {
            tracing::warn!(
                skipped,
                "{MAX_OPEN} incident files are being written: none was begun for the other pools; request them by name later"
            );
        }
    }
}

/// Reads who holds connections and who waits.
fn listing(ledger: &Weak<Ledger>) -> Option<Listing> {
    Some(Listing::new(&ledger.upgrade()?.collected_snapshot(true)))
}

/// Counts and logs a file that has ended.
fn report(ended: Option<Ended>) {
    match ended {
        None => {}
        Some(Ended::Complete(path)) => {
            incidents::count_file();
            tracing::info!(file = %path.display(), "incident file written");
        }
        Some(Ended::Failed(error)) => log_failure(&error),
    }
}

fn failed(error: &io::Error, settings: &IncidentSettings) {
    incidents::count_error();
    static FAILURES: Limiter = Limiter::new();
    if let Some(suppressed) = FAILURES.pass_now() {
        let directory = settings.directory.display().to_string();
        tracing::warn!(directory, %error, suppressed, "could not write an incident file; it is tried again");
    }
}

fn log_failure(error: &io::Error) {
    incidents::count_error();
    static FAILURES: Limiter = Limiter::new();
    if let Some(suppressed) = FAILURES.pass_now() {
        tracing::warn!(%error, suppressed, "could not complete an incident file");
    }
}
