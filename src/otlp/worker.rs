//! The thread that exports: with a runtime of its own, so that nothing it does is done by the application's workers.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use opentelemetry_sdk::trace::SpanData;
use tokio::runtime::Runtime;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::queue::Queue;
use crate::telemetry::clock::Clock;
use crate::telemetry::log::Limiter;
use crate::telemetry::spans::{Accounts, Destination};

/// Where batches go. Called for one batch at a time, on the worker's thread.
pub trait Deliver: Send + 'static {
    /// Sends a batch; `Ok` is how many spans of it were refused.
    fn send(&mut self, batch: Vec<SpanData>) -> impl Future<Output = Result<u64, String>>;
}

/// How a worker goes about it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// How long a span may wait for others.
    pub(super) delay: Duration,
    /// How long a batch may take, retries included.
    pub(super) patience: Duration,
}

/// A handle to the thread.
#[derive(Debug)]
pub(super) struct Worker {
    queue: Arc<Queue<SpanData>>,
    /// When to give up what is left; `None` as long as nobody shuts it down.
    end: watch::Sender<Option<Instant>>,
    ended: oneshot::Receiver<()>,
}

impl Worker {
    /// Starts the thread. `runtime` is its own.
    pub(super) fn start(
        runtime: Runtime,
        queue: Arc<Queue<SpanData>>,
        destination: impl Deliver,
        pace: Pace,
    ) -> io::Result<Self> {
        let (end, ending) = watch::channel(None);
        let (report, ended) = oneshot::channel();
        let work = Work { queue: Arc::clone(&queue), pace, ending, log: Log::default() };
        thread::Builder::new().name(format!("poolscope-{}", queue.destination().as_str())).spawn(move || {
            runtime.block_on(work.run(destination));
            // A name that is being resolved, say, is not waited for.
            runtime.shutdown_background();
            // Whoever shut it down may have given up waiting.
            let _ = report.send(());
        })?;
        Ok(Self { queue, end, ended })
    }

    /// From now on no span is taken; what waits is exported until `deadline`, and then given up.
    pub(super) fn close(&self, deadline: Instant) {
        self.end.send_replace(Some(deadline));
        self.queue.close();
    }

    #[cfg(test)]
    pub(super) fn accounts(&self) -> Arc<dyn Accounts> {
        Arc::clone(&self.queue) as Arc<dyn Accounts>
    }

    /// Waits for the thread's end.
    pub(super) async fn ended(&mut self) {
        // An error is its end, too.
        let _ = (&mut self.ended).await;
    }
}

struct Work {
    queue: Arc<Queue<SpanData>>,
    pace: Pace,
    ending: watch::Receiver<Option<Instant>>,
    log: Log,
}

impl Work {
    async fn run(mut self, mut destination: impl Deliver) {
        loop {
            self.wait().await;
            loop {
                let batch = self.queue.take();
                if batch.is_empty() {
                    break;
                }
                self.export(&mut destination, batch).await;
                let dropped = self.queue.totals().dropped;
                // What is dropped later came too late, which is no news.
                if !self.queue.is_closed() {
                    self.log.losses(dropped, self.queue.destination());
                }
                if self.is_over() || !(self.queue.has_batch() || self.queue.is_closed()) {
                    break;
                }
            }
            if self.queue.is_closed() {
                self.queue.drop_rest();
                return;
            }
        }
    }

    /// Waits until there is a batch, or what waits has waited long enough, or the end.
    async fn wait(&self) {
        let until = Instant::now() + self.pace.delay;
        while !self.queue.has_batch() && !self.queue.is_closed() {
            tokio::select! {
                () = sleep_until(until) => return,
                () = self.queue.woken() => {}
            }
        }
    }

    async fn export(&mut self, destination: &mut impl Deliver, batch: Vec<SpanData>) {
        let length = batch.len() as u64;
        let sent = tokio::select! {
            sent = timeout(self.pace.patience, destination.send(batch)) => {
                sent.unwrap_or_else(|_| Err("it took too long".to_owned()))
            }
            () = deadline(&mut self.ending) => Err("the process ended first".to_owned()),
        };
        match sent {
            Ok(refused) => {
                let refused = refused.min(length);
                self.queue.settle(length - refused, refused);
                if refused > 0 {
                    self.log.failure("the collector refused them", refused, self.queue.destination());
                }
            }
            Err(problem) => {
                self.queue.settle(0, length);
                self.log.failure(&problem, length, self.queue.destination());
            }
        }
    }

    fn is_over(&self) -> bool {
        self.ending.borrow().is_some_and(|deadline| deadline <= Instant::now())
    }
}

/// Waits until a deadline is set and over.
async fn deadline(ending: &mut watch::Receiver<Option<Instant>>) {
    let deadline = match ending.wait_for(Option::is_some).await {
        Ok(deadline) => *deadline,
        // The handle was dropped without one.
        Err(_) => None,
    };
    if let Some(deadline) = deadline {
        let _ = timeout_at(deadline, std::future::pending::<()>()).await;
    }
}

/// Tells of losses, a line a second at most: a collector that is away must not fill the log.
#[derive(Debug, Default)]
struct Log {
    clock: Clock,
    failures: Limiter,
    losses: Limiter,
    dropped: u64,
}

impl Log {
    fn failure(&self, problem: &str, spans: u64, destination: Destination) {
        if let Some(suppressed) = self.failures.pass(self.clock.now()) {
            let destination = destination.as_str();
            tracing::warn!(destination, spans, problem, suppressed, "spans could not be exported");
        }
    }

    fn losses(&mut self, dropped: u64, destination: Destination) {
        if dropped > self.dropped && self.losses.pass(self.clock.now()).is_some() {
            let (spans, destination) = (dropped - self.dropped, destination.as_str());
            self.dropped = dropped;
            tracing::warn!(destination, spans, "spans were dropped: the queue is full");
        }
    }
}
