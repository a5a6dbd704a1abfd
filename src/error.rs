//! Errors of checkouts, of operations, and of closing a pool.
//!
//! ```no_run
//! use poolscope::{CheckoutError, Pool};
//!
//! # async fn example(pool: Pool) {
//! match pool.get().await {
//!     Ok(connection) => drop(connection),
//!     Err(CheckoutError::Timeout(report)) => println!("{} waiting: {report}", report.usage.status.waiting),
//!     Err(error) => println!("{}: {error}", error.outcome().as_str()),
//! }
//! # }
//! ```

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::labels::{Activity, ErrorCode, Outcome, Phase};
use crate::telemetry::{Holding, OwnHold, PoolUsage};

/// The error of a checkout.
///
/// `E` is the backend's error when connecting fails.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckoutError<E: std::error::Error + 'static> {
    /// No connection within `checkout_timeout`.
    #[error("{0}")]
    Timeout(Box<TimeoutReport>),
    /// A new connection was needed, and connecting failed.
    #[error("pool `{pool}` cannot connect")]
    Connect {
        /// The pool's name.
        pool: Arc<str>,
        /// The backend's error.
        #[source]
        source: E,
    },
    /// A new connection is needed, and recent attempts to connect failed: another checkout is connecting, or will after a
    /// pause. See the setting `fail_fast`.
    #[error("pool `{pool}` cannot connect now")]
    Unavailable {
        /// The pool's name.
        pool: Arc<str>,
        /// The state of connecting.
        source: ConnectBackoff,
    },
    /// The pool is closed, or was closed while the checkout waited.
    #[error("pool `{pool}` is closed")]
    Closed {
        /// The pool's name.
        pool: Arc<str>,
    },
}

impl<E: std::error::Error + 'static> CheckoutError<E> {
    /// Returns the outcome that the checkout's metrics record.
    #[must_use]
    pub const fn outcome(&self) -> Outcome {
        match self {
            Self::Timeout(_) => Outcome::Timeout,
            Self::Connect { .. } | Self::Unavailable { .. } => Outcome::Error,
            Self::Closed { .. } => Outcome::Closed,
        }
    }
}

/// The state of connecting while it fails.
#[derive(Clone, Debug, thiserror::Error)]
#[error("connecting has been failing for {}: {message}", rounded(*failing_for))]
#[non_exhaustive]
pub struct ConnectBackoff {
    /// The time since the first failure.
    pub failing_for: Duration,
    /// The value of the last failure in the `sqlstate` label.
    pub code: ErrorCode,
    /// The last failure with its causes, on one line.
    pub message: Arc<str>,
}

/// The state of the pool when a checkout timed out: the holders of its connections, and the number of waiting checkouts.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TimeoutReport {
    /// The time the checkout waited.
    pub waited: Duration,
    /// The phase in which it timed out.
    pub phase: Phase,
    /// The state of the pool, without this checkout.
    pub usage: PoolUsage,
    /// The connection that the waiting task itself held: it may have deadlocked with itself.
    pub own: Option<OwnHold>,
    /// The state of connecting, if it fails.
    pub connecting: Option<ConnectBackoff>,
}

/// The maximum number of operations in a message.
const MAX_LISTED_OPERATIONS: usize = 3;

impl fmt::Display for TimeoutReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { waited, phase, usage: PoolUsage { name, status, longest_wait, holdings }, own, connecting } = self;
        let waits_for = match phase {
            Phase::Queue => "waiting for one to be returned",
            Phase::Connect => "while connecting",
            Phase::Ping => "while pinging",
            Phase::Clean => "while cleaning one",
            Phase::Suspended => "while another checkout was connecting",
            Phase::Share => "while its route was at its limit",
        };
        write!(
            f,
            "no connection from pool `{name}` within {}, {waits_for}: {} used, {} idle, {} being created of {}, {} waiting{}{}{}",
            rounded(*waited),
            status.used,
            status.idle,
            status.creating,
            status.max,
            status.waiting,
            LongestWait(*longest_wait),
            Holders(holdings),
            OwnConnection(own.as_ref()),
        )?;
        match connecting {
            Some(backoff) => write!(f, "; {backoff}"),
            None => Ok(()),
        }
    }
}

struct LongestWait(Duration);

impl fmt::Display for LongestWait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_zero() { Ok(()) } else { write!(f, " (the first for {})", rounded(self.0)) }
    }
}

struct OwnConnection<'a>(Option<&'a OwnHold>);

impl fmt::Display for OwnConnection<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(OwnHold { operation, call_site, .. }) = self.0 else { return Ok(()) };
        write!(f, "; the waiting task itself held one, checked out for {operation}")?;
        match call_site {
            Some(site) => write!(f, " at {}:{}", site.file(), site.line()),
            None => Ok(()),
        }
    }
}

/// Formats a duration with a precision that suits its size: 1 ms below 10 s, 100 ms below 100 s, else 1 s.
pub(crate) fn rounded(duration: Duration) -> humantime::FormattedDuration {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let step = match millis {
        0..10_000 => 1,
        10_000..100_000 => 100,
        _ => 1000,
    };
    humantime::format_duration(Duration::from_millis(millis / step * step))
}

/// The error of `run`.
///
/// It is an [`Error`](std::error::Error) if `T` is one; `T` may also be an `anyhow::Error` or a boxed error.
#[derive(Debug)]
#[non_exhaustive]
pub enum RunError<T, E: std::error::Error + 'static> {
    /// The checkout failed.
    Checkout(CheckoutError<E>),
    /// The work failed.
    Operation(T),
}

impl<T, E: std::error::Error + 'static> RunError<T, E> {
    /// Returns the outcome that the operation's metrics record.
    #[must_use]
    pub const fn outcome(&self) -> Outcome {
        match self {
            Self::Checkout(error) => error.outcome(),
            Self::Operation(_) => Outcome::Error,
        }
    }
}

impl<T: fmt::Display, E: std::error::Error + 'static> fmt::Display for RunError<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Checkout(error) => error.fmt(f),
            Self::Operation(error) => error.fmt(f),
        }
    }
}

/// Both variants are transparent: the message and the source are those of the contained error.
impl<T: std::error::Error, E: std::error::Error + 'static> std::error::Error for RunError<T, E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Checkout(error) => error.source(),
            Self::Operation(error) => error.source(),
        }
    }
}

/// The error of closing a pool within a time limit, before all connections were returned.
#[derive(Clone, Debug, thiserror::Error)]
#[error(
    "pool `{}` is not closed after {}: {} used, {} being created, {} checkouts in flight{}",
    .usage.name, rounded(*.waited), .usage.status.used, .usage.status.creating,
    .usage.status.in_flight, Holders(&.usage.holdings)
)]
#[non_exhaustive]
pub struct CloseTimeout {
    /// The time that closing waited.
    pub waited: Duration,
    /// The state of the pool. It stays closed, and its connections are closed when they are returned.
    pub usage: PoolUsage,
}

struct Holders<'a>(&'a [Holding]);

impl fmt::Display for Holders<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, holding) in self.0.iter().take(MAX_LISTED_OPERATIONS).enumerate() {
            let lead = if place == 0 { "; held by" } else { "," };
            let Holding { operation, connections, oldest, activities } = holding;
            write!(f, "{lead} {operation} ×{connections} (oldest {}", rounded(*oldest))?;
            let mut mark = ":";
            for (activity, words) in [
                (Activity::Executing, "executing"),
                (Activity::IdleInTransaction, "idle in transaction"),
                (Activity::Idle, "not executing"),
            ] {
                match activities[activity.index()] {
                    0 => continue,
                    all if all == *connections => write!(f, "{mark} {words}")?,
                    some => write!(f, "{mark} {some} {words}")?,
                }
                mark = ",";
            }
            f.write_str(")")?;
        }
        Ok(())
    }
}
