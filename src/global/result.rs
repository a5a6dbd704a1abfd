//! The result of an execution with the global pool.

use super::error::GlobalError;
use crate::labels::label_enum;
use crate::retry::{Completed, Report, RetryError};
use crate::text::ErrorChain;

label_enum! {
    /// The status of an [`ExecutionResult`].
    ExecutionStatus {
        /// The work succeeded.
        Success => "success",
        /// The work failed, or was not started.
        Error => "error",
    }
}

/// The result of [`execute_with_pool_connection`](super::execute_with_pool_connection): a status, the value or an error
/// message, and the number and durations of the attempts.
#[derive(Debug)]
#[must_use = "it may be an error"]
pub struct ExecutionResult<T, E> {
    pub(super) outcome: Result<Completed<T>, GlobalError<RetryError<E>>>,
}

impl<T, E> ExecutionResult<T, E> {
    /// Returns whether the work succeeded.
    #[must_use]
    pub const fn status(&self) -> ExecutionStatus {
        match self.outcome {
            Ok(_) => ExecutionStatus::Success,
            Err(_) => ExecutionStatus::Error,
        }
    }

    /// Returns the value of the work, if it succeeded.
    #[must_use]
    pub const fn result(&self) -> Option<&T> {
        match &self.outcome {
            Ok(completed) => Some(&completed.value),
            Err(_) => None,
        }
    }

    /// Returns the error with all its causes on one line, if the work failed. Parts of the server's message that may quote
    /// values are omitted, see [`ErrorChain`].
    #[must_use]
    pub fn message(&self) -> Option<String>
    where
        E: std::error::Error + 'static,
    {
        self.outcome.as_ref().err().map(|error| ErrorChain(error).to_string())
    }

    /// Returns the number of attempts; zero if there was no pool.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.report().attempts
    }

    /// Returns the number and durations of the attempts.
    #[must_use]
    pub fn report(&self) -> Report {
        match &self.outcome {
            Ok(completed) => completed.report,
            Err(GlobalError::Failed(error)) => *error.report(),
            Err(GlobalError::Pool(_)) => Report::default(),
        }
    }

    /// Converts into the value or the error.
    ///
    /// # Errors
    ///
    /// Returns the error if there was no pool, or the work failed.
    pub fn into_result(self) -> Result<T, GlobalError<RetryError<E>>> {
        self.outcome.map(|completed| completed.value)
    }
}
