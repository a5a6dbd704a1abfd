//! The cancel requests of a connection's holder, which end with the hold.
//!
//! A request cancels whatever the server executes when it arrives there. After the hold that would be the query of the
//! next holder: a token is therefore valid for one hold only, and a return waits for the requests that are under way.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::telemetry::connection::ConnectionStats;

/// The cancel requests of one connection's holders.
#[derive(Debug, Default)]
pub(crate) struct HolderCancels {
    state: Mutex<CancelState>,
    /// Notified when no request is under way any more.
    ended: Notify,
    /// Where the pool finds at the return that tokens exist. `None` outside the pool, where a hold does not end.
    stats: Option<Arc<ConnectionStats>>,
}

#[derive(Debug, Default)]
struct CancelState {
    /// The number of holds with tokens that have ended.
    hold: u64,
    under_way: usize,
    /// Whether a request may have reached the server whose end is unknown, so that it may take effect at any time.
    uncertain: bool,
}

/// Identifies the hold that a token belongs to.
#[derive(Clone, Debug)]
pub(crate) struct CancelHold {
    cancels: Arc<HolderCancels>,
    hold: u64,
}

/// A cancel request that is under way. Dropping it means that its end is unknown.
#[derive(Debug)]
pub(crate) struct CancelUnderWay {
    cancels: Arc<HolderCancels>,
    certain: bool,
}

impl HolderCancels {
    /// Returns the requests of a pooled connection's holders.
    pub(in crate::pool) fn of_pooled(stats: Arc<ConnectionStats>) -> Self {
        Self { stats: Some(stats), ..Self::default() }
    }

    fn state(&self) -> MutexGuard<'_, CancelState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the current hold, for a token.
    pub(in crate::pool) fn current(self: &Arc<Self>) -> CancelHold {
        if let Some(stats) = &self.stats {
            stats.set_cancellable(true);
        }
        CancelHold { cancels: Arc::clone(self), hold: self.state().hold }
    }

    /// Ends the current hold. Returns whether a request of it may still take effect.
    pub(super) fn end_hold(&self) -> bool {
        let mut state = self.state();
        state.hold += 1;
        state.under_way > 0 || state.uncertain
    }

    /// Ends the hold of the code that prepares a new connection, and waits until none of its requests is under way.
    /// Returns whether none of them can take effect any more. Has no effect outside the pool.
    pub(in crate::pool) async fn end_first_hold(&self) -> bool {
        let is_cancellable = self.stats.as_ref().is_some_and(|stats| stats.set_cancellable(false));
        !is_cancellable || !self.end_hold() || self.settled().await
    }

    /// Waits until no request is under way. Returns whether none of them can take effect any more.
    pub(super) async fn settled(&self) -> bool {
        loop {
            let ended = self.ended.notified();
            {
                let state = self.state();
                if state.under_way == 0 {
                    return !state.uncertain;
                }
            }
            ended.await;
        }
    }
}

impl CancelHold {
    /// Begins a request. Returns `None` if the hold has ended.
    pub(in crate::pool) fn begin(&self) -> Option<CancelUnderWay> {
        let mut state = self.cancels.state();
        let is_current = state.hold == self.hold;
        is_current.then(|| {
            state.under_way += 1;
            CancelUnderWay { cancels: Arc::clone(&self.cancels), certain: false }
        })
    }
}

impl CancelUnderWay {
    /// Ends the request; `certain` is whether it cannot take effect any more.
    pub(in crate::pool) fn end(mut self, certain: bool) {
        self.certain = certain;
    }
}

impl Drop for CancelUnderWay {
    fn drop(&mut self) {
        let mut state = self.cancels.state();
        state.under_way -= 1;
        state.uncertain |= !self.certain;
        let over = state.under_way == 0;
        drop(state);
        if over {
            self.cancels.ended.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_is_valid_for_one_hold() {
        let cancels = Arc::new(HolderCancels::default());
        let first = cancels.current();
        first.begin().unwrap().end(true);
        assert!(!cancels.end_hold());
        assert!(first.begin().is_none() && first.clone().begin().is_none());
        assert!(cancels.current().begin().is_some());
    }

    #[tokio::test]
    async fn end_of_the_last_request_settles_a_hold() {
        let cancels = Arc::new(HolderCancels::default());
        let hold = cancels.current();
        let requests = [hold.begin().unwrap(), hold.begin().unwrap()];
        assert!(cancels.end_hold());
        let waiting = tokio::spawn({
            let cancels = Arc::clone(&cancels);
            async move { cancels.settled().await }
        });
        for request in requests {
            tokio::task::yield_now().await;
            assert!(!waiting.is_finished());
            request.end(true);
        }
        assert!(waiting.await.unwrap());
    }

    #[tokio::test]
    async fn dropped_request_may_still_take_effect() {
        let cancels = Arc::new(HolderCancels::default());
        drop(cancels.current().begin());
        assert!(cancels.end_hold());
        assert!(!cancels.settled().await);
    }
}
