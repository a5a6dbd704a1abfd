//! The error of an operation with a retry policy.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::class::{Class, Effects};
use super::report::Report;
use crate::error::{RunError, Usage, human};
use crate::labels::{ErrorCode, GiveUp, Outcome};
use crate::pool::postgres::ConnectError;
use crate::telemetry::PoolUsage;

/// The error of an operation with a retry policy: the last failure, and the reason why it was not retried.
///
/// `T` is the error of the work, and `E` that of connecting, PostgreSQL's by default.
#[derive(Debug)]
pub struct RetryError<T, E: std::error::Error + 'static = ConnectError>(Box<Details<T, E>>);

/// The content of the error, boxed to keep the result of an operation small.
#[derive(Debug)]
pub(super) struct Details<T, E: std::error::Error + 'static> {
    pub(super) operation: Arc<str>,
    pub(super) class: Class,
    pub(super) code: Option<ErrorCode>,
    pub(super) effects: Effects,
    pub(super) reason: GiveUp,
    pub(super) report: Report,
    pub(super) deadline: Option<Duration>,
    /// The usage of the pool, if the deadline interrupted a checkout.
    pub(super) usage: Option<Box<PoolUsage>>,
    pub(super) error: Option<RunError<T, E>>,
}

impl<T, E: std::error::Error + 'static> RetryError<T, E> {
    pub(super) fn new(details: Details<T, E>) -> Self {
        Self(Box::new(details))
    }

    /// Converts the error of the work.
    pub(crate) fn map<U>(self, convert: impl FnOnce(T) -> U) -> RetryError<U, E> {
        let Details { operation, class, code, effects, reason, report, deadline, usage, error } = *self.0;
        let error = error.map(|error| match error {
            RunError::Checkout(error) => RunError::Checkout(error),
            RunError::Operation(error) => RunError::Operation(convert(error)),
        });
        RetryError::new(Details { operation, class, code, effects, reason, report, deadline, usage, error })
    }

    pub(super) fn code(&self) -> Option<ErrorCode> {
        self.0.code
    }

    /// Returns the class of the last failure; if the deadline interrupted an attempt, that of the attempt before it.
    #[must_use]
    pub fn class(&self) -> Class {
        self.0.class
    }

    /// Returns the SQLSTATE of the last failure; `None` if the server sent none.
    #[must_use]
    pub fn sqlstate(&self) -> Option<&str> {
        self.0.code.as_ref()?.sqlstate()
    }

    /// Returns the SQLSTATE of the last failure, or a word for a failure without one (`io`, `timeout`, …), as in the label
    /// `error_type`. `None` if the work failed for a reason that the pool does not know.
    #[must_use]
    pub fn error_type(&self) -> Option<&str> {
        self.0.code.as_ref().map(ErrorCode::as_str)
    }

    /// Returns the reason why the failure was not retried.
    #[must_use]
    pub fn gave_up(&self) -> GiveUp {
        self.0.reason
    }

    /// Returns whether any attempt may have taken effect.
    #[must_use]
    pub fn effects(&self) -> Effects {
        self.0.effects
    }

    /// Returns the number of attempts.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.0.report.attempts
    }

    /// Returns the number and the durations of the attempts.
    #[must_use]
    pub fn report(&self) -> &Report {
        &self.0.report
    }

    /// Returns the last error; `None` if the deadline interrupted the first attempt.
    #[must_use]
    pub fn error(&self) -> Option<&RunError<T, E>> {
        self.0.error.as_ref()
    }

    /// Returns the last error; `None` if the deadline interrupted the first attempt.
    #[must_use]
    pub fn into_error(self) -> Option<RunError<T, E>> {
        self.0.error
    }

    /// Returns the outcome that the operation's metrics record.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match (&self.0.error, self.0.reason) {
            (_, GiveUp::Deadline) => Outcome::Timeout,
            (Some(error), _) => error.outcome(),
            (None, _) => Outcome::Error,
        }
    }

    fn reason(&self) -> &'static str {
        match self.0.reason {
            GiveUp::Permanent => "a retry cannot succeed",
            GiveUp::CheckoutTimeout => "its checkout timed out",
            GiveUp::NotIdempotent => match self.0.effects {
                Effects::StatementUnknown => {
                    "whether the last statement took effect is unknown, and the operation is not idempotent"
                }
                Effects::Committed => {
                    "a statement before the failure may have been committed, and the operation is not idempotent"
                }
                _ => "whether anything took effect is uncertain, and the operation is not idempotent",
            },
            GiveUp::CommitUnknown => "whether the COMMIT took effect is unknown, and the operation is not idempotent",
            GiveUp::Unseen => {
                "the effects are unknown, because protocol messages are not read (read_wire) or were not understood"
            }
            GiveUp::Attempts => "the policy allows no more attempts",
            GiveUp::Deadline => "the policy's deadline has passed, or would pass",
            GiveUp::Budget => "the pool's retry budget is exhausted",
        }
    }
}

/// Displays the reason and, after it, the last error as that displays.
impl<T: fmt::Display, E: std::error::Error + 'static> fmt::Display for RetryError<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Details { operation, class, effects, reason, report, deadline, usage, error, .. } = &*self.0;
        let Report { attempts, waiting, executing, backing_off } = *report;
        let times = if attempts == 1 { "attempt" } else { "attempts" };
        write!(f, "operation `{operation}` failed after {attempts} {times} ({}", class.as_str())?;
        if let Some(error_type) = self.error_type().filter(|_| *class != Class::CheckoutTimeout) {
            write!(f, ", {error_type}")?;
        }
        write!(
            f,
            "; {} waiting, {} executing, {} backing off) and is not retried: {}",
            human(waiting),
            human(executing),
            human(backing_off),
            self.reason()
        )?;
        if let (GiveUp::Deadline, Some(deadline)) = (reason, deadline) {
            write!(f, " ({})", human(*deadline))?;
        }
        // The other reasons do not mention the effects.
        match (reason, effects) {
            (GiveUp::NotIdempotent | GiveUp::CommitUnknown, _) => {}
            (_, Effects::CommitUnknown) => f.write_str("; whether a COMMIT took effect is unknown")?,
            (_, Effects::StatementUnknown) => f.write_str("; whether a statement took effect is unknown")?,
            _ => {}
        }
        if let Some(usage) = usage {
            write!(f, "; it was waiting for a connection of pool `{}`: {}", usage.name, Usage(usage))?;
        }
        match error {
            Some(error) => write!(f, ": {error}"),
            None => Ok(()),
        }
    }
}

/// Has the source of the last error, whose own message is part of this one's.
impl<T: std::error::Error + 'static, E: std::error::Error + 'static> std::error::Error for RetryError<T, E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.error.as_ref()?.source()
    }
}
