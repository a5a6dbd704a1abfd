//! Queries exporters at an interval, each in a thread, so that one that hangs does not delay the others.

use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use super::model::{MAX_POOLS, Pool};
use super::{Event, Source};

/// A handle to the thread that queries one exporter. The thread ends after its query when this is dropped.
#[derive(Debug)]
pub(super) struct Poller(Sender<()>);

impl Poller {
    /// Queries the exporter now, unless it is being queried.
    pub(super) fn query_now(&self) {
        // The thread has ended if it panicked, which it has reported.
        let _ = self.0.send(());
    }
}

/// Starts a thread for each source.
pub(super) fn start(sources: Vec<Source>, delay: Duration, events: &Sender<Event>) -> io::Result<Vec<Poller>> {
    sources
        .into_iter()
        .enumerate()
        .map(|(exporter, source)| start_one(exporter, source, delay, events.clone()))
        .collect()
}

fn start_one(exporter: usize, source: Source, delay: Duration, events: Sender<Event>) -> io::Result<Poller> {
    let (requests, requested) = mpsc::channel();
    let poll = move || {
        loop {
            let begun = Instant::now();
            // The panic hook has restored the terminal, which the drawing thread must not write to again.
            let answer = panic::catch_unwind(AssertUnwindSafe(|| {
                (source.query)().map(|pools| pools.iter().take(MAX_POOLS).map(Pool::new).collect::<Vec<_>>())
            }));
            let event = match answer {
                Ok(pools) => Event::Answer { exporter, pools },
                Err(_) => Event::Panicked,
            };
            let is_panic = matches!(event, Event::Panicked);
            if events.send(event).is_err() || is_panic {
                return;
            }
            match requested.recv_timeout(delay.saturating_sub(begun.elapsed())) {
                // Of several requests, one is enough.
                Ok(()) => while requested.try_recv().is_ok() {},
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    };
    thread::Builder::new().name(format!("poolscope-query-{exporter}")).spawn(poll)?;
    Ok(Poller(requests))
}
