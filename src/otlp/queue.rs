//! A queue of spans to export, which counts the outcome of each.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::telemetry::spans::{Destination, SpanCounters, SpanTotals, register};

/// A bounded queue of spans.
///
/// Ending a span never blocks for longer than a move takes: spans that do not fit are dropped and counted. One lock
/// covers the queue and the counts, so that they are consistent whenever they are read.
#[derive(Debug)]
pub(super) struct SpanQueue<T> {
    destination: Destination,
    capacity: usize,
    batch_size: usize,
    state: Mutex<State<T>>,
    /// Notified of a full batch, and of the close.
    changed: Notify,
}

#[derive(Debug)]
struct State<T> {
    spans: VecDeque<T>,
    /// The number of spans that are being exported.
    exporting: u64,
    totals: SpanTotals,
    is_closed: bool,
}

impl<T: Send + 'static> SpanQueue<T> {
    /// Creates a queue of `capacity` spans, which are taken `batch_size` at a time. The metrics of the process include its
    /// counts from now on.
    pub(super) fn new(destination: Destination, capacity: usize, batch_size: usize) -> Arc<Self> {
        let totals = SpanTotals::default();
        let state = State { spans: VecDeque::new(), exporting: 0, totals, is_closed: false };
        let queue =
            Arc::new(Self { destination, capacity, batch_size, state: Mutex::new(state), changed: Notify::new() });
        register(Arc::clone(&queue) as Arc<dyn SpanCounters>);
        queue
    }

    /// Adds a span, or drops it if the queue is full or closed.
    pub(super) fn push(&self, span: T) {
        let mut state = self.state();
        state.totals.ended += 1;
        if state.is_closed || state.spans.len() >= self.capacity {
            state.totals.dropped += 1;
            drop(state);
            // The span is freed outside the lock.
            drop(span);
            return;
        }
        state.spans.push_back(span);
        let is_full_batch = state.spans.len() == self.batch_size;
        drop(state);
        if is_full_batch {
            self.changed.notify_one();
        }
    }

    /// Removes the oldest spans, at most a batch. The caller must [settle](Self::settle) each batch.
    pub(super) fn take_batch(&self) -> Vec<T> {
        let mut state = self.state();
        let length = state.spans.len().min(self.batch_size);
        let batch: Vec<_> = state.spans.drain(..length).collect();
        state.exporting += batch.len() as u64;
        batch
    }

    /// Records the outcome of spans that were taken.
    pub(super) fn settle(&self, exported: u64, failed: u64) {
        let mut state = self.state();
        state.exporting -= exported + failed;
        state.totals.exported += exported;
        state.totals.failed += failed;
    }

    /// Closes the queue: further spans are dropped, and waiting ones are exported.
    pub(super) fn close(&self) {
        self.state().is_closed = true;
        self.changed.notify_one();
    }

    /// Closes the queue, and drops the waiting spans.
    pub(super) fn drop_rest(&self) {
        let mut state = self.state();
        state.is_closed = true;
        let rest = std::mem::take(&mut state.spans);
        state.totals.dropped += rest.len() as u64;
        drop(state);
        drop(rest);
    }

    /// Returns whether the queue is closed.
    pub(super) fn is_closed(&self) -> bool {
        self.state().is_closed
    }

    /// Returns whether a full batch is waiting.
    pub(super) fn has_batch(&self) -> bool {
        self.state().spans.len() >= self.batch_size
    }

    /// Waits for a full batch, or the close.
    pub(super) async fn notified(&self) {
        self.changed.notified().await;
    }
}

impl<T> SpanQueue<T> {
    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Send> SpanCounters for SpanQueue<T> {
    fn destination(&self) -> Destination {
        self.destination
    }

    fn totals(&self) -> SpanTotals {
        let state = self.state();
        SpanTotals { queued: state.spans.len() as u64 + state.exporting, ..state.totals }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::thread;

    use super::*;

    fn is_consistent(totals: SpanTotals) -> bool {
        totals.ended == totals.queued + totals.exported + totals.dropped + totals.failed
    }

    #[test]
    fn spans_over_capacity_are_dropped_and_counted() {
        let queue = SpanQueue::new(Destination::Otlp, 3, 2);
        (0..5).for_each(|span| queue.push(span));
        assert_eq!(queue.totals(), SpanTotals { ended: 5, queued: 3, dropped: 2, ..SpanTotals::default() });
        assert_eq!(queue.take_batch(), [0, 1]);
        assert_eq!(queue.totals().queued, 3);
        queue.settle(1, 1);
        queue.close();
        queue.push(9);
        queue.drop_rest();
        assert_eq!(queue.totals(), SpanTotals { ended: 6, queued: 0, exported: 1, dropped: 4, failed: 1 });
    }

    #[test]
    fn counts_are_consistent_at_all_times() {
        let queue = SpanQueue::new(Destination::Otlp, 64, 16);
        thread::scope(|scope| {
            let pushers: Vec<_> =
                (0..3).map(|_| scope.spawn(|| (0..20_000).for_each(|span| queue.push(span)))).collect();
            scope.spawn(|| {
                while !(queue.is_closed() && queue.totals().queued == 0) {
                    let length = queue.take_batch().len() as u64;
                    queue.settle(length / 2, length - length / 2);
                }
            });
            let mut before = SpanTotals::default();
            while !pushers.iter().all(|pusher| pusher.is_finished()) {
                let totals = queue.totals();
                assert!(is_consistent(totals) && totals.ended >= before.ended, "{totals:?}");
                assert!(totals.queued <= 64 + 16, "{totals:?}");
                before = totals;
            }
            queue.close();
        });
        let totals = queue.totals();
        assert!(is_consistent(totals) && totals.ended == 60_000 && totals.queued == 0, "{totals:?}");
        assert!(totals.exported > 0 && totals.failed > 0, "{totals:?}");
    }
}
