//! A scripted backend that counts its own calls and live connections.

use std::collections::{BTreeMap, VecDeque};
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::task::{Poll, Waker};
use std::time::Duration;

use deadpool::managed::{Manager, Metrics, RecycleError, RecycleResult};
use poolscope::labels::{Dirt, ErrorCode};
use poolscope::pool::{Backend, ConnectFailure};

/// How a call to connect, to ping or to reset behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Behavior {
    Ok,
    Error,
    Down,
    Full,
    /// Fails for a shortage on this host.
    Short,
    /// Fails for a wrong configuration.
    Misconfigured,
    Panic,
    /// Pending twice, then completes.
    Slow(Completion),
    /// Completes after this time of tokio's clock.
    After(Duration, Completion),
    /// Pending until the test [releases](ScriptedBackend::release) it.
    Blocked,
}

/// How a delayed call completes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Completion {
    Ok,
    Error,
    /// With an error that predicts the failure of further connects.
    Down,
    /// With an error that reports too many connections.
    Full,
    /// With an error for a shortage on this host.
    Short,
    /// With an error for a wrong configuration.
    Misconfigured,
    Panic,
}

impl Behavior {
    async fn run(self, blocked: &Mutex<Vec<Weak<BlockedCall>>>) -> Result<(), ScriptedError> {
        let end = match self {
            Self::Ok => Completion::Ok,
            Self::Error => Completion::Error,
            Self::Down => Completion::Down,
            Self::Full => Completion::Full,
            Self::Short => Completion::Short,
            Self::Misconfigured => Completion::Misconfigured,
            Self::Panic => Completion::Panic,
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
            Self::Blocked => {
                let call = Arc::new(BlockedCall::default());
                blocked.lock().unwrap().push(Arc::downgrade(&call));
                call.released().await
            }
        };
        match end {
            Completion::Ok => Ok(()),
            Completion::Error => Err(TRANSIENT_ERROR),
            Completion::Down => Err(ScriptedError(ConnectFailure::ServerDown)),
            Completion::Full => Err(ScriptedError(ConnectFailure::TooManyConnections)),
            Completion::Short => Err(ScriptedError(ConnectFailure::LocalResource)),
            Completion::Misconfigured => Err(ScriptedError(ConnectFailure::Configuration)),
            // Like `panic!`, without invoking the panic hook.
            Completion::Panic => resume_unwind(Box::new("scripted")),
        }
    }
}

/// Unlike tokio's `yield_now`, wakes the task at once instead of deferring to the scheduler.
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

/// A call that is pending until the test releases it.
#[derive(Default)]
struct BlockedCall(Mutex<(Option<Completion>, Option<Waker>)>);

impl BlockedCall {
    async fn released(&self) -> Completion {
        std::future::poll_fn(|cx| {
            let mut state = self.0.lock().unwrap();
            state.1 = Some(cx.waker().clone());
            state.0.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    fn release(&self, end: Completion) {
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
pub(crate) struct ScriptedError(ConnectFailure);

/// An error that predicts nothing about further connects.
pub(crate) const TRANSIENT_ERROR: ScriptedError = ScriptedError(ConnectFailure::Transient);

/// The behavior of one kind of call: first that of the queue, then a constant one.
#[derive(Debug)]
struct Plan {
    next: VecDeque<Behavior>,
    then: Behavior,
}

impl Default for Plan {
    fn default() -> Self {
        Self { next: VecDeque::new(), then: Behavior::Ok }
    }
}

impl Plan {
    fn behavior(&mut self) -> Behavior {
        self.next.pop_front().unwrap_or(self.then)
    }
}

/// The backend's own counts of one kind of call.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    pub(crate) started: AtomicUsize,
    pub(crate) running: AtomicUsize,
    pub(crate) failed: AtomicUsize,
    /// Calls that were dropped before they completed, or that panicked.
    pub(crate) abandoned: AtomicUsize,
}

impl Calls {
    pub(crate) fn started(&self) -> usize {
        self.started.load(SeqCst)
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

    async fn count(&self, call: impl Future<Output = Result<(), ScriptedError>>) -> Result<(), ScriptedError> {
        struct Running<'a>(&'a Calls, bool);
        impl Drop for Running<'_> {
            fn drop(&mut self) {
                self.0.running.fetch_sub(1, SeqCst);
                self.0.abandoned.fetch_add(usize::from(!self.1), SeqCst);
            }
        }
        self.started.fetch_add(1, SeqCst);
        self.running.fetch_add(1, SeqCst);
        let mut running = Running(self, false);
        let result = call.await;
        running.1 = true;
        self.failed.fetch_add(usize::from(result.is_err()), SeqCst);
        result
    }
}

#[derive(Default)]
struct State {
    plans: Mutex<(Plan, Plan)>,
    blocked: Mutex<Vec<Weak<BlockedCall>>>,
    creates: Calls,
    pings: Calls,
    resets: Mutex<Plan>,
    /// The behavior of the hook, if there is one.
    hook: Mutex<Option<Plan>>,
    hooks: Calls,
    ends: Mutex<Plan>,
    /// Connections opened, and connections closed.
    opened: AtomicUsize,
    closed: AtomicUsize,
    /// Whether `is_broken` panics.
    panics: AtomicBool,
    /// Whether each live connection is broken, by id.
    established: Mutex<BTreeMap<usize, Arc<AtomicBool>>>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").finish_non_exhaustive()
    }
}

/// A scripted backend. Clones share their state.
#[derive(Clone, Debug, Default)]
pub(crate) struct ScriptedBackend(Arc<State>);

impl ScriptedBackend {
    fn plans(&self) -> MutexGuard<'_, (Plan, Plan)> {
        self.0.plans.lock().unwrap()
    }

    /// Sets the behavior of all further connects.
    pub(crate) fn set_connect(&self, behavior: Behavior) {
        self.plans().0.then = behavior;
    }

    /// Sets the behavior of all further pings.
    pub(crate) fn set_ping(&self, behavior: Behavior) {
        self.plans().1.then = behavior;
    }

    /// Sets the behavior of all further resets.
    pub(crate) fn set_reset(&self, behavior: Behavior) {
        self.0.resets.lock().unwrap().then = behavior;
    }

    /// Sets how the server behaves that executes for connections when they are closed.
    pub(crate) fn set_end(&self, behavior: Behavior) {
        self.0.ends.lock().unwrap().then = behavior;
    }

    /// Sets the behavior of all further calls of the hook `before_checkout`. There is one if this is called before the pool
    /// is created.
    pub(crate) fn set_hook(&self, behavior: Behavior) {
        self.0.hook.lock().unwrap().get_or_insert_default().then = behavior;
    }

    /// Queues a behavior for one call of the hook.
    pub(crate) fn push_hook(&self, behavior: Behavior) {
        self.0.hook.lock().unwrap().get_or_insert_default().next.push_back(behavior);
    }

    /// Queues a behavior for one connect.
    pub(crate) fn push_connect(&self, behavior: Behavior) {
        self.plans().0.next.push_back(behavior);
    }

    /// Clears all queued behavior; further calls succeed.
    pub(crate) fn recover(&self) {
        *self.plans() = Default::default();
        *self.0.ends.lock().unwrap() = Plan::default();
        if let Some(hook) = &mut *self.0.hook.lock().unwrap() {
            *hook = Plan::default();
        }
    }

    /// Returns the number of blocked calls.
    pub(crate) fn blocked(&self) -> usize {
        let mut blocked = self.0.blocked.lock().unwrap();
        blocked.retain(|call| call.strong_count() > 0);
        blocked.len()
    }

    /// Completes a blocked call.
    pub(crate) fn release(&self, which: usize, end: Completion) {
        let call = {
            let mut blocked = self.0.blocked.lock().unwrap();
            blocked.retain(|call| call.strong_count() > 0);
            if which < blocked.len() { blocked.remove(which).upgrade() } else { None }
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

    pub(crate) fn hooks(&self) -> &Calls {
        &self.0.hooks
    }

    /// Returns the number of connections opened so far.
    pub(crate) fn opened(&self) -> usize {
        self.0.opened.load(SeqCst)
    }

    /// Returns the number of live connections, including those being established.
    pub(crate) fn live(&self) -> usize {
        self.opened() - self.0.closed.load(SeqCst)
    }

    /// Breaks an established connection, counted from the oldest. Returns false if there is none.
    pub(crate) fn break_connection(&self, which: usize) -> bool {
        let established = self.0.established.lock().unwrap();
        established.values().nth(which).is_some_and(|broken| !broken.swap(true, SeqCst))
    }

    /// Sets whether `is_broken` panics.
    pub(crate) fn panic_in_is_broken(&self, panics: bool) {
        self.0.panics.store(panics, SeqCst);
    }

    fn open(&self) -> Socket {
        Socket { id: self.0.opened.fetch_add(1, SeqCst), state: Arc::clone(&self.0) }
    }
}

/// A connection's socket: counts as live while it exists.
struct Socket {
    id: usize,
    state: Arc<State>,
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.state.established.lock().unwrap().remove(&self.id);
        self.state.closed.fetch_add(1, SeqCst);
    }
}

/// An established connection.
pub(crate) struct Connection {
    broken: Arc<AtomicBool>,
    executing: AtomicBool,
    socket: Arc<Socket>,
}

impl Connection {
    pub(crate) fn id(&self) -> usize {
        self.socket.id
    }

    /// Has the server execute beyond the end of the connection.
    pub(crate) fn mark_executing(&self) {
        self.executing.store(true, SeqCst);
    }

    pub(crate) fn mark_broken(&self) {
        self.broken.store(true, SeqCst);
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Connection").field(&self.id()).finish()
    }
}

impl Manager for ScriptedBackend {
    type Type = Connection;
    type Error = ScriptedError;

    async fn create(&self) -> Result<Connection, ScriptedError> {
        let behavior = self.plans().0.behavior();
        let socket = self.open();
        self.0.creates.count(behavior.run(&self.0.blocked)).await?;
        let broken = Arc::new(AtomicBool::new(false));
        self.0.established.lock().unwrap().insert(socket.id, Arc::clone(&broken));
        Ok(Connection { broken, executing: AtomicBool::new(false), socket: Arc::new(socket) })
    }

    async fn recycle(&self, _: &mut Connection, _: &Metrics) -> RecycleResult<ScriptedError> {
        let behavior = self.plans().1.behavior();
        Ok(self.0.pings.count(behavior.run(&self.0.blocked)).await?)
    }
}

impl Backend for ScriptedBackend {
    fn is_broken(connection: &Connection) -> bool {
        if connection.socket.state.panics.load(SeqCst) {
            resume_unwind(Box::new("scripted"));
        }
        connection.broken.load(SeqCst)
    }

    fn code(_: &ScriptedError) -> ErrorCode {
        ErrorCode::new("57P03")
    }

    fn connect_failure(failure: &ScriptedError) -> ConnectFailure {
        failure.0
    }

    fn has_before_checkout(&self) -> bool {
        self.0.hook.lock().unwrap().is_some()
    }

    async fn before_checkout(&self, _: &mut Connection) -> Result<(), ScriptedError> {
        let behavior = self.0.hook.lock().unwrap().get_or_insert_default().behavior();
        self.0.hooks.count(behavior.run(&self.0.blocked)).await
    }

    fn may_outlive_drop(connection: &Connection, _: bool) -> bool {
        connection.executing.load(SeqCst)
    }

    fn end(&self, connection: &Connection) -> impl Future<Output = ()> + Send + 'static + use<> {
        let behavior = self.0.ends.lock().unwrap().behavior();
        let (state, socket) = (Arc::clone(&self.0), Arc::clone(&connection.socket));
        async move {
            let _ = behavior.run(&state.blocked).await;
            drop(socket);
        }
    }

    async fn reset(&self, _: &mut Connection) -> Result<Vec<Dirt>, RecycleError<ScriptedError>> {
        let behavior = self.0.resets.lock().unwrap().behavior();
        behavior.run(&self.0.blocked).await?;
        Ok(Vec::new())
    }
}
