//! The error of functions that check out connections and use them.

use std::error::Error as StdError;
use std::fmt;

use tokio_postgres::error::{DbError, SqlState};

use crate::global::{GlobalError, GlobalPoolError};
use crate::pool::postgres::{CheckoutError, ConnectError, RunError};
use crate::retry::RetryError;
use crate::text::ErrorChain;

/// The error of a function that checks out a connection and uses it.
///
/// `?` converts the errors of checkouts, queries, operations and retried operations, so that a function that returned
/// `Result<_, deadpool_postgres::PoolError>` changes only this type. The other error types of this crate are more
/// precise; use them where the caller distinguishes the cases.
///
/// ```no_run
/// use poolscope::{Error, Pool};
///
/// async fn count_orders(pool: &Pool) -> Result<i64, Error> {
///     let connection = pool.get().await?;
///     let row = connection.query_one("SELECT count(*) FROM orders", &[]).await?;
///     Ok(row.get(0))
/// }
/// ```
///
/// The message is one line that contains the cause, with the SQLSTATE of a failed query but without the server's message,
/// which may quote values: that is the [`source`](StdError::source).
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// No connection was checked out.
    Checkout(CheckoutError),
    /// A connection outside the pool was not established, or a query not cancelled.
    Connect(ConnectError),
    /// A query failed.
    Query(tokio_postgres::Error),
    /// An operation with a retry policy failed.
    Retry(RetryError<Self>),
    /// There is no global pool.
    GlobalPool(GlobalPoolError),
}

impl Error {
    /// Returns the error of tokio-postgres, also if an operation with a retry policy or connecting failed with it.
    #[must_use]
    pub fn query_error(&self) -> Option<&tokio_postgres::Error> {
        match self {
            Self::Query(error)
            | Self::Connect(ConnectError::Postgres { source: error, .. })
            | Self::Checkout(CheckoutError::Connect { source: ConnectError::Postgres { source: error, .. }, .. }) => {
                Some(error)
            }
            Self::Retry(error) => match error.error()? {
                RunError::Checkout(CheckoutError::Connect {
                    source: ConnectError::Postgres { source: error, .. },
                    ..
                }) => Some(error),
                RunError::Operation(error) => error.query_error(),
                RunError::Checkout(_) => None,
            },
            Self::Checkout(_) | Self::Connect(_) | Self::GlobalPool(_) => None,
        }
    }

    /// Returns the server's SQLSTATE, if it sent one, as [`tokio_postgres::Error::code`] does.
    #[must_use]
    pub fn code(&self) -> Option<&SqlState> {
        self.query_error()?.code()
    }

    /// Returns the server's error, if it sent one, as [`tokio_postgres::Error::as_db_error`] does.
    #[must_use]
    pub fn as_db_error(&self) -> Option<&DbError> {
        self.query_error()?.as_db_error()
    }

    /// Returns whether no connection was available within `checkout_timeout`.
    #[must_use]
    pub fn is_checkout_timeout(&self) -> bool {
        match self {
            Self::Checkout(error) => matches!(error, CheckoutError::Timeout(_)),
            Self::Retry(error) => match error.error() {
                Some(RunError::Checkout(error)) => matches!(error, CheckoutError::Timeout(_)),
                Some(RunError::Operation(error)) => error.is_checkout_timeout(),
                None => false,
            },
            Self::Connect(_) | Self::Query(_) | Self::GlobalPool(_) => false,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Checkout(error) => error.fmt(f),
            Self::Connect(error) => error.fmt(f),
            Self::Query(error) => match error.code() {
                Some(code) => write!(f, "query failed (SQLSTATE {})", code.code()),
                None => write!(f, "query failed: {}", ErrorChain(error)),
            },
            Self::Retry(error) => error.fmt(f),
            Self::GlobalPool(error) => error.fmt(f),
        }
    }
}

/// Has the source of the error that it contains, unless the message contains it.
impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Checkout(error) => error.source(),
            Self::Connect(error) => error.source(),
            Self::Query(error) => error.source().filter(|_| error.code().is_some()),
            Self::Retry(error) => error.source(),
            Self::GlobalPool(error) => error.source(),
        }
    }
}

impl From<CheckoutError> for Error {
    fn from(error: CheckoutError) -> Self {
        Self::Checkout(error)
    }
}

impl From<ConnectError> for Error {
    fn from(error: ConnectError) -> Self {
        Self::Connect(error)
    }
}

impl From<tokio_postgres::Error> for Error {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Query(error)
    }
}

impl<T: Into<Self>> From<RunError<T>> for Error {
    fn from(error: RunError<T>) -> Self {
        match error {
            RunError::Checkout(error) => Self::Checkout(error),
            RunError::Operation(error) => error.into(),
        }
    }
}

impl<T: Into<Self>> From<RetryError<T>> for Error {
    fn from(error: RetryError<T>) -> Self {
        Self::Retry(error.map(T::into))
    }
}

impl From<GlobalPoolError> for Error {
    fn from(error: GlobalPoolError) -> Self {
        Self::GlobalPool(error)
    }
}

impl<T: Into<Self>> From<GlobalError<T>> for Error {
    fn from(error: GlobalError<T>) -> Self {
        match error {
            GlobalError::Pool(error) => Self::GlobalPool(error),
            GlobalError::Failed(error) => error.into(),
        }
    }
}
