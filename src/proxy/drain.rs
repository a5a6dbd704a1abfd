//! The sessions of a proxy, and their end at its shutdown.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use tokio::sync::watch;
use tokio::task::unconstrained;
use tokio::time::Instant;

/// The open client connections, and whether they are to end.
#[derive(Debug)]
pub(super) struct Sessions {
    /// The deadline of the shutdown, once it has begun.
    drain: watch::Sender<Option<Instant>>,
    /// Whether it has begun: cheaper to read than `drain`.
    is_draining: AtomicBool,
    /// All open client connections.
    open: AtomicUsize,
    /// Those that have sent a start-up message and were not refused for their number.
    admitted: AtomicUsize,
    /// The limit of `admitted`; zero for none.
    max: usize,
}

/// Connections beyond the limit that may be open, to be refused with PostgreSQL's error or to cancel a query.
const MAX_REFUSED: usize = 100;

/// A client connection that is open.
#[derive(Debug)]
pub(super) struct Open(Arc<Sessions>);

/// A client connection that counts against the limit.
#[derive(Debug)]
pub(super) struct Admitted(Arc<Sessions>);

impl Sessions {
    pub(super) fn new(max: usize) -> Self {
        Self {
            drain: watch::Sender::new(None),
            is_draining: AtomicBool::new(false),
            open: AtomicUsize::new(0),
            admitted: AtomicUsize::new(0),
            max,
        }
    }

    /// Counts a connection as open, unless there are so many that it is not even worth an error.
    pub(super) fn open(self: &Arc<Self>) -> Option<Open> {
        let open = self.open.fetch_add(1, SeqCst);
        let opened = Open(Arc::clone(self));
        (self.max == 0 || open < self.max.saturating_add(MAX_REFUSED)).then_some(opened)
    }

    /// Admits a connection, unless as many are as may be.
    pub(super) fn admit(self: &Arc<Self>) -> Option<Admitted> {
        let admitted = self.admitted.fetch_add(1, SeqCst);
        let guard = Admitted(Arc::clone(self));
        (self.max == 0 || admitted < self.max).then_some(guard)
    }

    /// Returns the receiver of the shutdown's deadline.
    pub(super) fn subscribe(&self) -> watch::Receiver<Option<Instant>> {
        self.drain.subscribe()
    }

    /// Ends the sessions, at the latest at `deadline`.
    pub(super) fn drain(&self, deadline: Instant) {
        // Before the sessions are woken, which read it then.
        self.is_draining.store(true, SeqCst);
        self.drain.send_replace(Some(deadline));
    }

    /// Returns whether the shutdown has begun.
    pub(super) fn is_draining(&self) -> bool {
        self.is_draining.load(SeqCst)
    }

    /// Waits until no connection is open, once the shutdown has begun.
    pub(super) async fn closed(&self) {
        let mut changes = self.drain.subscribe();
        while self.open.load(SeqCst) > 0 {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }
}

/// Returns the deadline once the shutdown has begun. The first poll registers the waker, also that of a task which has used
/// up its cooperative budget.
pub(super) async fn draining(shutdown: &mut watch::Receiver<Option<Instant>>) -> Instant {
    match unconstrained(shutdown.wait_for(Option::is_some)).await.map(|deadline| *deadline) {
        Ok(Some(deadline)) => deadline,
        // The proxy exists as long as its sessions.
        _ => std::future::pending().await,
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        // Otherwise sessions, which poll their receivers only once before, would miss the shutdown.
        if self.0.open.fetch_sub(1, SeqCst) == 1 && self.0.is_draining() {
            // Wakes the shutdown, which waits for the last one.
            self.0.drain.send_modify(|_| {});
        }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.0.admitted.fetch_sub(1, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::atomic::AtomicBool;
    use std::task::{Context, Wake, Waker};

    use tokio::task::consume_budget;

    use super::*;

    #[derive(Debug, Default)]
    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, SeqCst);
        }
    }

    #[tokio::test]
    async fn session_without_budget_is_woken() {
        let sessions = Sessions::new(0);
        let mut shutdown = sessions.subscribe();
        let mut draining = pin!(draining(&mut shutdown));
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut context = Context::from_waker(&waker);
        while pin!(consume_budget()).poll(&mut context).is_ready() {}
        assert!(draining.as_mut().poll(&mut context).is_pending());
        sessions.drain(Instant::now());
        assert!(woken.0.load(SeqCst));
        assert!(draining.as_mut().poll(&mut context).is_ready());
    }
}
