//! The retry loop.

use std::panic::Location;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};
use tracing::{Instrument as _, Span};

use super::class::{Class, Effects};
use super::error::{Details, RetryError};
use super::failure::{Failure, effects};
use super::policy::RetryPolicy;
use super::report::{Completed, Report};
use crate::error::{CheckoutError, RunError};
use crate::labels::{ErrorCode, GiveUp, Outcome, Phase};
use crate::pool::unwind::guarded;
use crate::pool::{AtGate, Backend, End, Guard, Operation, request};
use crate::telemetry::PoolUsage;
use crate::telemetry::trace::{self, SpanOutcome};

/// An operation that is retried where that is safe.
#[derive(Debug)]
#[must_use = "an operation does nothing until `run`"]
pub struct Retrying<M: Backend> {
    operation: Operation<M>,
    policy: RetryPolicy,
}

impl<M: Backend> Clone for Retrying<M> {
    fn clone(&self) -> Self {
        Self { operation: self.operation.clone(), policy: self.policy }
    }
}

impl<M: Backend> Operation<M> {
    /// Retries the operation where that is known to be safe; see [`retry`](crate::retry).
    pub fn retry(self, policy: RetryPolicy) -> Retrying<M> {
        Retrying { operation: self, policy }
    }
}

/// The result of one attempt.
enum Attempt<T, E> {
    Done(T),
    Failed(Failure, E),
    /// The deadline passed.
    DeadlinePassed(Effects),
}

impl<M: Backend> Retrying<M> {
    /// Returns the operation's name in metrics; `other` if there are too many names.
    #[must_use]
    pub fn name(&self) -> &str {
        self.operation.name()
    }

    /// Declares whether repeating the work has the same effect as doing it once. Default: no.
    pub fn idempotent(mut self, idempotent: bool) -> Self {
        self.operation = self.operation.idempotent(idempotent);
        self
    }

    /// Checks out a connection, passes it to `work`, and returns it; repeats this after a pause if it fails and a retry is
    /// safe.
    ///
    /// Each attempt has another connection, or one that was cleaned, and a clone of `work`. A closure is `Clone` if its
    /// captures are, and borrows always are. (An `AsyncFnMut` that borrows would yield a future that the compiler cannot
    /// prove to be `Send`.)
    ///
    /// The operation is one observation of `poolscope_operation_duration_seconds`. Each attempt after the first increments
    /// `poolscope_retries_total`, and a failure `poolscope_retry_exhausted_total`.
    ///
    /// # Errors
    ///
    /// Returns an error if the last attempt failed, or the policy's deadline passed. It contains the failure, the reason
    /// why it was not retried, and whether any attempt may have taken effect.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops that of `work` and returns the connection. No connection is held during a pause.
    #[track_caller]
    pub fn run<T, E, W>(self, work: W) -> impl Future<Output = Result<T, RetryError<E, M::Error>>> + use<M, T, E, W>
    where
        W: AsyncFnOnce(&mut Guard<M>) -> Result<T, E> + Clone,
    {
        let site = Location::caller();
        let operation = self.run_at(site, work);
        async move { operation.await.map(|completed| completed.value) }
    }

    /// As [`run`](Self::run), and also returns the number and durations of the attempts.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    ///
    /// # Cancel safety
    ///
    /// As [`run`](Self::run).
    #[track_caller]
    pub fn run_reporting<T, E, W>(
        self,
        work: W,
    ) -> impl Future<Output = Result<Completed<T>, RetryError<E, M::Error>>> + use<M, T, E, W>
    where
        W: AsyncFnOnce(&mut Guard<M>) -> Result<T, E> + Clone,
    {
        let site = Location::caller();
        self.run_at(site, work)
    }

    pub(crate) async fn run_at<T, E, W>(
        self,
        call_site: &'static Location<'static>,
        work: W,
    ) -> Result<Completed<T>, RetryError<E, M::Error>>
    where
        W: AsyncFnOnce(&mut Guard<M>) -> Result<T, E> + Clone,
    {
        let mut timing = self.operation.timing(call_site);
        let span = timing.span().clone();
        let (end, attempts) = timing.progress();
        let run = async {
            let mut retries = RetryLoop::begin(&self, &span, attempts);
            let result = retries.run(call_site, work).await;
            retries.record(&result);
            result
        };
        let result = guarded(run.instrument(span.clone()), || *end = End::PANICKED).await;
        let outcome = result.as_ref().map_or_else(RetryError::outcome, |_| Outcome::Ok);
        timing.end = End { outcome, code: result.as_ref().err().and_then(RetryError::code) };
        result
    }
}

/// The minimum time to determine the effects of an attempt, even if the deadline passes meanwhile: enough for pending
/// requests to be sent.
const MIN_EVIDENCE_WAIT: Duration = Duration::from_millis(25);

/// The state of an operation over its attempts.
struct RetryLoop<'a, M: Backend, E> {
    operation: &'a Operation<M>,
    policy: &'a RetryPolicy,
    /// The operation's span, if it has one.
    span: &'a Span,
    /// Equals `report.attempts`, and can be read if the future is dropped.
    attempts: &'a AtomicU32,
    deadline: Option<Instant>,
    report: Report,
    /// The most severe effects of any attempt.
    effects: Effects,
    last_failure: Option<(Failure, RunError<E, M::Error>)>,
    /// The usage of the pool when the deadline interrupted a checkout.
    usage: Option<Box<PoolUsage>>,
    /// Whether there was no retry yet.
    is_first: bool,
    /// Whether there was a retry for a stale statement.
    has_retried_stale: bool,
}

impl<'a, M: Backend, E> RetryLoop<'a, M, E> {
    fn begin(retrying: &'a Retrying<M>, span: &'a Span, attempts: &'a AtomicU32) -> Self {
        let Retrying { operation, policy } = retrying;
        let ledger = operation.recorder().ledger();
        ledger.budget().deposit(operation.recorder().now());
        Self {
            operation,
            policy,
            span,
            attempts,
            deadline: policy.time_limit().and_then(|limit| Instant::now().checked_add(limit)),
            report: Report::default(),
            effects: Effects::None,
            last_failure: None,
            usage: None,
            is_first: true,
            has_retried_stale: false,
        }
    }

    async fn run<T, W>(
        &mut self,
        call_site: &'static Location<'static>,
        work: W,
    ) -> Result<Completed<T>, RetryError<E, M::Error>>
    where
        W: AsyncFnOnce(&mut Guard<M>) -> Result<T, E> + Clone,
    {
        loop {
            self.report.attempts += 1;
            self.attempts.store(self.report.attempts, Relaxed);
            let mut span_outcome = SpanOutcome::of(trace::attempt(self.span, self.report.attempts));
            let span = span_outcome.span().clone();
            let attempt = self.attempt(call_site, work.clone()).instrument(span);
            match guarded(attempt, || span_outcome.record_panic()).await {
                Attempt::Done(value) => {
                    span_outcome.outcome = Outcome::Ok;
                    return Ok(Completed { value, report: self.report });
                }
                Attempt::DeadlinePassed(effects) => {
                    span_outcome.outcome = Outcome::Timeout;
                    self.effects = self.effects.max(effects);
                    return Err(self.give_up(GiveUp::Deadline));
                }
                Attempt::Failed(failure, error) => {
                    (span_outcome.outcome, span_outcome.code) = (error.outcome(), failure.code);
                    // The gate denied it, so it reached no server.
                    let denied = self.is_first
                        && matches!(&error, RunError::Checkout(CheckoutError::Unavailable { source, .. }) if !source.attempted);
                    // The event of a retry belongs to the attempt's span.
                    let next = span_outcome.span().in_scope(|| self.next(failure));
                    self.last_failure = Some((failure, error));
                    drop(span_outcome);
                    match next {
                        Ok(pause) => {
                            self.is_first = false;
                            self.report.attempts -= u32::from(denied);
                            self.back_off(pause).await;
                        }
                        Err(reason) => return Err(self.give_up(reason)),
                    }
                }
            }
        }
    }

    async fn attempt<T, W>(
        &mut self,
        call_site: &'static Location<'static>,
        work: W,
    ) -> Attempt<T, RunError<E, M::Error>>
    where
        W: AsyncFnOnce(&mut Guard<M>) -> Result<T, E> + Clone,
    {
        let recorder = self.operation.recorder();
        let started = recorder.now();
        let checkout = before(self.deadline, self.check_out(call_site)).await;
        let checked_out = recorder.now();
        self.report.waiting += checked_out.duration_since(started);
        let mut connection = match checkout {
            Some(Ok(connection)) => connection,
            Some(Err(error)) => return Attempt::Failed(Failure::of_checkout::<M>(&error), RunError::Checkout(error)),
            None => {
                self.usage = Some(Box::new(recorder.ledger().usage()));
                return Attempt::DeadlinePassed(Effects::None);
            }
        };
        let result = before(self.deadline, work(&mut connection)).await;
        let attempt = match result {
            Some(Ok(value)) => Attempt::Done(value),
            Some(Err(error)) => Attempt::Failed(self.classify(&mut connection).await, RunError::Operation(error)),
            None => {
                // The query is cancelled when the connection is returned, which may be too late.
                let evidence = connection.abandoned_evidence(MIN_EVIDENCE_WAIT).await;
                Attempt::DeadlinePassed(evidence.map_or(Effects::Unseen, effects))
            }
        };
        drop(connection);
        self.report.executing += recorder.now().duration_since(checked_out);
        attempt
    }

    /// Checks out a connection. A retry waits for its own attempt to connect, for as long as the deadline allows, where
    /// the first attempt fails at once.
    async fn check_out(&self, call_site: &'static Location<'static>) -> Result<Guard<M>, CheckoutError<M::Error>> {
        if self.is_first {
            return self.operation.checkout_at(call_site, AtGate::Default).await;
        }
        loop {
            match self.operation.checkout_at(call_site, AtGate::Waits).await {
                Err(CheckoutError::Timeout(report))
                    if self.deadline.is_some() && report.phase == Phase::Suspended && report.backoff.is_some() => {}
                result => return result,
            }
        }
    }

    /// Classifies the failure by the protocol messages.
    async fn classify(&self, connection: &mut Guard<M>) -> Failure {
        // The server may have ended the session with this error before the connection has read so.
        connection.doubt();
        // A dropped transaction sends its ROLLBACK, and unanswered requests may still take effect.
        let mut failure = Failure::of_work(connection.settled_evidence(self.evidence_wait()).await);
        // A transaction that was begun as READ ONLY reports the same error.
        if failure.class == Class::ReadOnly && !connection.is_read_only(self.evidence_wait()).await {
            failure.class = Class::Permanent;
        }
        failure
    }

    /// Returns the time limit for determining the effects of an attempt.
    fn evidence_wait(&self) -> Duration {
        let left = self.deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(Instant::now()));
        left.max(MIN_EVIDENCE_WAIT)
    }

    /// Returns the pause before the next attempt, or the reason why there is none.
    fn next(&mut self, failure: Failure) -> Result<Duration, GiveUp> {
        self.effects = self.effects.max(failure.effects);
        failure.allows_retry(self.operation.is_idempotent())?;
        // The caches have dropped the statement. If it fails again, it is not one of them.
        if failure.class == Class::StaleStatement && std::mem::replace(&mut self.has_retried_stale, true) {
            return Err(GiveUp::Permanent);
        }
        if self.report.attempts >= self.policy.max_attempts() {
            return Err(GiveUp::Attempts);
        }
        let pause = self.policy.pause(self.report.attempts, failure.class == Class::Resources);
        if self.deadline.is_some_and(|deadline| deadline.saturating_duration_since(Instant::now()) <= pause) {
            return Err(GiveUp::Deadline);
        }
        let recorder = self.operation.recorder();
        if !recorder.ledger().budget().withdraw(recorder.now()) {
            return Err(GiveUp::Budget);
        }
        let (operation, attempt) = (self.operation.id(), self.report.attempts);
        let code = failure.code.unwrap_or(ErrorCode::OTHER);
        recorder.retrying(operation, code, attempt, pause);
        request::count_retry(recorder.ledger());
        Ok(pause)
    }

    async fn back_off(&mut self, pause: Duration) {
        let recorder = self.operation.recorder();
        let started = recorder.now();
        sleep(pause).await;
        self.report.backing_off += recorder.now().duration_since(started);
    }

    fn give_up(&mut self, reason: GiveUp) -> RetryError<E, M::Error> {
        let (failure, error) = self.last_failure.take().unzip();
        RetryError::new(Details {
            operation: Arc::from(self.operation.name()),
            class: failure.map_or(Class::CutOff, |failure| failure.class),
            code: failure.and_then(|failure| failure.code),
            effects: self.effects,
            reason,
            report: self.report,
            deadline: self.policy.time_limit(),
            usage: self.usage.take(),
            error,
        })
    }

    fn record<T>(&self, result: &Result<T, RetryError<E, M::Error>>) {
        let (recorder, operation) = (self.operation.recorder(), self.operation.id());
        let attempts = self.report.attempts;
        match result {
            Ok(_) if !self.is_first => recorder.retry_recovered(operation, attempts),
            Ok(_) => {}
            Err(error) => {
                let code = error.code().unwrap_or(ErrorCode::NONE);
                recorder.retry_exhausted(operation, code, error.gave_up(), attempts);
            }
        }
    }
}

/// Returns the output of the future, or `None` if the deadline passes first.
async fn before<T>(deadline: Option<Instant>, future: impl Future<Output = T>) -> Option<T> {
    match deadline {
        Some(deadline) => timeout_at(deadline, future).await.ok(),
        None => Some(future.await),
    }
}
