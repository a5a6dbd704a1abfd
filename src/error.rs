//! What can go wrong with a checkout, an operation, and closing.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::event::{Outcome, Phase};
use crate::telemetry::{Holder, PoolSnapshot};

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
            Self::Connect { .. } => Outcome::Error,
            Self::Closed { .. } => Outcome::Closed,
        }
    }
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
    pub pool: PoolSnapshot,
}

/// How many operations a [`TimeoutReport`] names.
const NAMED: usize = 3;

impl fmt::Display for TimeoutReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { waited, phase, pool } = self;
        let waits_for = match phase {
            Phase::Queue => "waiting for one to be returned",
            Phase::Connect => "while connecting",
            Phase::Ping => "while pinging",
            Phase::Clean => "while cleaning one",
        };
        write!(
            f,
            "no connection from pool `{}` within {}, {waits_for}: {} used, {} idle, {} being created of {}, {} waiting",
            pool.name,
            rounded(*waited),
            pool.connections.used,
            pool.connections.idle,
            pool.connections.creating,
            pool.limits.max(),
            pool.queued,
        )?;
        Holders(&pool.holders).fmt(f)
    }
}

/// Operations by how many connections they hold, most first, with the age of each one's oldest hold.
fn by_operation(holders: &[Holder]) -> Vec<(&str, usize, Duration)> {
    let mut counted: Vec<(&str, usize, Duration)> = Vec::new();
    for holder in holders {
        match counted.iter_mut().find(|(operation, ..)| *operation == &*holder.operation) {
            Some((_, count, oldest)) => {
                *count += 1;
                *oldest = holder.age.max(*oldest);
            }
            None => counted.push((&holder.operation, 1, holder.age)),
        }
    }
    counted.sort_by_key(|(_, count, oldest)| std::cmp::Reverse((*count, *oldest)));
    counted
}

/// A duration as a person reads it: no finer than its size deserves.
fn rounded(duration: Duration) -> humantime::FormattedDuration {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let step = match millis {
        0..10_000 => 1,
        10_000..100_000 => 100,
        _ => 1000,
    };
    humantime::format_duration(Duration::from_millis(millis / step * step))
}

/// Why an operation given to `run` has no value to answer with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError<T: std::error::Error + 'static, E: std::error::Error + 'static> {
    /// It got no connection.
    #[error("no connection for the operation")]
    Checkout(#[source] CheckoutError<E>),
    /// It ran and failed.
    #[error(transparent)]
    Operation(T),
}

impl<T: std::error::Error + 'static, E: std::error::Error + 'static> RunError<T, E> {
    /// The outcome as which the operation was counted.
    #[must_use]
    pub const fn outcome(&self) -> Outcome {
        match self {
            Self::Checkout(error) => error.outcome(),
            Self::Operation(_) => Outcome::Error,
        }
    }
}

/// Closing met its deadline before everything had come back.
#[derive(Clone, Debug, thiserror::Error)]
#[error("pool `{}` still has {} connections out after {}{}", .pool.name, .pool.connections.live(), rounded(*.waited), Holders(&.pool.holders))]
#[non_exhaustive]
pub struct CloseTimeout {
    /// For how long closing waited.
    pub waited: Duration,
    /// The pool as it is: it stays closed, and what is out is closed when it comes back.
    pub pool: PoolSnapshot,
}

struct Holders<'a>(&'a [Holder]);

impl fmt::Display for Holders<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (operation, count, oldest)) in by_operation(self.0).iter().take(NAMED).enumerate() {
            let lead = if place == 0 { "; held by" } else { "," };
            write!(f, "{lead} {operation} ×{count} (oldest {})", rounded(*oldest))?;
        }
        Ok(())
    }
}
