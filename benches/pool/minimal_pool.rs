//! The least that a pool can do to know who holds and who waits: it reads the clock when a checkout begins, when it is
//! served after a wait, and at the return; it keeps the waiting checkouts in a list, and writes of each connection who
//! holds it, since when, and for how long it was used. What it costs is the lower bound for [`Poolscope`].
//!
//! It has no histograms, operations, queue order, surplus, gate, reset, self-deadlock check, reports or snapshot.
//!
//! [`Poolscope`]: crate::pools::Poolscope

use std::cell::Cell;
use std::ops::Deref;
use std::panic::Location;
use std::pin::Pin;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use deadpool::managed::{Manager, Metrics, Object, Pool, PoolError, RecycleResult};
use pin_project_lite::pin_project;

use crate::BoxError;
use crate::pools::{BenchPool, deadpool_with_timeouts, deadpool_without_timeouts};

/// The lists of waiting checkouts. Each thread has one of its own, as far as they suffice.
const SHARDS: usize = 8;

/// A list of waiting checkouts, and the sum of the waits that have ended.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard(Mutex<Waits>);

#[derive(Debug, Default)]
struct Waits {
    /// Where and since when each waits; those without a place are vacant.
    waiting: Vec<Option<(&'static Location<'static>, u64)>>,
    vacant: Vec<usize>,
    ended: u64,
    nanos: u64,
}

#[derive(Debug, Default)]
struct Accounts {
    clock: quanta::Clock,
    shards: [Shard; SHARDS],
}

impl Accounts {
    /// Returns the number of the list of this thread.
    fn shard() -> usize {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static SHARD: Cell<Option<usize>> = const { Cell::new(None) };
        }
        SHARD.get().unwrap_or_else(|| {
            let shard = NEXT.fetch_add(1, Relaxed) % SHARDS;
            SHARD.set(Some(shard));
            shard
        })
    }

    fn waits(&self, shard: usize) -> MutexGuard<'_, Waits> {
        self.shards[shard].0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cold]
    fn begin_wait(&self, call_site: &'static Location<'static>, started: u64) -> Ticket {
        let shard = Self::shard();
        let mut waits = self.waits(shard);
        let entry = Some((call_site, started));
        let index = if let Some(index) = waits.vacant.pop() {
            waits.waiting[index] = entry;
            index
        } else {
            waits.waiting.push(entry);
            waits.waiting.len() - 1
        };
        Ticket { shard, index }
    }

    #[cold]
    fn end_wait(&self, ticket: Ticket, started: u64, at: u64) {
        let mut waits = self.waits(ticket.shard);
        waits.waiting[ticket.index] = None;
        waits.vacant.push(ticket.index);
        waits.ended += 1;
        waits.nanos += self.clock.delta_as_nanos(started, at);
    }
}

/// The place of a waiting checkout in its list.
#[derive(Clone, Copy, Debug)]
struct Ticket {
    shard: usize,
    index: usize,
}

/// A connection, and who uses it. Written by its holder alone.
pub(crate) struct Held<T> {
    connection: T,
    holder: AtomicPtr<Location<'static>>,
    since: AtomicU64,
    uses: AtomicU64,
    nanos: AtomicU64,
}

/// Makes the connections of another manager, each with its record.
struct Accounted<M>(M);

impl<M: Manager<Type: Send + Sync>> Manager for Accounted<M> {
    type Type = Held<M::Type>;
    type Error = M::Error;

    async fn create(&self) -> Result<Self::Type, M::Error> {
        let connection = self.0.create().await?;
        let (since, uses, nanos) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
        Ok(Held { connection, holder: AtomicPtr::default(), since, uses, nanos })
    }

    #[inline]
    fn recycle(
        &self,
        held: &mut Self::Type,
        metrics: &Metrics,
    ) -> impl Future<Output = RecycleResult<M::Error>> + Send {
        self.0.recycle(&mut held.connection, metrics)
    }
}

/// deadpool with this accounting.
pub(crate) struct MinimalPool<M: Manager<Type: Send + Sync>> {
    pool: Pool<Accounted<M>>,
    accounts: Arc<Accounts>,
}

impl<M: Manager<Type: Send + Sync>> Clone for MinimalPool<M> {
    fn clone(&self) -> Self {
        Self { pool: self.pool.clone(), accounts: Arc::clone(&self.accounts) }
    }
}

impl<M: Manager<Type: Send + Sync>> MinimalPool<M> {
    /// With the default timeouts of Poolscope.
    pub(crate) fn with_timeouts(manager: M) -> Result<Self, BoxError> {
        let pool = deadpool_with_timeouts(Accounted(manager), false)?;
        Ok(Self { pool, accounts: Arc::default() })
    }

    /// Without timeouts.
    pub(crate) fn without_timeouts(manager: M) -> Result<Self, BoxError> {
        let pool = deadpool_without_timeouts(Accounted(manager))?;
        Ok(Self { pool, accounts: Arc::default() })
    }
}

impl<M> BenchPool<M::Type> for MinimalPool<M>
where
    M: Manager<Type: Send + Sync, Error: std::fmt::Debug> + 'static,
{
    type Guard = MinimalGuard<M>;
    type Error = PoolError<M::Error>;

    #[track_caller]
    #[inline]
    fn checkout(&self) -> impl Future<Output = Result<Self::Guard, Self::Error>> + Send {
        let call_site = Location::caller();
        Checkout { inner: self.pool.get(), accounts: &self.accounts, call_site, started: 0, ticket: None }
    }
}

pin_project! {
    struct Checkout<'a, F> {
        #[pin]
        inner: F,
        accounts: &'a Arc<Accounts>,
        call_site: &'static Location<'static>,
        // Zero before the first poll.
        started: u64,
        ticket: Option<Ticket>,
    }

    impl<F> PinnedDrop for Checkout<'_, F> {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            if let Some(ticket) = this.ticket.take() {
                this.accounts.end_wait(ticket, *this.started, this.accounts.clock.raw());
            }
        }
    }
}

impl<M, F> Future for Checkout<'_, F>
where
    M: Manager<Type: Send + Sync>,
    F: Future<Output = Result<Object<Accounted<M>>, PoolError<M::Error>>>,
{
    type Output = Result<MinimalGuard<M>, PoolError<M::Error>>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if *this.started == 0 {
            *this.started = this.accounts.clock.raw();
        }
        let polled = this.inner.poll(cx);
        if polled.is_pending() && this.ticket.is_none() {
            *this.ticket = Some(this.accounts.begin_wait(this.call_site, *this.started));
        }
        let object = ready!(polled)?;
        let mut at = *this.started;
        if let Some(ticket) = this.ticket.take() {
            at = this.accounts.clock.raw();
            this.accounts.end_wait(ticket, *this.started, at);
        }
        object.holder.store(std::ptr::from_ref(*this.call_site).cast_mut(), Relaxed);
        object.since.store(at, Relaxed);
        Poll::Ready(Ok(MinimalGuard { object, accounts: Arc::clone(this.accounts) }))
    }
}

/// A connection from a [`MinimalPool`].
pub(crate) struct MinimalGuard<M: Manager<Type: Send + Sync>> {
    object: Object<Accounted<M>>,
    accounts: Arc<Accounts>,
}

impl<M: Manager<Type: Send + Sync>> Deref for MinimalGuard<M> {
    type Target = M::Type;

    fn deref(&self) -> &M::Type {
        &self.object.connection
    }
}

impl<M: Manager<Type: Send + Sync>> Drop for MinimalGuard<M> {
    #[inline]
    fn drop(&mut self) {
        let (held, clock) = (&*self.object, &self.accounts.clock);
        let used = clock.delta_as_nanos(held.since.load(Relaxed), clock.raw());
        held.uses.store(held.uses.load(Relaxed) + 1, Relaxed);
        held.nanos.store(held.nanos.load(Relaxed) + used, Relaxed);
        held.holder.store(std::ptr::null_mut(), Relaxed);
    }
}
