//! What is done under a name.

use std::panic::Location;

use tracing::{Instrument as _, Span};

use super::backend::Backend;
use super::checkout::code_of;
use super::guard::Guard;
use super::pool::Pool;
use super::postgres::PostgresManager;
use crate::error::{CheckoutError, RunError};
use crate::labels::{ErrorCode, Outcome};
use crate::telemetry::clock::Nanos;
use crate::telemetry::ledger::Recorder;
use crate::telemetry::operations::OperationId;
use crate::telemetry::trace;

/// A handle for what is done under a name: its checkouts, waits and uses are counted for it.
#[derive(Debug)]
pub struct Operation<M: Backend = PostgresManager> {
    pool: Pool<M>,
    id: OperationId,
    idempotent: bool,
}

impl<M: Backend> Clone for Operation<M> {
    fn clone(&self) -> Self {
        Self { pool: self.pool.clone(), id: self.id, idempotent: self.idempotent }
    }
}

impl<M: Backend> Operation<M> {
    pub(super) fn new(pool: Pool<M>, id: OperationId) -> Self {
        Self { pool, id, idempotent: false }
    }

    /// The name it is counted under; `other` if there were too many.
    #[must_use]
    pub fn name(&self) -> &str {
        self.recorder().ledger().operations().name(self.id)
    }

    /// Says whether the work may be done more often than once to the same effect, which
    /// [`retry`](Self::retry) asks. By default it may not.
    #[must_use]
    pub fn idempotent(mut self, idempotent: bool) -> Self {
        self.idempotent = idempotent;
        self
    }

    pub(crate) fn is_idempotent(&self) -> bool {
        self.idempotent
    }

    pub(crate) fn id(&self) -> OperationId {
        self.id
    }

    pub(crate) fn recorder(&self) -> &Recorder {
        &self.pool.shared().recorder
    }

    /// Has every connection of the pool forget the statements it has cached.
    pub(crate) fn forget_statements(&self) {
        self.pool.shared().forget_statements_before(self.recorder().now());
    }

    /// Counts the operation from now on, until what is answered is dropped.
    pub(crate) fn timing(&self, call_site: &'static Location<'static>) -> Timing<'_> {
        Timing::start(self.recorder(), self.id, call_site)
    }

    /// A connection, asked for at this place.
    pub(crate) fn checkout_at(
        &self,
        call_site: &'static Location<'static>,
    ) -> impl Future<Output = Result<Guard<M>, CheckoutError<M::Error>>> + Send {
        self.pool.checkout(self.id, call_site, self.recorder().site(call_site))
    }

    /// A connection for this operation. See [`Pool::get`].
    ///
    /// # Errors
    ///
    /// If the deadline passes, if a connection has to be made and cannot be, or if the pool is closed.
    ///
    /// # Cancel safety
    ///
    /// As [`Pool::get`].
    #[track_caller]
    #[inline]
    pub fn get(&self) -> impl Future<Output = Result<Guard<M>, CheckoutError<M::Error>>> + Send {
        self.checkout_at(Location::caller())
    }

    /// Checks out a connection, gives it to `work`, and returns it. If `work` fails, the connection is pinged before
    /// it is handed out again, however soon that is, unless `pre_ping` is off.
    ///
    /// The whole is one observation of `poolscope_operation_duration_seconds`: `ok` or `error` as `work` answers,
    /// the checkout's outcome if that failed, `cancelled` if the future is dropped or `work` panics.
    ///
    /// # Errors
    ///
    /// If the checkout fails or `work` does.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops `work`'s, and returns the connection as it is.
    #[track_caller]
    pub fn run<T, E, W>(self, work: W) -> impl Future<Output = Result<T, RunError<E, M::Error>>> + use<M, T, E, W>
    where
        W: AsyncFnOnce(&mut Guard<M>) -> Result<T, E>,
    {
        let site = Location::caller();
        self.run_at(site, work)
    }

    pub(super) async fn run_at<T, E, W>(
        self,
        call_site: &'static Location<'static>,
        work: W,
    ) -> Result<T, RunError<E, M::Error>>
    where
        W: AsyncFnOnce(&mut Guard<M>) -> Result<T, E>,
    {
        let mut timing = self.timing(call_site);
        let span = timing.span().clone();
        async {
            let result = match self.checkout_at(call_site).await {
                Ok(mut connection) => work(&mut connection).await.map_err(|error| {
                    // The server may have ended the session with this error, and the connection not have heard of it yet.
                    connection.doubt();
                    timing.code = connection.evidence().and_then(|evidence| evidence.error);
                    RunError::Operation(error)
                }),
                Err(error) => {
                    timing.code = code_of::<M>(&error);
                    Err(RunError::Checkout(error))
                }
            };
            timing.outcome = result.as_ref().map_or_else(RunError::outcome, |_| Outcome::Ok);
            result
        }
        .instrument(span)
        .await
    }
}

/// Counts an operation when it ends, however it does.
pub(crate) struct Timing<'a> {
    recorder: &'a Recorder,
    operation: OperationId,
    started: Nanos,
    span: Span,
    /// How it ended; until that is known, that it was cancelled.
    pub(crate) outcome: Outcome,
    /// What failed, if that is known.
    pub(crate) code: Option<ErrorCode>,
    /// How often it was tried.
    pub(crate) attempts: u32,
}

impl<'a> Timing<'a> {
    fn start(recorder: &'a Recorder, operation: OperationId, call_site: &'static Location<'static>) -> Self {
        let span = trace::operation(recorder.ledger(), operation, call_site);
        let (started, outcome) = (recorder.now(), Outcome::Cancelled);
        Self { recorder, operation, started, span, outcome, code: None, attempts: 1 }
    }

    /// Its span, if it is part of a trace.
    pub(crate) fn span(&self) -> &Span {
        &self.span
    }
}

impl Drop for Timing<'_> {
    fn drop(&mut self) {
        let Self { recorder, operation, started, ref span, outcome, code, attempts } = *self;
        let trace = trace::end_operation(span, outcome, code, attempts);
        recorder.operation_finished(operation, outcome, started, trace);
    }
}
