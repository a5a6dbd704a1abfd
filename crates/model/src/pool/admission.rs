//! The gate, against checkouts that connect, wait and give up.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use loom::future::block_on;
use loom::sync::Mutex;
use loom::thread;

use crate::check;
use crate::labels::{ConnectFailure, ErrorCode};
use crate::pool::gate::{ConnectPermit, Denied, Gate, RetryAt, wait};
use crate::sync::Instant;
use crate::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use crate::telemetry::ledger::Recorder;

// The gate's waits refer to it, and they are the standard library's futures.
type Shared<T> = std::sync::Arc<T>;

/// Longer than all pauses and leases.
const LONG: Duration = Duration::from_secs(1_000_000);

/// The owner of a gate, with the attempts that are in progress.
#[derive(Debug)]
struct Owner {
    gate: Gate,
    recorder: Recorder,
    attempts: AtomicUsize,
    /// Whether a connection is idle.
    idle: Mutex<bool>,
}

impl AsRef<Gate> for Owner {
    fn as_ref(&self) -> &Gate {
        &self.gate
    }
}

impl Owner {
    /// Returns a gate that is suspended, and whose next attempt is due.
    fn suspended() -> Shared<Self> {
        let gate = Gate::new(8, false, Duration::from_secs(5));
        let (attempts, idle) = (AtomicUsize::new(0), Mutex::new(false));
        let owner = Shared::new(Self { gate, recorder: Recorder::new(4, 8), attempts, idle });
        let error = std::fmt::Error;
        let retry = owner.admit().expect("open").failed(ConnectFailure::ServerDown, ErrorCode, &error, || false);
        assert!(retry.is_some(), "it is suspended");
        Instant::advance(LONG);
        owner
    }

    fn admit(self: &Shared<Self>) -> Result<ConnectPermit<Self>, RetryAt> {
        match Gate::admit(self, &self.recorder, true, || false) {
            Ok(permit) => Ok(permit),
            Err(Denied::RetryAt(retry)) => Err(retry),
            Err(Denied::Unavailable(_)) => unreachable!("it waits"),
        }
    }

    /// Waits for a permit as a checkout does, which tries once more when it has a place in the line.
    async fn permit(self: &Shared<Self>) -> ConnectPermit<Self> {
        let mut place = None;
        loop {
            let retry = match self.admit() {
                Ok(permit) => return permit,
                Err(retry) => retry,
            };
            match &mut place {
                None => {
                    let mut waiting = wait(Shared::clone(self), retry);
                    let woken = poll_fn(|cx| Poll::Ready(waiting.as_mut().poll(cx).is_ready())).await;
                    place = (!woken).then_some(waiting);
                }
                Some(waiting) => {
                    waiting.as_mut().await;
                    place = None;
                }
            }
        }
    }

    /// Attempts to connect beside at most `limit` others, and gives the attempt up.
    fn attempt(self: &Shared<Self>, limit: usize) {
        let permit = block_on(self.permit());
        let others = self.attempts.fetch_add(1, SeqCst);
        assert!(others < limit, "{others} others are connecting");
        self.attempts.fetch_sub(1, SeqCst);
        drop(permit);
    }

    fn attempt_in_thread(self: &Shared<Self>, limit: usize) -> thread::JoinHandle<()> {
        let owner = Shared::clone(self);
        thread::spawn(move || owner.attempt(limit))
    }

    fn take_idle(&self) -> bool {
        std::mem::take(&mut *self.idle.lock().expect("no panic"))
    }
}

/// While connecting is suspended, one checkout probes at a time, and the next does if it gives up.
pub fn one_checkout_probes_at_a_time() {
    check(|| {
        let owner = Owner::suspended();
        let others = [(); 2].map(|()| owner.attempt_in_thread(1));
        owner.attempt(1);
        for other in others {
            other.join().expect("no panic");
        }
        // The permits are whole: the next probes.
        owner.admit().expect("a permit").succeeded();
    });
}

/// After a success, as many checkouts as the limit connect at once, and no permit is lost or doubled.
pub fn limit_of_the_ramp_holds() {
    check(|| {
        let owner = Owner::suspended();
        owner.admit().expect("the probe").succeeded();
        let others = [(); 2].map(|()| owner.attempt_in_thread(2));
        owner.attempt(2);
        for other in others {
            other.join().expect("no panic");
        }
        let first = owner.admit().expect("the first of two");
        let second = owner.admit().expect("the second of two");
        let third = owner.admit();
        assert!(third.is_err(), "a permit was doubled");
        drop((first, second));
    });
}

/// A connection that is returned wakes a checkout that waits at the gate, also if another one gives up meanwhile.
pub fn cancelled_wait_passes_its_wake_up_on() {
    check(|| {
        let owner = Owner::suspended();
        let probe = owner.admit().expect("the probe");
        let retry = owner.admit().expect_err("another one probes");
        let waits = |owner: &Shared<Owner>| wait(Shared::clone(owner), retry);
        // The first in the line, which gives up at some time.
        let mut cancelled = waits(&owner);
        let woken = block_on(poll_fn(|cx| Poll::Ready(cancelled.as_mut().poll(cx).is_ready())));
        assert!(!woken, "nothing was returned");
        let other = {
            let (owner, mut waiting) = (Shared::clone(&owner), waits(&owner));
            thread::spawn(move || {
                let woken = block_on(poll_fn(|cx| Poll::Ready(waiting.as_mut().poll(cx).is_ready())));
                // As a checkout tries once more when it has a place in the line.
                while !owner.take_idle() {
                    if woken {
                        waiting = wait(Shared::clone(&owner), retry);
                    }
                    block_on(waiting.as_mut());
                }
            })
        };
        let returning = {
            let owner = Shared::clone(&owner);
            thread::spawn(move || {
                *owner.idle.lock().expect("no panic") = true;
                owner.gate.wake_one();
            })
        };
        drop(cancelled);
        returning.join().expect("no panic");
        other.join().expect("no panic");
        drop(probe);
    });
}
