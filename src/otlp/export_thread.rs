//! The thread that exports, with a runtime of its own, so that the application's workers do none of the work.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use opentelemetry_sdk::error::OTelSdkError;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use tokio::runtime::Runtime;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::partial_success::take_rejected;
use super::queue::SpanQueue;
use super::sampling::SamplingWatch;
use crate::telemetry::clock::Clock;
use crate::telemetry::log::Limiter;
use crate::telemetry::spans::{Destination, SpanCounters};
use crate::text::Printable;

/// The timing of exports.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timing {
    /// The longest time a span waits for others.
    pub(super) delay: Duration,
    /// The time for a batch, including retries.
    pub(super) timeout: Duration,
}

/// A handle to the thread.
#[derive(Debug)]
pub(super) struct ExportThread {
    queue: Arc<SpanQueue<SpanData>>,
    /// When to drop the remaining spans; `None` before the shutdown.
    deadline: watch::Sender<Option<Instant>>,
    ended: oneshot::Receiver<()>,
    #[cfg_attr(not(test), allow(dead_code, reason = "only tests read it"))]
    sampling: Arc<SamplingWatch>,
}

impl ExportThread {
    /// Starts a thread that runs `runtime`.
    pub(super) fn start(
        runtime: Runtime,
        queue: Arc<SpanQueue<SpanData>>,
        exporter: impl SpanExporter + 'static,
        timing: Timing,
        sampling: Arc<SamplingWatch>,
    ) -> io::Result<Self> {
        let (deadline, deadlines) = watch::channel(None);
        let (ending, ended) = oneshot::channel();
        let watch = Arc::clone(&sampling);
        let run = Run { queue: Arc::clone(&queue), timing, deadlines, log: LossLog::default(), sampling: watch };
        thread::Builder::new().name(format!("poolscope-{}", queue.destination().as_str())).spawn(move || {
            runtime.block_on(run.run(exporter));
            // Does not wait for name resolution that is in progress, for example.
            runtime.shutdown_background();
            // The receiver may be gone.
            let _ = ending.send(());
        })?;
        Ok(Self { queue, deadline, ended, sampling })
    }

    /// Closes the queue. Waiting spans are exported until `deadline`, and then dropped.
    pub(super) fn close(&self, deadline: Instant) {
        self.deadline.send_replace(Some(deadline));
        self.queue.close();
    }

    #[cfg(test)]
    pub(super) fn sampling(&self) -> &SamplingWatch {
        &self.sampling
    }

    #[cfg(test)]
    pub(super) fn accounts(&self) -> Arc<dyn SpanCounters> {
        Arc::clone(&self.queue) as Arc<dyn SpanCounters>
    }

    /// Waits for the thread's end.
    pub(super) async fn ended(&mut self) {
        // An error means that it has ended, too.
        let _ = (&mut self.ended).await;
    }
}

/// The work of the thread.
struct Run {
    queue: Arc<SpanQueue<SpanData>>,
    timing: Timing,
    deadlines: watch::Receiver<Option<Instant>>,
    log: LossLog,
    sampling: Arc<SamplingWatch>,
}

impl Run {
    async fn run(mut self, exporter: impl SpanExporter) {
        loop {
            self.wait().await;
            self.sampling.log();
            loop {
                let batch = self.queue.take_batch();
                if batch.is_empty() {
                    break;
                }
                self.export(&exporter, batch).await;
                let dropped = self.queue.totals().dropped;
                // Spans that are dropped after the close are not logged.
                if !self.queue.is_closed() {
                    self.log.dropped(dropped, self.queue.destination());
                }
                if self.is_past_deadline() || !(self.queue.has_batch() || self.queue.is_closed()) {
                    break;
                }
            }
            if self.queue.is_closed() {
                self.queue.drop_rest();
                return;
            }
        }
    }

    /// Waits for a full batch, the delay, or the close.
    async fn wait(&self) {
        let until = Instant::now() + self.timing.delay;
        while !self.queue.has_batch() && !self.queue.is_closed() {
            tokio::select! {
                () = sleep_until(until) => return,
                () = self.queue.notified() => {}
            }
        }
    }

    async fn export(&mut self, exporter: &impl SpanExporter, batch: Vec<SpanData>) {
        let length = batch.len() as u64;
        take_rejected();
        let exported = tokio::select! {
            exported = timeout(self.timing.timeout, exporter.export(batch)) => match exported {
                Ok(exported) => exported.map_err(|error| match error {
                    OTelSdkError::InternalFailure(reason) => reason,
                    error => error.to_string(),
                }),
                Err(_elapsed) => Err("timeout".to_owned()),
            },
            () = past_deadline(&mut self.deadlines) => Err("the shutdown deadline passed".to_owned()),
        };
        match exported {
            Ok(()) => {
                let rejected = take_rejected().min(length);
                self.queue.settle(length - rejected, rejected);
                if rejected > 0 {
                    self.log.failed("rejected by the collector", rejected, self.queue.destination());
                }
            }
            Err(problem) => {
                self.queue.settle(0, length);
                self.log.failed(&problem, length, self.queue.destination());
            }
        }
    }

    fn is_past_deadline(&self) -> bool {
        self.deadlines.borrow().is_some_and(|deadline| deadline <= Instant::now())
    }
}

/// Waits until there is a deadline and it has passed.
async fn past_deadline(deadlines: &mut watch::Receiver<Option<Instant>>) {
    let deadline = match deadlines.wait_for(Option::is_some).await {
        Ok(deadline) => *deadline,
        // The handle was dropped without a deadline.
        Err(_) => None,
    };
    if let Some(deadline) = deadline {
        let _ = timeout_at(deadline, std::future::pending::<()>()).await;
    }
}

/// Logs lost spans, at most once a second: an unreachable collector must not fill the log.
#[derive(Debug, Default)]
struct LossLog {
    clock: Clock,
    failures: Limiter,
    drops: Limiter,
    dropped: u64,
}

impl LossLog {
    fn failed(&self, problem: &str, spans: u64, destination: Destination) {
        if let Some(suppressed) = self.failures.pass(self.clock.now()) {
            let (destination, problem) = (destination.as_str(), Printable(problem));
            tracing::warn!(destination, spans, %problem, suppressed, "could not export spans");
        }
    }

    fn dropped(&mut self, dropped: u64, destination: Destination) {
        if dropped > self.dropped && self.drops.pass(self.clock.now()).is_some() {
            let (spans, destination) = (dropped - self.dropped, destination.as_str());
            self.dropped = dropped;
            tracing::warn!(destination, spans, "dropped spans because the queue is full");
        }
    }
}
