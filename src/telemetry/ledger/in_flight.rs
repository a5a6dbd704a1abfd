//! Checkouts in flight, and what the threads count that begin and end them.
//!
//! A checkout that begins to wait takes an [`Entry`], whose key is its [`Ticket`]. The entry is written by the checkout's
//! own task, and by readers that find it waiting for itself; always under the lock of a shard (see
//! [`shards`](super::shards)), which makes one see what the other has written.

use std::cell::Cell;
use std::num::NonZeroUsize;
use std::panic::Location;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread::available_parallelism;

use super::shards::{MAX_SHARDS, Sharded};
use super::state::WaitTotals;
use crate::labels::{Outcome, Phase, PoolKind};
use crate::telemetry::clock::Nanos;
use crate::telemetry::histogram::Histogram;
use crate::telemetry::operations::{OperationId, Operations, SiteId};
use crate::telemetry::requests::RouteKey;
use crate::telemetry::trace::{CheckoutSpan, SampledSpan};

/// Identifies a checkout in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket(NonZeroUsize);

impl Ticket {
    /// Stores the key plus one, so that an `Option<Ticket>` needs no extra space.
    pub(super) fn new(key: usize) -> Self {
        Self(NonZeroUsize::MIN.saturating_add(key))
    }

    pub(super) fn key(self) -> usize {
        self.0.get() - 1
    }
}

/// A checkout that could not be served at its first poll.
#[derive(Clone, Copy, Debug)]
pub(super) struct InFlight {
    pub(super) operation: OperationId,
    pub(super) site: SiteId,
    pub(super) started: Nanos,
    pub(super) phase: Phase,
    pub(super) phase_since: Nanos,
    /// The waiting task; zero if there is none.
    pub(super) task: u64,
    /// The request that it is for, if it is known.
    pub(super) request: Option<RouteKey>,
    /// The operation and call site of a connection that the waiting task itself holds, once detected.
    pub(super) own_connection: Option<(OperationId, SiteId)>,
    /// Whether there is something in the entry's [`Extra`].
    pub(super) has_extra: bool,
}

#[cfg(test)]
impl InFlight {
    /// Returns a checkout that this task began to wait for in the queue at this time.
    pub(super) fn for_tests(task: u64, at: Nanos) -> Self {
        let (operation, site) = (OperationId::OTHER, SiteId::NONE);
        let (phase, request, own_connection) = (Phase::Queue, None, None);
        Self { operation, site, started: at, phase, phase_since: at, task, request, own_connection, has_extra: false }
    }
}

/// What few checkouts in flight have.
#[derive(Debug, Default)]
pub(super) struct Extra {
    /// Present if the checkout is part of a sampled trace.
    pub(super) trace: Option<Box<CheckoutTrace>>,
    /// The call site, if the pool's table of them is full.
    pub(super) call_site: Option<&'static Location<'static>>,
}

/// The trace of a checkout in flight.
#[derive(Debug)]
pub(super) struct CheckoutTrace {
    /// The span in which the checkout began to wait.
    pub(super) within: SampledSpan,
    /// The checkout's own span, unless it is still deferred.
    pub(super) span: Option<CheckoutSpan>,
}

/// Where a checkout in flight is recorded. Aligned so that no two share a cache line.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct Entry {
    /// Operation, call site, request, phase plus one, and whether there is an extra; zero if the entry is vacant.
    label: AtomicU64,
    started: AtomicU64,
    phase_since: AtomicU64,
    task: AtomicU64,
    /// The connection that the task itself holds: a mark, operation and call site; zero if it holds none.
    own_connection: AtomicU64,
    extra: Mutex<Extra>,
}

// Elsewhere a lock of the standard library may be larger.
#[cfg(target_os = "linux")]
const _: () = assert!(size_of::<Entry>() == 64);

const EXTRA: u64 = 1 << 8;
const OWN_CONNECTION: u64 = 1 << 32;

/// Returns 16 bits of a word.
#[allow(clippy::cast_possible_truncation, reason = "the upper bits are other fields")]
const fn bits16(word: u64, shift: u32) -> u16 {
    (word >> shift) as u16
}

fn label(checkout: &InFlight) -> u64 {
    let request = checkout.request.map_or(0, RouteKey::packed);
    let extra = if checkout.has_extra { EXTRA } else { 0 };
    let phase = checkout.phase.index() as u64 + 1;
    u64::from(checkout.operation.as_u16()) << 48
        | u64::from(checkout.site.as_u16()) << 32
        | u64::from(request) << 16
        | extra
        | phase
}

impl Entry {
    /// Returns the checkout in flight, if there is one.
    #[inline]
    pub(super) fn get(&self) -> Option<InFlight> {
        let label = self.label.load(Relaxed);
        let own = self.own_connection.load(Relaxed);
        let phase = *Phase::ALL.get(usize::from(label.to_le_bytes()[0]).checked_sub(1)?)?;
        Some(InFlight {
            operation: OperationId::from_index(u64::from(bits16(label, 48))),
            site: SiteId::from_u16(bits16(label, 32)),
            started: Nanos::from_nanos(self.started.load(Relaxed)),
            phase,
            phase_since: Nanos::from_nanos(self.phase_since.load(Relaxed)),
            task: self.task.load(Relaxed),
            request: RouteKey::unpacked(bits16(label, 16)),
            own_connection: (own != 0)
                .then(|| (OperationId::from_index(u64::from(bits16(own, 16))), SiteId::from_u16(bits16(own, 0)))),
            has_extra: label & EXTRA != 0,
        })
    }

    /// Records a checkout that begins to wait.
    #[inline]
    pub(super) fn begin(&self, checkout: &InFlight) {
        self.started.store(checkout.started.as_nanos(), Relaxed);
        self.phase_since.store(checkout.phase_since.as_nanos(), Relaxed);
        self.task.store(checkout.task, Relaxed);
        self.own_connection.store(0, Relaxed);
        self.label.store(label(checkout), Relaxed);
    }

    /// Records that the checkout waits for something else.
    pub(super) fn enter(&self, checkout: &InFlight, phase: Phase, at: Nanos) {
        self.phase_since.store(at.as_nanos(), Relaxed);
        self.label.store(label(&InFlight { phase, ..*checkout }), Relaxed);
    }

    /// Records the connection that the checkout's own task holds.
    pub(super) fn set_own_connection(&self, (operation, site): (OperationId, SiteId)) {
        let own = OWN_CONNECTION | u64::from(operation.as_u16()) << 16 | u64::from(site.as_u16());
        self.own_connection.store(own, Relaxed);
    }

    /// Records that the checkout has ended.
    #[inline]
    pub(super) fn end(&self) {
        self.label.store(0, Relaxed);
    }

    /// Returns what few checkouts have. Locked last, and only for those.
    pub(super) fn extra(&self) -> MutexGuard<'_, Extra> {
        self.extra.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the call site of the checkout.
    pub(super) fn call_site(&self, checkout: &InFlight, operations: &Operations) -> &'static Location<'static> {
        let known = operations.location(checkout.site);
        known.or_else(|| self.extra().call_site).unwrap_or_else(|| Location::caller())
    }
}

/// What the checkouts that a thread has begun and ended add to the ledger. A reader moves them to the ledger's state.
#[derive(Debug, Default)]
pub(super) struct ShardTotals {
    pub(super) begun: usize,
    pub(super) ended: usize,
    /// By operation id, as far as needed.
    pub(super) waits: Vec<WaitTotals>,
    /// Checkouts that ended without a connection.
    pub(super) unserved: u64,
    pub(super) phase_nanos: [u64; Phase::COUNT],
    pub(super) wait_time: Histogram,
    /// Whether any of the totals but those of checkouts in flight has changed.
    pub(super) changed: bool,
    /// The earliest start of the checkouts that have joined the queue after they had waited for something else.
    pub(super) rejoined: Option<Nanos>,
}

impl ShardTotals {
    /// Counts a checkout that has ended, of all that changes but its phase.
    #[inline]
    pub(super) fn end(&mut self, checkout: &InFlight, outcome: Outcome, waited: u64) {
        self.ended += 1;
        self.changed = true;
        self.unserved += u64::from(outcome != Outcome::Ok);
        self.wait_time.observe(waited);
        let index = checkout.operation.index();
        let totals = match self.waits.get_mut(index) {
            Some(totals) => totals,
            None => self.add_operations(index),
        };
        totals.outcomes[outcome.index()] += 1;
        totals.wait_nanos += waited;
    }

    #[cold]
    fn add_operations(&mut self, index: usize) -> &mut WaitTotals {
        self.waits.resize_with(index + 1, WaitTotals::default);
        &mut self.waits[index]
    }
}

/// The checkouts in flight of a pool.
pub(super) type Waiting = Sharded<Entry, ShardTotals>;

/// Creates the shards of a pool: more than there are processors, because not only the threads of one runtime may use it. One
/// suffices for a pool in the clients of a proxy: their checkouts do not wait here.
pub(super) fn new_waiting(kind: PoolKind) -> Waiting {
    static SHARDS: LazyLock<usize> =
        LazyLock::new(|| available_parallelism().map_or(MAX_SHARDS, |threads| 2 * threads.get()));
    Sharded::new(if kind == PoolKind::Proxy { 1 } else { *SHARDS })
}

/// Returns a small number of the current thread.
#[inline]
pub(super) fn thread_number() -> usize {
    const UNNUMBERED: usize = usize::MAX;
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static NUMBER: Cell<usize> = const { Cell::new(UNNUMBERED) };
    }
    match NUMBER.get() {
        UNNUMBERED => {
            let number = NEXT.fetch_add(1, Relaxed) & (UNNUMBERED >> 1);
            NUMBER.set(number);
            number
        }
        number => number,
    }
}
