//! The errors of checkouts, of operations, and of closing a pool.
//!
//! ```no_run
//! use poolscope::{CheckoutError, Pool};
//! # async fn example(pool: Pool) {
//! match pool.get().await {
//!     Ok(connection) => drop(connection),
//!     Err(CheckoutError::Timeout(report)) => eprintln!("{report}; {} waiting", report.usage.status.waiting),
//!     Err(error) => eprintln!("{error}"),
//! }
//! # }
//! ```

use std::fmt;
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use crate::labels::{Activity, ConnectFailure, ErrorCode, Outcome, Phase};
use crate::telemetry::{OperationUsage, OwnConnection, PoolUsage, Verdict};
use crate::text::ErrorChain;

/// The error of a checkout.
///
/// `E` is the error of the pool's backend when connecting fails. The message is one line that contains the cause, so that
/// [`source`](std::error::Error::source) is `None`: the variants' fields have the errors underneath.
#[derive(Debug)]
#[non_exhaustive]
pub enum CheckoutError<E: std::error::Error + 'static> {
    /// No connection was available within `checkout_timeout`.
    Timeout(Box<TimeoutReport>),
    /// A new connection was needed, and connecting failed.
    Connect {
        /// The pool's name.
        pool: Arc<str>,
        /// The error of the backend.
        source: E,
    },
    /// A new connection is needed, but connecting has just failed: another checkout is retrying, or will after a pause.
    /// See the setting `fail_fast`.
    Unavailable {
        /// The pool's name.
        pool: Arc<str>,
        /// The state of connecting.
        source: ConnectBackoff,
    },
    /// The pool was closed, before the checkout or while it waited.
    Closed {
        /// The pool's name.
        pool: Arc<str>,
    },
}

impl<E: std::error::Error + 'static> fmt::Display for CheckoutError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeout(report) => report.fmt(f),
            Self::Connect { pool, source } => write!(f, "pool `{pool}` cannot connect: {}", ErrorChain(source)),
            Self::Unavailable { pool, source } => write!(f, "pool `{pool}` cannot connect now: {source}"),
            Self::Closed { pool } => write!(f, "pool `{pool}` is closed"),
        }
    }
}

impl<E: std::error::Error + 'static> std::error::Error for CheckoutError<E> {}

impl<E: std::error::Error + 'static> CheckoutError<E> {
    /// Returns the outcome under which the checkout was counted.
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
#[error("connecting has been failing for {}{}: {message}", human(*failing_for), cause(*failure))]
#[non_exhaustive]
pub struct ConnectBackoff {
    /// The time since connecting first failed.
    pub failing_for: Duration,
    /// The kind of the last failure.
    pub failure: ConnectFailure,
    /// The code of the last failure, as in the label `error_type`.
    pub code: ErrorCode,
    /// The message of the last failure and its causes, on one line.
    pub message: Arc<str>,
    /// Whether the checkout connected itself, and its attempt was given up.
    pub(crate) attempted: bool,
}

/// Returns what a message adds about a failure that does not pass by itself.
fn cause(failure: ConnectFailure) -> &'static str {
    match failure {
        ConnectFailure::Configuration => " because of the credentials or the configuration",
        _ => "",
    }
}

/// The state of the pool when a checkout timed out. Displays as the error message.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TimeoutReport {
    /// The operation that the checkout was for.
    pub operation: Arc<str>,
    /// Where the checkout was made.
    pub call_site: &'static Location<'static>,
    /// The method and route of the request that it was for, if the [`middleware`](crate::middleware) serves one.
    pub route: Option<Arc<str>>,
    /// The time since the checkout's first poll.
    pub waited: Duration,
    /// What it was waiting for when it timed out.
    pub phase: Phase,
    /// For how long it had been waiting for that.
    pub phase_waited: Duration,
    /// The usage of the pool, without this checkout.
    pub usage: PoolUsage,
    /// A connection that the waiting task itself holds, if any: the checkout may have been waiting for itself.
    pub own_connection: Option<OwnConnection>,
    /// The state of connecting, if it fails.
    pub backoff: Option<ConnectBackoff>,
    /// Present if the checkout's task did not poll it when it was woken: it may have timed out only because of that.
    pub late_poll: Option<LatePoll>,
    /// The last verdict about the pool, if it is diagnosed. The message ends with it if it names a problem.
    pub verdict: Option<Arc<Verdict>>,
}

impl TimeoutReport {
    /// Returns whether the checkout timed out because connecting took longer than `checkout_timeout`, rather than because
    /// it had waited for something else before.
    pub(crate) fn is_connecting_too_slow(&self) -> bool {
        self.phase == Phase::Connect && self.phase_waited >= self.waited / 2
    }
}

/// A poll of a checkout long after it was woken, as by a task that keeps the future and awaits another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LatePoll {
    /// When it was woken, counted from its first poll: what it waited for was there, or its deadline had passed.
    pub ready_at: Duration,
    /// When it was polled next, counted from its first poll.
    pub polled_at: Duration,
}

/// The maximum number of operations that an error message names.
const MAX_NAMED_OPERATIONS: usize = 3;

impl fmt::Display for TimeoutReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { waited, phase, usage, own_connection, backoff, late_poll, verdict, .. } = self;
        let waiting_for = match phase {
            Phase::Queue => "waiting for one to be returned",
            Phase::Connect if self.is_connecting_too_slow() => "as connecting takes longer than checkout_timeout",
            Phase::Connect => "while connecting",
            Phase::Ping => "while pinging",
            Phase::Clean => "while resetting one",
            Phase::Hook => "in the hook before_checkout",
            Phase::Suspended => "while another checkout was connecting",
            Phase::Share => "while its route was at its limit",
        };
        write!(
            f,
            "no connection from pool `{}` for {} within {}, {waiting_for}: {}{}{}",
            usage.name,
            Requester(self),
            human(*waited),
            Usage(usage),
            OwnConnectionNote(own_connection.as_ref()),
            LatePollNote(late_poll.as_ref()),
        )?;
        if let Some(backoff) = backoff {
            write!(f, "; {backoff}")?;
        }
        match verdict.as_deref().filter(|verdict| verdict.is_problem()) {
            Some(verdict) => write!(f, "; diagnosis: {verdict}"),
            None => Ok(()),
        }
    }
}

/// The connections of a pool by state, its waiting checkouts, and the holders.
pub(crate) struct Usage<'a>(pub(crate) &'a PoolUsage);

impl fmt::Display for Usage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PoolUsage { status, longest_wait, operations, .. } = self.0;
        write!(
            f,
            "{} used, {} idle, {} being created{} of {}, {} waiting{}{}",
            status.used,
            status.idle,
            status.creating,
            Closing(status.closing),
            status.max,
            status.waiting,
            LongestWait(*longest_wait),
            Holders(operations),
        )
    }
}

/// What a checkout was for: its operation, its route, and its call site, unless the operation's name says the same.
struct Requester<'a>(&'a TimeoutReport);

impl fmt::Display for Requester<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TimeoutReport { operation, call_site, route, .. } = self.0;
        f.write_str(operation)?;
        if let Some(route) = route.as_ref().filter(|route| *route != operation) {
            write!(f, " of {route}")?;
        }
        let call_site = format!("{}:{}", call_site.file(), call_site.line());
        if *call_site == **operation { Ok(()) } else { write!(f, " at {call_site}") }
    }
}

/// The connections that the server has not let go of, if there are any.
struct Closing(usize);

impl fmt::Display for Closing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            Ok(())
        } else {
            write!(f, ", {} closing (the server still executes abandoned queries)", self.0)
        }
    }
}

struct LongestWait(Duration);

impl fmt::Display for LongestWait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_zero() { Ok(()) } else { write!(f, " (the first for {})", human(self.0)) }
    }
}

struct OwnConnectionNote<'a>(Option<&'a OwnConnection>);

impl fmt::Display for OwnConnectionNote<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(OwnConnection { operation, call_site, .. }) = self.0 else { return Ok(()) };
        write!(f, "; the waiting task itself held one, checked out for {operation}")?;
        match call_site {
            Some(site) => write!(f, " at {}:{}", site.file(), site.line()),
            None => Ok(()),
        }
    }
}

struct LatePollNote<'a>(Option<&'a LatePoll>);

impl fmt::Display for LatePollNote<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(LatePoll { ready_at, polled_at }) = self.0 else { return Ok(()) };
        let (ready_at, polled_at) = (human(*ready_at), human(*polled_at));
        write!(f, "; its task did not poll the checkout: ready at {ready_at}, polled at {polled_at}")
    }
}

/// Returns a duration for display, rounded to three or four significant digits.
pub(crate) fn human(duration: Duration) -> humantime::FormattedDuration {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let step = match millis {
        0..10_000 => 1,
        10_000..100_000 => 100,
        _ => 1000,
    };
    humantime::format_duration(Duration::from_millis(millis / step * step))
}

/// The error of an operation that was passed to `run`.
///
/// Implements [`Error`](std::error::Error) if `T` does; `T` may also be an `anyhow::Error` or a boxed error.
#[derive(Debug)]
#[non_exhaustive]
pub enum RunError<T, E: std::error::Error + 'static> {
    /// The operation got no connection.
    Checkout(CheckoutError<E>),
    /// The operation itself failed.
    Operation(T),
}

impl<T, E: std::error::Error + 'static> RunError<T, E> {
    /// Returns the outcome under which the operation was counted.
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

/// Transparent: both variants display, and have the source of, the error they contain.
impl<T: std::error::Error, E: std::error::Error + 'static> std::error::Error for RunError<T, E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Checkout(error) => error.source(),
            Self::Operation(error) => error.source(),
        }
    }
}

/// The error of closing a pool that still had connections in use, or checkouts in flight, at the deadline.
#[derive(Clone, Debug, thiserror::Error)]
#[error(
    "pool `{}` is not closed after {}: {} used, {} being created{}, {} checkouts in flight{}",
    .usage.name, human(*.waited), .usage.status.used, .usage.status.creating, Closing(.usage.status.closing),
    .usage.status.in_flight, Holders(&.usage.operations)
)]
#[non_exhaustive]
pub struct CloseTimeout {
    /// The time for which closing waited.
    pub waited: Duration,
    /// The usage of the pool. It stays closed, and connections are closed when they are returned.
    pub usage: PoolUsage,
}

struct Holders<'a>(&'a [OperationUsage]);

impl fmt::Display for Holders<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, usage) in self.0.iter().take(MAX_NAMED_OPERATIONS).enumerate() {
            let lead = if index == 0 { "; held by" } else { "," };
            let OperationUsage { operation, connections, oldest, activities } = usage;
            write!(f, "{lead} {operation} ×{connections} (oldest {}", human(*oldest))?;
            let mut separator = ":";
            for (activity, text) in [
                (Activity::Executing, "executing"),
                (Activity::IdleInTransaction, "idle in transaction"),
                (Activity::Idle, "not executing"),
            ] {
                match activities[activity.index()] {
                    0 => continue,
                    all if all == *connections => write!(f, "{separator} {text}")?,
                    some => write!(f, "{separator} {some} {text}")?,
                }
                separator = ",";
            }
            f.write_str(")")?;
        }
        Ok(())
    }
}
