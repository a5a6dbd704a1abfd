//! The thread that writes.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

use super::super::format::Header;
use super::super::listing::Listing;
use super::watch::{Sample, Watched, Watches};
use super::window::{Ended, Window};
use super::{Handle, IncidentSettings, Message, files};
use crate::telemetry::Collector;
use crate::telemetry::collector::PoolObserver as _;
use crate::telemetry::incidents;
use crate::telemetry::ledger::Ledger;
use crate::telemetry::log::Limiter;

/// How often pools are looked for that have gone, or that the queue had no room for.
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
    watches: Arc<Watches>,
    /// Whether to finish without a message, as the queue was full.
    is_finishing: Arc<AtomicBool>,
    pools: BTreeMap<u64, Pool>,
    attached: Option<Instant>,
    tidied: Option<Instant>,
}

struct Pool {
    watched: Watched,
    /// Created when it is needed: a pool that has just joined does not know its settings yet.
    window: Option<Window>,
    sampled: Instant,
}

impl Pool {
    fn is(&self, ledger: &Arc<Ledger>) -> bool {
        Weak::as_ptr(&self.watched.ledger) == Arc::as_ptr(ledger)
    }

    /// Returns the window; `None` if there is none, and the pool is gone.
    fn window(&mut self, settings: &Arc<IncidentSettings>) -> Option<&mut Window> {
        if self.window.is_none() {
            let header = Header::new(&*self.watched.ledger.upgrade()?);
            self.window = Some(Window::new(header, Arc::clone(settings)));
        }
        self.window.as_mut()
    }

    fn is_recording(&self) -> bool {
        self.window.as_ref().is_some_and(Window::is_recording)
    }

    /// Completes the file that is being written.
    fn finish(&mut self) {
        report(self.window.as_mut().and_then(Window::finish));
    }
}

impl Writer {
    pub(super) fn new(collector: Collector, settings: IncidentSettings, handle: &Handle) -> Self {
        let (watches, is_finishing) = (Arc::clone(&handle.watches), Arc::clone(&handle.is_finishing));
        let (settings, pools) = (Arc::new(settings), BTreeMap::new());
        Self { collector, settings, watches, is_finishing, pools, attached: None, tidied: None }
    }

    /// Writes until it is told to finish.
    pub(super) fn run(mut self, incoming: &Receiver<Message>) {
        while !self.is_finishing.load(SeqCst) {
            self.maintain();
            match incoming.recv_timeout(ATTACH_INTERVAL) {
                Ok(Message::Pool(watched)) => self.insert(watched),
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
        self.pools.values_mut().for_each(Pool::finish);
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
            let open: Vec<_> = self.pools.values().filter_map(|pool| pool.window.as_ref()?.partial()).collect();
            if let Err(error) = files::tidy(&self.settings, SystemTime::now(), &open) {
                failed(&error, &self.settings);
            }
        }
    }

    /// Observes pools that are unknown, and completes the files of those that are gone or not sampled.
    fn attach(&mut self, now: Instant) {
        let mut ledgers = Vec::new();
        self.collector.ledgers(&mut ledgers);
        for ledger in &ledgers {
            if !self.pools.values().any(|pool| pool.is(ledger)) {
                self.watches.joined(ledger);
            }
        }
        self.pools.retain(|_, pool| {
            let is_listed = ledgers.iter().any(|ledger| pool.is(ledger));
            if !is_listed || now.duration_since(pool.sampled) > SAMPLE_TIMEOUT {
                pool.finish();
            }
            is_listed
        });
    }

    /// Adds a pool, unless it was found twice.
    fn insert(&mut self, watched: Watched) {
        let is_known = self.pools.values().any(|pool| Weak::ptr_eq(&pool.watched.ledger, &watched.ledger));
        if !is_known {
            self.pools.insert(watched.number, Pool { watched, window: None, sampled: Instant::now() });
        }
    }

    /// Returns the number of files that are being written.
    fn open(&self) -> usize {
        self.pools.values().filter(|pool| pool.is_recording()).count()
    }

    fn add(&mut self, sample: &Sample) {
        let open = self.open();
        let Some(pool) = self.pools.get_mut(&sample.pool) else { return };
        pool.sampled = Instant::now();
        let ledger = Weak::clone(&pool.watched.ledger);
        let Some(window) = pool.window(&self.settings) else { return };
        match window.add(sample, open < MAX_OPEN, || ledger.upgrade().as_deref().map(listing)) {
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
            let Some(ledger) = pool.watched.ledger.upgrade() else { continue };
            if name.is_some_and(|name| **ledger.name() != *name) {
                continue;
            }
            if !pool.is_recording() {
                // More would replace the files of other problems.
                if open >= MAX_OPEN {
                    skipped += 1;
                    continue;
                }
                open += 1;
            }
            let Some(window) = pool.window(&self.settings) else { continue };
            if let Err(error) = window.request(|| Some(listing(&ledger))) {
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
fn listing(ledger: &Ledger) -> Listing {
    Listing::new(&ledger.collected_snapshot(true))
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
