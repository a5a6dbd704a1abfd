//! A backend whose every answer is scripted, and which knows what really lives.

use std::collections::{BTreeMap, VecDeque};
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::task::{Poll, Waker};
use std::time::Duration;

use deadpool::managed::{Manager, Metrics, RecycleResult};
use poolscope::labels::ErrorCode;
use poolscope::pool::{Backend, ConnectFailure};

/// What the backend says when it is asked to connect or to ping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Ok,
    Error,
    Down,
    Full,
    Panic,
    /// Pending twice, then as said.
    Slow(End),
    /// After this time, by tokio's clock.
    After(Duration, End),
    /// When the test [releases](Scripted::release) it; else never.
    Held,
}

/// How an answer that takes its time ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Ok,
    Error,
    /// With an error that says that the next ones will fail too.
    Down,
    /// With an error that says that there are too many connections.
    Full,
    Panic,
}

impl Answer {
    async fn give(self, held: &Mutex<Vec<Weak<Held>>>) -> Result<(), Failure> {
        let end = match self {
            Self::Ok => End::Ok,
            Self::Error => End::Error,
            Self::Down => End::Down,
            Self::Full => End::Full,
            Self::Panic => End::Panic,
            Self::Slow(end) => {
                for _ in 0..2 {
                    pending_once().await;
                }
                end
            }
            Self::After(time, end) => {
                tokio::time::sleep(time).await;
                end
            }
            Self::Held => {
                let call = Arc::new(Held::default());
                held.lock().unwrap().push(Arc::downgrade(&call));
                call.released().await
            }
        };
        match end {
            End::Ok => Ok(()),
            End::Error => Err(FAILURE),
            End::Down => Err(Failure(ConnectFailure::ServerDown)),
            End::Full => Err(Failure(ConnectFailure::TooManyConnections)),
            // As panic! does, without the hook that writes about it.
            End::Panic => resume_unwind(Box::new("scripted")),
        }
    }
}

/// Not tokio's `yield_now`, which defers the wake-up to the scheduler.
async fn pending_once() {
    let mut polled = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut polled, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// A call that waits for the test.
#[derive(Default)]
struct Held(Mutex<(Option<End>, Option<Waker>)>);

impl Held {
    async fn released(&self) -> End {
        std::future::poll_fn(|cx| {
            let mut state = self.0.lock().unwrap();
            state.1 = Some(cx.waker().clone());
            state.0.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    fn release(&self, end: End) {
        let waker = {
            let mut state = self.0.lock().unwrap();
            state.0 = Some(end);
            state.1.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the scripted failure")]
pub(crate) struct Failure(ConnectFailure);

/// One that says nothing of others.
pub(crate) const FAILURE: Failure = Failure(ConnectFailure::Transient);

/// What one kind of call is answered: first what stands in line, then always the same.
#[derive(Debug)]
struct Plan {
    next: VecDeque<Answer>,
    then: Answer,
}

impl Default for Plan {
    fn default() -> Self {
        Self { next: VecDeque::new(), then: Answer::Ok }
    }
}

impl Plan {
    fn answer(&mut self) -> Answer {
        self.next.pop_front().unwrap_or(self.then)
    }
}

/// What the backend itself counts of one kind of call.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    pub(crate) begun: AtomicUsize,
    pub(crate) running: AtomicUsize,
    pub(crate) failed: AtomicUsize,
    /// Dropped before their end, or ended by a panic.
    pub(crate) abandoned: AtomicUsize,
}

impl Calls {
    pub(crate) fn begun(&self) -> usize {
        self.begun.load(SeqCst)
    }

    pub(crate) fn running(&self) -> usize {
        self.running.load(SeqCst)
    }

    pub(crate) fn failed(&self) -> usize {
        self.failed.load(SeqCst)
    }

    pub(crate) fn abandoned(&self) -> usize {
        self.abandoned.load(SeqCst)
    }

    async fn count(&self, call: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
        struct Running<'a>(&'a Calls, bool);
        impl Drop for Running<'_> {
            fn drop(&mut self) {
                self.0.running.fetch_sub(1, SeqCst);
                self.0.abandoned.fetch_add(usize::from(!self.1), SeqCst);
            }
        }
        self.begun.fetch_add(1, SeqCst);
        self.running.fetch_add(1, SeqCst);
        let mut running = Running(self, false);
        let result = call.await;
        running.1 = true;
        self.failed.fetch_add(usize::from(result.is_err()), SeqCst);
        result
    }
}

#[derive(Default)]
struct Script {
    plans: Mutex<(Plan, Plan)>,
    held: Mutex<Vec<Weak<Held>>>,
    creates: Calls,
    pings: Calls,
    /// Connections begun, and those that are gone.
    opened: AtomicUsize,
    closed: AtomicUsize,
    /// Whether to look at a connection panics.
    blind: AtomicBool,
    /// Of those that live: whether they are broken.
    living: Mutex<BTreeMap<usize, Arc<AtomicBool>>>,
}

impl std::fmt::Debug for Script {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Script").finish_non_exhaustive()
    }
}

/// The backend. Clones are handles to the same script.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scripted(Arc<Script>);

impl Scripted {
    fn plans(&self) -> MutexGuard<'_, (Plan, Plan)> {
        self.0.plans.lock().unwrap()
    }

    /// From now on connecting ends like this.
    pub(crate) fn connects(&self, answer: Answer) {
        self.plans().0.then = answer;
    }

    /// From now on pings end like this.
    pub(crate) fn answers_pings(&self, answer: Answer) {
        self.plans().1.then = answer;
    }

    /// The next attempt to connect that has no answer in line yet ends like this.
    pub(crate) fn next_connect(&self, answer: Answer) {
        self.plans().0.next.push_back(answer);
    }

    /// All that follows is well, whatever was in line.
    pub(crate) fn recovers(&self) {
        *self.plans() = Default::default();
    }

    /// How many calls are held.
    pub(crate) fn held(&self) -> usize {
        let mut held = self.0.held.lock().unwrap();
        held.retain(|call| call.strong_count() > 0);
        held.len()
    }

    /// Lets a held call end.
    pub(crate) fn release(&self, which: usize, end: End) {
        let call = {
            let mut held = self.0.held.lock().unwrap();
            held.retain(|call| call.strong_count() > 0);
            if which < held.len() { held.remove(which).upgrade() } else { None }
        };
        if let Some(call) = call {
            call.release(end);
        }
    }

    pub(crate) fn creates(&self) -> &Calls {
        &self.0.creates
    }

    pub(crate) fn pings(&self) -> &Calls {
        &self.0.pings
    }

    /// Connections begun so far.
    pub(crate) fn opened(&self) -> usize {
        self.0.opened.load(SeqCst)
    }

    /// Connections that really live, those included that are being established.
    pub(crate) fn living(&self) -> usize {
        self.opened() - self.0.closed.load(SeqCst)
    }

    /// Breaks one of the established connections, oldest first; answers whether there is one.
    pub(crate) fn break_one(&self, which: usize) -> bool {
        let living = self.0.living.lock().unwrap();
        living.values().nth(which).is_some_and(|broken| !broken.swap(true, SeqCst))
    }

    /// From now on, or no more, whoever asks whether a connection is broken meets a panic.
    pub(crate) fn panics_when_looked_at(&self, panics: bool) {
        self.0.blind.store(panics, SeqCst);
    }

    fn open(&self) -> Wire {
        Wire { id: self.0.opened.fetch_add(1, SeqCst), script: Arc::clone(&self.0) }
    }
}

/// What really lives, from the first byte to the last.
struct Wire {
    id: usize,
    script: Arc<Script>,
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.script.living.lock().unwrap().remove(&self.id);
        self.script.closed.fetch_add(1, SeqCst);
    }
}

/// A connection.
pub(crate) struct Connection {
    broken: Arc<AtomicBool>,
    wire: Wire,
}

impl Connection {
    pub(crate) fn id(&self) -> usize {
        self.wire.id
    }

    pub(crate) fn break_it(&self) {
        self.broken.store(true, SeqCst);
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Connection").field(&self.id()).finish()
    }
}

impl Manager for Scripted {
    type Type = Connection;
    type Error = Failure;

    async fn create(&self) -> Result<Connection, Failure> {
        let answer = self.plans().0.answer();
        let wire = self.open();
        self.0.creates.count(answer.give(&self.0.held)).await?;
        let broken = Arc::new(AtomicBool::new(false));
        self.0.living.lock().unwrap().insert(wire.id, Arc::clone(&broken));
        Ok(Connection { broken, wire })
    }

    async fn recycle(&self, _: &mut Connection, _: &Metrics) -> RecycleResult<Failure> {
        let answer = self.plans().1.answer();
        Ok(self.0.pings.count(answer.give(&self.0.held)).await?)
    }
}

impl Backend for Scripted {
    fn is_broken(connection: &Connection) -> bool {
        if connection.wire.script.blind.load(SeqCst) {
            resume_unwind(Box::new("scripted"));
        }
        connection.broken.load(SeqCst)
    }

    fn code(_: &Failure) -> ErrorCode {
        ErrorCode::word("57P03")
    }

    fn connect_failure(failure: &Failure) -> ConnectFailure {
        failure.0
    }
}
