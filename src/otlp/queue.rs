//! Spans that wait to be exported, and the account of what became of each.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::telemetry::spans::{Accounts, Destination, SpanTotals, join};

/// A bounded queue of spans.
///
/// Whoever ends a span never waits for more than a move: what does not fit is dropped and counted. One lock covers
/// queue and counts, so that they add up whenever they are read.
#[derive(Debug)]
pub(super) struct Queue<T> {
    destination: Destination,
    capacity: usize,
    batch: usize,
    state: Mutex<State<T>>,
    /// Somebody should look: there is a batch, or the end has come.
    wake: Notify,
}

#[derive(Debug)]
struct State<T> {
    spans: VecDeque<T>,
    /// Taken from the queue, and not known yet to have arrived.
    under_way: u64,
    totals: SpanTotals,
    is_closed: bool,
}

impl<T: Send + 'static> Queue<T> {
    /// A queue of `capacity` spans that are taken `batch` at a time. Its accounts are the process's from now on.
    pub(super) fn new(destination: Destination, capacity: usize, batch: usize) -> Arc<Self> {
        let totals = SpanTotals::default();
        let state = State { spans: VecDeque::new(), under_way: 0, totals, is_closed: false };
        let queue = Arc::new(Self { destination, capacity, batch, state: Mutex::new(state), wake: Notify::new() });
        join(Arc::clone(&queue) as Arc<dyn Accounts>);
        queue
    }

    /// Takes a span that ended, or drops it.
    pub(super) fn push(&self, span: T) {
        let mut state = self.state();
        state.totals.ended += 1;
        if state.is_closed || state.spans.len() >= self.capacity {
            state.totals.dropped += 1;
            drop(state);
            // The span's own memory is given back outside the lock.
            drop(span);
            return;
        }
        state.spans.push_back(span);
        let is_batch = state.spans.len() == self.batch;
        drop(state);
        if is_batch {
            self.wake.notify_one();
        }
    }

    /// The oldest spans, a batch at most. Each batch is to be [settled](Self::settle).
    pub(super) fn take(&self) -> Vec<T> {
        let mut state = self.state();
        let length = state.spans.len().min(self.batch);
        let batch: Vec<_> = state.spans.drain(..length).collect();
        state.under_way += batch.len() as u64;
        batch
    }

    /// What became of spans that were taken.
    pub(super) fn settle(&self, exported: u64, failed: u64) {
        let mut state = self.state();
        state.under_way -= exported + failed;
        state.totals.exported += exported;
        state.totals.failed += failed;
    }

    /// Takes no more spans, and has what waits exported.
    pub(super) fn close(&self) {
        self.state().is_closed = true;
        self.wake.notify_one();
    }

    /// Gives up what still waits.
    pub(super) fn drop_rest(&self) {
        let mut state = self.state();
        state.is_closed = true;
        let rest = std::mem::take(&mut state.spans);
        state.totals.dropped += rest.len() as u64;
        drop(state);
        drop(rest);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state().is_closed
    }

    /// Whether a whole batch waits.
    pub(super) fn has_batch(&self) -> bool {
        self.state().spans.len() >= self.batch
    }

    /// Waits until somebody should look.
    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }
}

impl<T> Queue<T> {
    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Send> Accounts for Queue<T> {
    fn destination(&self) -> Destination {
        self.destination
    }

    fn totals(&self) -> SpanTotals {
        let state = self.state();
        SpanTotals { queued: state.spans.len() as u64 + state.under_way, ..state.totals }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::thread;

    use super::*;

    fn adds_up(totals: SpanTotals) -> bool {
        totals.ended == totals.queued + totals.exported + totals.dropped + totals.failed
    }

    #[test]
    fn what_does_not_fit_is_dropped_and_counted() {
        let queue = Queue::new(Destination::Otlp, 3, 2);
        (0..5).for_each(|span| queue.push(span));
        assert_eq!(queue.totals(), SpanTotals { ended: 5, queued: 3, dropped: 2, ..SpanTotals::default() });
        assert_eq!(queue.take(), [0, 1]);
        assert_eq!(queue.totals().queued, 3);
        queue.settle(1, 1);
        queue.close();
        queue.push(9);
        queue.drop_rest();
        assert_eq!(queue.totals(), SpanTotals { ended: 6, queued: 0, exported: 1, dropped: 4, failed: 1 });
    }

    #[test]
    fn the_accounts_add_up_whenever_they_are_read() {
        let queue = Queue::new(Destination::Otlp, 64, 16);
        thread::scope(|scope| {
            let pushers: Vec<_> =
                (0..3).map(|_| scope.spawn(|| (0..20_000).for_each(|span| queue.push(span)))).collect();
            scope.spawn(|| {
                while !(queue.is_closed() && queue.totals().queued == 0) {
                    let length = queue.take().len() as u64;
                    queue.settle(length / 2, length - length / 2);
                }
            });
            let mut before = SpanTotals::default();
            while !pushers.iter().all(|pusher| pusher.is_finished()) {
                let totals = queue.totals();
                assert!(adds_up(totals) && totals.ended >= before.ended, "{totals:?}");
                assert!(totals.queued <= 64 + 16, "{totals:?}");
                before = totals;
            }
            queue.close();
        });
        let totals = queue.totals();
        assert!(adds_up(totals) && totals.ended == 60_000 && totals.queued == 0, "{totals:?}");
        assert!(totals.exported > 0 && totals.failed > 0, "{totals:?}");
    }
}
