//! Doing the work until it succeeds, or until there is a reason not to.

use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};
use tracing::{Instrument as _, Span};

use super::class::{Class, Effects};
use super::decision::{Failure, effects};
use super::error::{Failed, RetryError};
use super::policy::Policy;
use super::report::{Completed, Report};
use crate::error::RunError;
use crate::labels::{ErrorCode, GiveUp, Outcome};
use crate::pool::{Backend, Guard, Operation, serving};
use crate::telemetry::trace::{self, Recount};

/// An operation that is tried again where that is safe.
#[derive(Debug)]
#[must_use = "an operation does nothing until `run`"]
pub struct Retrying<M: Backend> {
    operation: Operation<M>,
    policy: Policy,
}

impl<M: Backend> Clone for Retrying<M> {
    fn clone(&self) -> Self {
        Self { operation: self.operation.clone(), policy: self.policy }
    }
}

impl<M: Backend> Operation<M> {
    /// Has the operation tried again where that is known to be safe; see [`retry`](crate::retry).
    pub fn retry(self, policy: Policy) -> Retrying<M> {
        Retrying { operation: self, policy }
    }
}

/// What one attempt came to.
enum Attempt<T, E> {
    Done(T),
    Failed(Failure, E),
    /// The deadline passed.
    CutOff(Effects),
}

impl<M: Backend> Retrying<M> {
    /// The name it is counted under; `other` if there were too many.
    #[must_use]
    pub fn name(&self) -> &str {
        self.operation.name()
    }

    /// Says whether the work may be done more often than once to the same effect. By default it may not.
    pub fn idempotent(mut self, idempotent: bool) -> Self {
        self.operation = self.operation.idempotent(idempotent);
        self
    }

    /// Checks out a connection, gives it to `work`, and returns it; again, after a pause, if that fails and is safe to
    /// repeat. Each attempt has a connection of its own: another one, or one that was cleaned; and a clone of `work`. A
    /// closure can be cloned if what it captures can, and what it borrows can. (An `AsyncFnMut` that borrows makes a
    /// future of which the compiler cannot tell whether it is `Send`.)
    ///
    /// The whole is one observation of `poolscope_operation_duration_seconds`; each attempt after the first is counted in
    /// `poolscope_retries_total`, and a failure in `poolscope_retry_exhausted_total`.
    ///
    /// # Errors
    ///
    /// If the last attempt failed, or the policy's deadline passed; the error says what failed, why it was not tried
    /// (again), and whether anything may have taken effect.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops `work`'s, and returns the connection as it is; while it backs off it holds none.
    #[track_caller]
    pub fn run<T, E, W>(self, work: W) -> impl Future<Output = Result<T, RetryError<E, M::Error>>> + use<M, T, E, W>
    where
        W: AsyncFnOnce(&mut Guard<M>) -> Result<T, E> + Clone,
    {
        let site = Location::caller();
        let running = self.run_at(site, work);
        async move { running.await.map(|completed| completed.value) }
    }

    /// As [`run`](Self::run), and answers with what it took too.
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
        async {
            let mut course = Course::begin(&self, &span);
            let result = course.run(call_site, work).await;
            timing.outcome = result.as_ref().map_or_else(RetryError::outcome, |_| Outcome::Ok);
            timing.code = result.as_ref().err().and_then(RetryError::code);
            timing.attempts = course.report.attempts;
            course.tell(&result);
            result
        }
        .instrument(span.clone())
        .await
    }
}

/// How long a look at what became of an attempt may take at least, even if the deadline passes meanwhile: for as long as
/// it takes that what was asked reaches the wire.
const LAST_LOOK: Duration = Duration::from_millis(25);

/// How an operation goes.
struct Course<'a, M: Backend, E> {
    operation: &'a Operation<M>,
    policy: &'a Policy,
    /// The operation's span, if it has one.
    span: &'a Span,
    deadline: Option<Instant>,
    report: Report,
    /// The worst so far.
    effects: Effects,
    /// What failed last.
    failed: Option<(Failure, RunError<E, M::Error>)>,
    /// Whether it was repeated for a statement that was not what it had been.
    refreshed: bool,
}

impl<'a, M: Backend, E> Course<'a, M, E> {
    fn begin(retrying: &'a Retrying<M>, span: &'a Span) -> Self {
        let Retrying { operation, policy } = retrying;
        let ledger = operation.recorder().ledger();
        ledger.budget().deposit(operation.recorder().now());
        Self {
            operation,
            policy,
            span,
            deadline: policy.whole().and_then(|whole| Instant::now().checked_add(whole)),
            report: Report::default(),
            effects: Effects::None,
            failed: None,
            refreshed: false,
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
            let mut recount = Recount::of(trace::attempt(self.span, self.report.attempts));
            match self.attempt(call_site, work.clone()).instrument(recount.span().clone()).await {
                Attempt::Done(value) => {
                    recount.outcome = Outcome::Ok;
                    return Ok(Completed { value, report: self.report });
                }
                Attempt::CutOff(effects) => {
                    recount.outcome = Outcome::Timeout;
                    self.effects = self.effects.max(effects);
                    return Err(self.give_up(GiveUp::Deadline));
                }
                Attempt::Failed(failure, error) => {
                    (recount.outcome, recount.code) = (error.outcome(), failure.code);
                    // The attempt is told what follows from it.
                    let next = recount.span().in_scope(|| self.next(failure));
                    self.failed = Some((failure, error));
                    drop(recount);
                    match next {
                        Ok(pause) => self.back_off(pause).await,
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
        let asked = recorder.now();
        let checkout = within(self.deadline, self.operation.checkout_at(call_site)).await;
        let got = recorder.now();
        self.report.waiting += got.duration_since(asked);
        let mut connection = match checkout {
            Some(Ok(connection)) => connection,
            Some(Err(error)) => return Attempt::Failed(Failure::of_checkout::<M>(&error), RunError::Checkout(error)),
            None => return Attempt::CutOff(Effects::None),
        };
        let worked = within(self.deadline, work(&mut connection)).await;
        let attempt = match worked {
            Some(Ok(value)) => Attempt::Done(value),
            Some(Err(error)) => Attempt::Failed(self.learn(&mut connection).await, RunError::Operation(error)),
            None => {
                // Cancelled at the server when it is returned, which may be too late.
                let evidence = connection.evidence_of_the_abandoned(LAST_LOOK).await;
                Attempt::CutOff(evidence.map_or(Effects::Unseen, effects))
            }
        };
        drop(connection);
        self.report.executing += recorder.now().duration_since(got);
        attempt
    }

    /// What failed, by what passed on the wire; and what has to be done so that the next attempt does not meet the same.
    async fn learn(&self, connection: &mut Guard<M>) -> Failure {
        // The server may have ended the session with this error, and the connection not have heard of it yet.
        connection.doubt();
        // A transaction that was dropped sends its ROLLBACK; and what else was asked may take effect yet.
        let mut failure = Failure::of_work(connection.settled_evidence(self.left()).await);
        match failure.class {
            // A transaction that was begun as one that only reads says the same.
            Class::ReadOnly if !connection.is_read_only(self.left()).await => failure.class = Class::Permanent,
            Class::StaleStatement => self.operation.forget_statements(),
            _ => {}
        }
        failure
    }

    /// How much time there is for a look at what failed.
    fn left(&self) -> Duration {
        let left = self.deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(Instant::now()));
        left.max(LAST_LOOK)
    }

    /// How long to wait before the next attempt, or why there is none.
    fn next(&mut self, failure: Failure) -> Result<Duration, GiveUp> {
        self.effects = self.effects.max(failure.effects);
        failure.verdict(self.operation.is_idempotent())?;
        // Once: it is not a statement of the cache, then.
        if failure.class == Class::StaleStatement && std::mem::replace(&mut self.refreshed, true) {
            return Err(GiveUp::Permanent);
        }
        if self.report.attempts >= self.policy.most_attempts() {
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
        serving::retried(recorder.ledger());
        Ok(pause)
    }

    async fn back_off(&mut self, pause: Duration) {
        let recorder = self.operation.recorder();
        let began = recorder.now();
        sleep(pause).await;
        self.report.backing_off += recorder.now().duration_since(began);
    }

    fn give_up(&mut self, reason: GiveUp) -> RetryError<E, M::Error> {
        let (failure, error) = self.failed.take().unzip();
        RetryError::new(Failed {
            operation: Arc::from(self.operation.name()),
            class: failure.map_or(Class::CutOff, |failure| failure.class),
            code: failure.and_then(|failure| failure.code),
            effects: self.effects,
            reason,
            report: self.report,
            deadline: self.policy.whole(),
            error,
        })
    }

    fn tell<T>(&self, result: &Result<T, RetryError<E, M::Error>>) {
        let (recorder, operation) = (self.operation.recorder(), self.operation.id());
        let attempts = self.report.attempts;
        match result {
            Ok(_) if attempts > 1 => recorder.retry_recovered(operation, attempts),
            Ok(_) => {}
            Err(error) => {
                let code = error.code().unwrap_or(ErrorCode::NONE);
                recorder.retry_exhausted(operation, code, error.gave_up(), attempts);
            }
        }
    }
}

/// What comes of the future before the deadline; `None` if that passes first.
async fn within<T>(deadline: Option<Instant>, future: impl Future<Output = T>) -> Option<T> {
    match deadline {
        Some(deadline) => timeout_at(deadline, future).await.ok(),
        None => Some(future.await),
    }
}
