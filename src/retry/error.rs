//! Why an operation with a retry policy has no value to answer with.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::class::{Class, Effects};
use super::report::Report;
use crate::error::{RunError, rounded};
use crate::labels::{ErrorCode, GiveUp, Outcome};

/// Why an operation with a retry policy has no value to answer with, and why it was not tried (again).
///
/// `T` is what the work fails with, and `E` what the pool's backend says when connecting fails.
#[derive(Debug)]
pub struct RetryError<T, E: std::error::Error + 'static>(Box<Failed<T, E>>);

/// What it knows. Boxed, so that the result of an operation stays small.
#[derive(Debug)]
pub(super) struct Failed<T, E: std::error::Error + 'static> {
    pub(super) operation: Arc<str>,
    pub(super) class: Class,
    pub(super) code: Option<ErrorCode>,
    pub(super) effects: Effects,
    pub(super) reason: GiveUp,
    pub(super) report: Report,
    pub(super) deadline: Option<Duration>,
    pub(super) error: Option<RunError<T, E>>,
}

impl<T, E: std::error::Error + 'static> RetryError<T, E> {
    pub(super) fn new(failed: Failed<T, E>) -> Self {
        Self(Box::new(failed))
    }

    /// The code of the last failure.
    pub(super) fn code(&self) -> Option<ErrorCode> {
        self.0.code
    }

    /// What kind of failure the last one was. Where the deadline cut an attempt off, that of the one before it.
    #[must_use]
    pub fn class(&self) -> Class {
        self.0.class
    }

    /// The SQLSTATE of the last failure, or the word for one without (`io`, `timeout` …); `None` if the server had
    /// nothing to do with it.
    #[must_use]
    pub fn sqlstate(&self) -> Option<&str> {
        self.0.code.as_ref().map(ErrorCode::as_str)
    }

    /// Why it was not tried again.
    #[must_use]
    pub fn gave_up(&self) -> GiveUp {
        self.0.reason
    }

    /// Whether anything may have taken effect, over all attempts.
    #[must_use]
    pub fn effects(&self) -> Effects {
        self.0.effects
    }

    /// How often it was tried.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.0.report.attempts
    }

    /// How often it was tried, and where the time went.
    #[must_use]
    pub fn report(&self) -> &Report {
        &self.0.report
    }

    /// The last error; `None` if the deadline cut off the first attempt.
    #[must_use]
    pub fn error(&self) -> Option<&RunError<T, E>> {
        self.0.error.as_ref()
    }

    /// The last error; `None` if the deadline cut off the first attempt.
    #[must_use]
    pub fn into_error(self) -> Option<RunError<T, E>> {
        self.0.error
    }

    /// The outcome as which the operation was counted.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match (&self.0.error, self.0.reason) {
            (_, GiveUp::Deadline) => Outcome::Timeout,
            (Some(error), _) => error.outcome(),
            (None, _) => Outcome::Error,
        }
    }

    fn why(&self) -> &'static str {
        match self.0.reason {
            GiveUp::Permanent => "it would fail again",
            GiveUp::NotIdempotent => match self.0.effects {
                Effects::StatementUnknown => {
                    "whether its last statement took effect is not known, and it was not said to be idempotent"
                }
                Effects::Committed => {
                    "a statement before the failure may have been committed, and it was not said to be idempotent"
                }
                _ => {
                    "the server does not say for certain that nothing took effect, and it was not said to be idempotent"
                }
            },
            GiveUp::CommitUnknown => {
                "whether its COMMIT took effect is not known, and it was not said to be idempotent"
            }
            GiveUp::Unseen => {
                "what happened is not known, since the wire is not read (read_wire) or was not understood"
            }
            GiveUp::Attempts => "the policy allows no more attempts",
            GiveUp::Deadline => "the policy's deadline has passed, or would have",
            GiveUp::Budget => "the pool's budget for retries is spent",
        }
    }
}

impl<T, E: std::error::Error + 'static> fmt::Display for RetryError<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Failed { operation, class, effects, reason, report, deadline, .. } = &*self.0;
        let Report { attempts, waiting, executing, backing_off } = *report;
        let times = if attempts == 1 { "attempt" } else { "attempts" };
        write!(f, "operation `{operation}` failed after {attempts} {times} ({}", class.as_str())?;
        if let Some(sqlstate) = self.sqlstate() {
            write!(f, ", {sqlstate}")?;
        }
        write!(
            f,
            "; {} waiting, {} executing, {} backing off) and is not tried again: {}",
            rounded(waiting),
            rounded(executing),
            rounded(backing_off),
            self.why()
        )?;
        if let (GiveUp::Deadline, Some(deadline)) = (reason, deadline) {
            write!(f, " ({})", rounded(*deadline))?;
        }
        // What the reason has not said.
        match (reason, effects) {
            (GiveUp::NotIdempotent | GiveUp::CommitUnknown, _) => Ok(()),
            (_, Effects::CommitUnknown) => f.write_str("; whether a COMMIT took effect is not known"),
            (_, Effects::StatementUnknown) => f.write_str("; whether a statement took effect is not known"),
            _ => Ok(()),
        }
    }
}

impl<T: std::error::Error + 'static, E: std::error::Error + 'static> std::error::Error for RetryError<T, E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self.0.error.as_ref()? {
            RunError::Checkout(error) => Some(error),
            RunError::Operation(error) => Some(error),
        }
    }
}
