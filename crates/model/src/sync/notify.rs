//! Stands for tokio's `Notify`, which loom cannot run: it does what that documents, under a lock.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use super::Mutex;

/// Wakes waiters in the order of their first polls.
#[derive(Debug, Default)]
pub(crate) struct Notify(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// A wake-up for the next that waits.
    permit: bool,
    waiters: Vec<Waiter>,
    next_id: u64,
    /// How often all were woken.
    rounds: u64,
}

#[derive(Debug)]
struct Waiter {
    id: u64,
    waker: Waker,
    woken: Option<Woken>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Woken {
    Alone,
    WithAll,
}

impl State {
    /// Returns the waker of the first that is not woken yet.
    fn wake_one(&mut self) -> Option<Waker> {
        let Some(first) = self.waiters.iter_mut().find(|waiter| waiter.woken.is_none()) else {
            self.permit = true;
            return None;
        };
        first.woken = Some(Woken::Alone);
        Some(first.waker.clone())
    }
}

impl Notify {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn notified(&self) -> Notified<'_> {
        let rounds = self.0.lock().expect("no panic").rounds;
        Notified { notify: self, rounds, id: None }
    }

    pub(crate) fn notify_one(&self) {
        let woken = self.0.lock().expect("no panic").wake_one();
        woken.into_iter().for_each(Waker::wake);
    }

    pub(crate) fn notify_waiters(&self) {
        let mut state = self.0.lock().expect("no panic");
        state.rounds += 1;
        let waiters = state.waiters.iter_mut().filter(|waiter| waiter.woken.is_none());
        let woken: Vec<_> = waiters
            .map(|waiter| {
                waiter.woken = Some(Woken::WithAll);
                waiter.waker.clone()
            })
            .collect();
        drop(state);
        woken.into_iter().for_each(Waker::wake);
    }
}

#[derive(Debug)]
pub(crate) struct Notified<'a> {
    notify: &'a Notify,
    rounds: u64,
    /// As long as it is among the waiters.
    id: Option<u64>,
}

impl Future for Notified<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.notify.0.lock().expect("no panic");
        let Some(id) = self.id else {
            if state.rounds != self.rounds || std::mem::take(&mut state.permit) {
                return Poll::Ready(());
            }
            let id = state.next_id;
            state.next_id += 1;
            state.waiters.push(Waiter { id, waker: cx.waker().clone(), woken: None });
            drop(state);
            self.id = Some(id);
            return Poll::Pending;
        };
        let index = state.waiters.iter().position(|waiter| waiter.id == id).expect("it waits");
        if state.waiters[index].woken.is_none() {
            state.waiters[index].waker = cx.waker().clone();
            return Poll::Pending;
        }
        state.waiters.remove(index);
        drop(state);
        self.id = None;
        Poll::Ready(())
    }
}

impl Drop for Notified<'_> {
    fn drop(&mut self) {
        let Some(id) = self.id else { return };
        let mut state = self.notify.0.lock().expect("no panic");
        let index = state.waiters.iter().position(|waiter| waiter.id == id).expect("it waits");
        let woken = state.waiters.remove(index).woken;
        // Passed on: it was meant for one, and this one does not take it.
        let passed_on = if woken == Some(Woken::Alone) { state.wake_one() } else { None };
        drop(state);
        passed_on.into_iter().for_each(Waker::wake);
    }
}
