//! Named operations.

use std::panic::Location;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use tracing::{Instrument as _, Span};

use super::backend::{Backend, error_code};
use super::checkout::AtGate;
use super::pool::Pool;
use super::postgres::PostgresManager;
use super::release::Guard;
use super::unwind::guarded;
use crate::error::{CheckoutError, RunError};
use crate::labels::{ErrorCode, Outcome};
use crate::telemetry::clock::Nanos;
use crate::telemetry::ledger::Recorder;
use crate::telemetry::operations::OperationId;
use crate::telemetry::trace::OperationSpan;

/// A handle for a named operation, under whose name checkouts, waits and uses are recorded.
///
/// ```no_run
/// # async fn example(pool: poolscope::Pool) -> Result<(), Box<dyn std::error::Error>> {
/// let list_orders = pool.operation("list_orders");
/// let connection = list_orders.get().await?;
/// let rows = connection.query("SELECT id FROM orders", &[]).await?;
/// # drop(rows);
/// # Ok(())
/// # }
/// ```
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

    /// Returns the name under which the operation is recorded; `other` if the pool knows too many names already.
    #[must_use]
    pub fn name(&self) -> &str {
        self.recorder().ledger().operations().name(self.id)
    }

    /// Sets whether the work may be repeated to the same effect, which [`retry`](Self::retry) takes into account. The
    /// default is `false`.
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

    /// Starts the timing of the operation, which is recorded when it is dropped.
    pub(crate) fn timing(&self, call_site: &'static Location<'static>) -> Timing<'_> {
        Timing::start(self.recorder(), self.id, call_site)
    }

    pub(crate) fn checkout_at(
        &self,
        call_site: &'static Location<'static>,
        at_gate: AtGate,
    ) -> impl Future<Output = Result<Guard<M>, CheckoutError<M::Error>>> + Send {
        self.pool.checkout(self.id, call_site, self.recorder().site(call_site), at_gate)
    }

    /// Checks out a connection for this operation. See [`Pool::get`].
    ///
    /// # Errors
    ///
    /// Returns an error if the deadline passes, if a connection has to be made and connecting fails, or if the pool is
    /// closed.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the checkout with the outcome `cancelled`, see [`Pool::get`].
    #[track_caller]
    #[inline]
    pub fn get(&self) -> impl Future<Output = Result<Guard<M>, CheckoutError<M::Error>>> + Send {
        self.checkout_at(Location::caller(), AtGate::Default)
    }

    /// Checks out a connection, calls `work` with it, and returns it. If `work` fails, the connection is pinged at its
    /// next checkout regardless of `pre_ping_idle`, unless `pre_ping` is off.
    ///
    /// The whole is one observation of `poolscope_operation_duration_seconds`. Its outcome is `ok` or `error` after the
    /// result of `work`, the checkout's outcome if that failed, `error` if `work` panics, or `cancelled` if the future is
    /// dropped.
    ///
    /// # Errors
    ///
    /// Returns an error if the checkout or `work` fails.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the future of `work`, and then returns the connection.
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
        let attempt = async {
            match self.checkout_at(call_site, AtGate::Default).await {
                Ok(mut connection) => work(&mut connection).await.map_err(|error| {
                    // The server may have ended the session with this error before the connection knows of it.
                    connection.doubt();
                    let code = connection.evidence().and_then(|evidence| evidence.error);
                    (RunError::Operation(error), code)
                }),
                Err(error) => {
                    let code = error_code::<M>(&error);
                    Err((RunError::Checkout(error), code))
                }
            }
        };
        let end = &mut timing.end;
        let result = guarded(attempt.instrument(span), || *end = End::PANICKED).await;
        let (outcome, code) = match &result {
            Ok(_) => (Outcome::Ok, None),
            Err((error, code)) => (error.outcome(), *code),
        };
        timing.end = End { outcome, code };
        result.map_err(|(error, _)| error)
    }
}

/// How an operation or an attempt ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End {
    pub(crate) outcome: Outcome,
    /// The error's code, if it failed with one.
    pub(crate) code: Option<ErrorCode>,
}

impl End {
    /// The future was dropped.
    const CANCELLED: Self = Self { outcome: Outcome::Cancelled, code: None };
    /// The work panicked.
    pub(crate) const PANICKED: Self = Self { outcome: Outcome::Error, code: Some(ErrorCode::PANIC) };
}

/// Records an operation when dropped.
pub(crate) struct Timing<'a> {
    recorder: &'a Recorder,
    operation: OperationId,
    started: Nanos,
    span: OperationSpan,
    /// Cancelled until it is known how the operation ended.
    pub(crate) end: End,
    /// The number of attempts begun.
    pub(crate) attempts: AtomicU32,
}

impl<'a> Timing<'a> {
    fn start(recorder: &'a Recorder, operation: OperationId, call_site: &'static Location<'static>) -> Self {
        let span = recorder.operation_span(operation, call_site);
        Self { recorder, operation, started: recorder.now(), span, end: End::CANCELLED, attempts: AtomicU32::new(1) }
    }

    /// Returns what changes while the operation runs: how it ended, and the number of attempts begun.
    pub(crate) fn progress(&mut self) -> (&mut End, &AtomicU32) {
        (&mut self.end, &self.attempts)
    }

    /// Returns the operation's span; a disabled one if it is not part of a trace.
    pub(crate) fn span(&self) -> &Span {
        self.span.span()
    }
}

impl Drop for Timing<'_> {
    fn drop(&mut self) {
        let Self { recorder, operation, started, ref span, end: End { outcome, code }, ref attempts } = *self;
        let trace = span.end(outcome, code, attempts.load(Relaxed));
        recorder.operation_finished(operation, outcome, started, trace);
    }
}
