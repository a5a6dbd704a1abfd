//! A checkout in flight, and its ticket.

use std::num::NonZeroUsize;
use std::panic::Location;

use crate::labels::Phase;
use crate::telemetry::clock::Nanos;
use crate::telemetry::operations::{OperationId, SiteId};
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

/// A checkout that could not be served at its first poll. Aligned so that each occupies exactly one cache line.
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct InFlight {
    pub(super) operation: OperationId,
    pub(super) call_site: &'static Location<'static>,
    pub(super) started: Nanos,
    pub(super) phase: Phase,
    pub(super) phase_since: Nanos,
    /// The waiting task; zero if there is none.
    pub(super) task: u64,
    /// The request that it is for, if it is known.
    pub(super) request: Option<RouteKey>,
    /// The operation and call site of a connection that the waiting task itself holds, once detected.
    pub(super) own_connection: Option<(OperationId, SiteId)>,
    /// Present if the checkout is part of a sampled trace; boxed because few are.
    pub(super) trace: Option<Box<CheckoutTrace>>,
}

const _: () = assert!(size_of::<InFlight>() == 64);

#[cfg(test)]
impl InFlight {
    /// Returns a checkout that this task began to wait for in the queue at this time.
    #[track_caller]
    pub(super) fn for_tests(task: u64, at: Nanos) -> Self {
        let (operation, call_site) = (OperationId::OTHER, Location::caller());
        let phase = Phase::Queue;
        let (own_connection, trace, request) = (None, None, None);
        Self { operation, call_site, started: at, phase, phase_since: at, task, own_connection, trace, request }
    }
}

/// The trace of a checkout in flight.
#[derive(Debug)]
pub(super) struct CheckoutTrace {
    /// The span in which the checkout began to wait.
    pub(super) within: SampledSpan,
    /// The checkout's own span, unless it is still deferred.
    pub(super) span: Option<CheckoutSpan>,
}
