//! What can go wrong with a checkout, an operation, and closing.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::labels::{Activity, ErrorCode, Outcome, Phase};
use crate::telemetry::{Holding, OwnHold, PoolUsage};

/// Why a checkout gave no connection.
///
/// `E` is what the pool's backend says when connecting fails.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckoutError<E: std::error::Error + 'static> {
    /// No connection within `checkout_timeout`.
    #[error("{0}")]
    Timeout(Box<TimeoutReport>),
    /// A connection had to be made, and that failed.
    #[error("pool `{pool}` cannot connect")]
    Connect {
        /// The pool's name.
        pool: Arc<str>,
        /// What the backend said.
        #[source]
        source: E,
    },
    /// A connection would have to be made, and connecting has just failed: another checkout is trying, or will after a
    /// pause. See the setting `fail_fast`.
    #[error("pool `{pool}` cannot connect now")]
    Unavailable {
        /// The pool's name.
        pool: Arc<str>,
        /// How connecting stands.
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
    /// The outcome as which this checkout was counted.
    #[must_use]
    pub const fn outcome(&self) -> Outcome {
        match self {
            Self::Timeout(_) => Outcome::Timeout,
            Self::Connect { .. } | Self::Unavailable { .. } => Outcome::Error,
            Self::Closed { .. } => Outcome::Closed,
        }
    }
}

/// How connecting stands while it fails.
#[derive(Clone, Debug, thiserror::Error)]
#[error("connecting has been failing for {}: {message}", rounded(*failing_for))]
#[non_exhaustive]
pub struct ConnectBackoff {
    /// For how long it has.
    pub failing_for: Duration,
    /// What the last failure says in the `sqlstate` label.
    pub code: ErrorCode,
    /// What it said, with its causes, on one line.
    pub message: Arc<str>,
}

/// The pool as it was when a checkout met its deadline: who holds it, and how many wait.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TimeoutReport {
    /// For how long the checkout waited.
    pub waited: Duration,
    /// What it was waiting for at the end.
    pub phase: Phase,
    /// The pool, without this checkout.
    pub usage: PoolUsage,
    /// The connection that this checkout's own task held while it waited: it may have waited for itself.
    pub own: Option<OwnHold>,
    /// How connecting stands, if it fails.
    pub connecting: Option<ConnectBackoff>,
}

/// How many operations a [`TimeoutReport`] names.
const NAMED: usize = 3;

impl fmt::Display for TimeoutReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { waited, phase, usage: PoolUsage { name, status, longest_wait, holdings }, own, connecting } = self;
        let waits_for = match phase {
            Phase::Queue => "waiting for one to be returned",
            Phase::Connect => "while connecting",
            Phase::Ping => "while pinging",
            Phase::Clean => "while cleaning one",
            Phase::Suspended => "while connecting was left to others",
            Phase::Share => "while its route held its share",
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
            Longest(*longest_wait),
            Holders(holdings),
            Own(own.as_ref()),
        )?;
        match connecting {
            Some(backoff) => write!(f, "; {backoff}"),
            None => Ok(()),
        }
    }
}

struct Longest(Duration);

impl fmt::Display for Longest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_zero() { Ok(()) } else { write!(f, " (the first for {})", rounded(self.0)) }
    }
}

struct Own<'a>(Option<&'a OwnHold>);

impl fmt::Display for Own<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(OwnHold { operation, call_site, .. }) = self.0 else { return Ok(()) };
        write!(f, "; this very task held one itself, checked out for {operation}")?;
        match call_site {
            Some(site) => write!(f, " at {}:{}", site.file(), site.line()),
            None => Ok(()),
        }
    }
}

/// A duration as a person reads it: no finer than its size deserves.
pub(crate) fn rounded(duration: Duration) -> humantime::FormattedDuration {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let step = match millis {
        0..10_000 => 1,
        10_000..100_000 => 100,
        _ => 1000,
    };
    humantime::format_duration(Duration::from_millis(millis / step * step))
}

/// Why an operation given to `run` has no value to answer with.
///
/// It is an [`Error`](std::error::Error) where `T` is one; `T` may as well be an `anyhow::Error` or a boxed one.
#[derive(Debug)]
#[non_exhaustive]
pub enum RunError<T, E: std::error::Error + 'static> {
    /// It got no connection.
    Checkout(CheckoutError<E>),
    /// It ran and failed.
    Operation(T),
}

impl<T, E: std::error::Error + 'static> RunError<T, E> {
    /// The outcome as which the operation was counted.
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

/// Both kinds stand for themselves: what they say and what is behind them is the error's own.
impl<T: std::error::Error, E: std::error::Error + 'static> std::error::Error for RunError<T, E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Checkout(error) => error.source(),
            Self::Operation(error) => error.source(),
        }
    }
}

/// Closing met its deadline before everything had come back.
#[derive(Clone, Debug, thiserror::Error)]
#[error(
    "pool `{}` is not closed after {}: {} used, {} being created, {} checkouts in flight{}",
    .usage.name, rounded(*.waited), .usage.status.used, .usage.status.creating,
    .usage.status.in_flight, Holders(&.usage.holdings)
)]
#[non_exhaustive]
pub struct CloseTimeout {
    /// For how long closing waited.
    pub waited: Duration,
    /// The pool as it is: it stays closed, and what is out is closed when it comes back.
    pub usage: PoolUsage,
}

struct Holders<'a>(&'a [Holding]);

impl fmt::Display for Holders<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, holding) in self.0.iter().take(NAMED).enumerate() {
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
