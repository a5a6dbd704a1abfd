//! Notifications of the server (LISTEN), on a connection outside the pool.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::{BoxStream, Stream, unfold};
use tokio::time::{Instant, sleep};
use tokio_postgres::{AsyncMessage, Client, Error};

use super::super::gate::jittered;
use super::super::pool::Pool;
use super::super::shared::Shared;
use super::connect::{Connector, Established};
use super::drive::PolledConnection;
use super::error::error_code;
use super::unpooled::UnpooledTracker;
use crate::labels::ErrorPhase;
use crate::telemetry::ledger::Recorder;
use crate::telemetry::operations::OperationId;
use crate::text::{ErrorChain, Printable, printable};
use crate::wire::AnswerLimit;

/// The bounds of the pause before connecting again. It doubles with each attempt, and is [`jittered`].
const MIN_PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(10);

/// The server truncates longer names of channels.
const MAX_CHANNEL_BYTES: usize = 63;

impl Pool {
    /// Returns a stream of the notifications on `channels`, for the operation named after the caller's file and line.
    ///
    /// The stream has a connection of its own outside the pool and its limit, with the pool's settings. It connects when
    /// it is first polled. If the connection is lost, it connects again, after a pause with jitter of 0.1 s at first and
    /// at most 10 s, and yields [`Notification::Gap`]. While it is not polled, no data is received: the server keeps the
    /// notifications, and eventually fails the NOTIFY of others if its queue is full.
    ///
    /// The stream ends when the pool is closed or its last handle is dropped; it does not hold one itself. Dropping it
    /// closes the connection. [`Listener::next`] awaits the next notification without further traits.
    ///
    /// The connection is counted in `poolscope_unpooled_…`, failed attempts in `poolscope_connection_errors_total`.
    ///
    /// Names of channels are quoted, so they are case-sensitive: `LISTEN Orders` and `NOTIFY Orders` in SQL mean the
    /// channel `orders`. A proxy that shares server connections between clients, as PgBouncer's transaction mode does,
    /// delivers no notifications.
    ///
    /// ```no_run
    /// use poolscope::{Notification, Pool};
    ///
    /// async fn watch_orders(pool: &Pool) -> Result<(), Box<dyn std::error::Error>> {
    ///     let mut notifications = pool.listen(["orders"])?;
    ///     while let Some(notification) = notifications.next().await {
    ///         match notification {
    ///             Notification::Message(message) => println!("{}: {}", message.channel(), message.payload()),
    ///             // Notifications may have been missed: read the current state.
    ///             Notification::Listening | Notification::Gap { .. } => println!("listening"),
    ///             _ => {}
    ///         }
    ///     }
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// Returns an error if there is no channel, or the name of one is invalid. An unreachable server is no error: the
    /// stream waits for it.
    ///
    /// # Panics
    ///
    /// The stream panics if it is polled outside a tokio runtime with its time driver enabled.
    #[track_caller]
    pub fn listen<C: AsRef<str>>(&self, channels: impl IntoIterator<Item = C>) -> Result<Listener, ListenError> {
        let statement = listen_statement(channels)?;
        let shared = Arc::clone(self.shared_handle());
        let (operation, _) = shared.recorder.operation_at(Location::caller());
        let connector = self.backend().connector().with_answers(AnswerLimit::SmallMessages);
        let worker =
            Worker { shared, connector, operation, statement, session: None, pauses: Pauses::default(), lost: None };
        Ok(Listener(unfold(worker, Worker::next).fuse().boxed()))
    }
}

/// An item of a [`Listener`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Notification {
    /// The server listens on the channels for the first time: later notifications are delivered. Read the current state
    /// now rather than before, or a change in between is missed.
    Listening,
    /// A notification of another session, or of this connection's.
    Message(tokio_postgres::Notification),
    /// The connection was lost, and the server listens again. Notifications in between were not delivered.
    #[non_exhaustive]
    Gap {
        /// The time from the moment when the loss was noticed. The connection may have been dead for longer; see the
        /// setting `tcp_keepalive`.
        lasted: Duration,
    },
}

/// The error of [`Pool::listen`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// No channel was given.
    #[error("no channel to listen on: give at least one name")]
    NoChannel,
    /// The name of a channel is empty, too long or has a NUL.
    #[error("invalid channel \"{}\": expected 1 to {MAX_CHANNEL_BYTES} bytes without NUL", Printable(name))]
    #[non_exhaustive]
    InvalidChannel {
        /// The name, as [`Printable`] displays it.
        name: String,
    },
}

/// A stream of notifications, from [`Pool::listen`].
///
/// Dropping it closes the connection.
#[must_use = "it does not connect until it is polled"]
pub struct Listener(BoxStream<'static, Notification>);

impl Listener {
    /// Returns the next notification; `None` once the pool is closed.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing: the next call continues.
    pub async fn next(&mut self) -> Option<Notification> {
        self.0.next().await
    }
}

impl Stream for Listener {
    type Item = Notification;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Notification>> {
        self.0.poll_next_unpin(cx)
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").finish_non_exhaustive()
    }
}

/// Returns the statements that listen on all channels, or why a name is invalid.
fn listen_statement<C: AsRef<str>>(channels: impl IntoIterator<Item = C>) -> Result<String, ListenError> {
    let mut statement = String::new();
    for channel in channels {
        let name = channel.as_ref();
        if name.is_empty() || name.len() > MAX_CHANNEL_BYTES || name.contains('\0') {
            return Err(ListenError::InvalidChannel { name: printable(name).into_owned() });
        }
        statement += &format!("LISTEN \"{}\";", name.replace('"', "\"\""));
    }
    if statement.is_empty() { Err(ListenError::NoChannel) } else { Ok(statement) }
}

/// The state of a stream between two items.
struct Worker {
    shared: Arc<Shared>,
    connector: Connector,
    operation: OperationId,
    statement: String,
    session: Option<Session>,
    pauses: Pauses,
    /// When the last session was found to be lost.
    lost: Option<Instant>,
}

impl Worker {
    async fn next(mut self) -> Option<(Notification, Self)> {
        let shared = Arc::clone(&self.shared);
        let notification = tokio::select! {
            biased;
            () = shared.closing() => return None,
            notification = self.notification() => notification,
        };
        Some((notification, self))
    }

    async fn notification(&mut self) -> Notification {
        loop {
            if let Some(session) = &mut self.session {
                match session.message().await {
                    Ok(message) => return Notification::Message(message),
                    Err(error) => {
                        if let Some(error) = error {
                            self.connector.losses().record(error_code(&error), false, true, &ErrorChain(&error));
                        }
                        self.pauses.ended(session.since.elapsed());
                        self.session = None;
                        self.lost = Some(Instant::now());
                        sleep(self.pauses.next()).await;
                    }
                }
            } else if let Some(session) =
                connect(&self.shared.recorder, &self.connector, self.operation, &self.statement).await
            {
                self.session = Some(session);
                return match self.lost.take() {
                    None => Notification::Listening,
                    Some(lost) => Notification::Gap { lasted: lost.elapsed() },
                };
            } else {
                sleep(self.pauses.next()).await;
            }
        }
    }
}

/// Connects once. A failure is recorded and logged as those of the pool are.
async fn connect(
    recorder: &Recorder,
    connector: &Connector,
    operation: OperationId,
    statement: &str,
) -> Option<Session> {
    let mut tracker = UnpooledTracker::start(recorder, operation);
    match connector.connect_and_execute(statement).await {
        Ok((Established { client, driving: connection, .. }, notifications)) => {
            tracker.opened();
            let received = notifications.into();
            Some(Session { connection, _client: client, received, since: Instant::now(), _tracker: tracker })
        }
        Err(error) => {
            recorder.connection_error(ErrorPhase::Connect, error.code(), &error);
            None
        }
    }
}

/// A connection that listens. Fields are dropped in this order: it is counted until it is closed.
struct Session {
    connection: Box<dyn PolledConnection>,
    /// Without a client the connection would end.
    _client: Client,
    received: VecDeque<tokio_postgres::Notification>,
    since: Instant,
    _tracker: UnpooledTracker,
}

impl Session {
    /// Returns the next notification; `Err` once the connection has ended.
    async fn message(&mut self) -> Result<tokio_postgres::Notification, Option<Error>> {
        if let Some(message) = self.received.pop_front() {
            return Ok(message);
        }
        poll_fn(|cx| {
            loop {
                match ready!(self.connection.poll_message(cx)).transpose() {
                    Ok(Some(message)) => {
                        if let Some(message) = of_a_channel(message) {
                            return Poll::Ready(Ok(message));
                        }
                    }
                    Ok(None) => return Poll::Ready(Err(None)),
                    Err(error) => return Poll::Ready(Err(Some(error))),
                }
            }
        })
        .await
    }
}

fn of_a_channel(message: AsyncMessage) -> Option<tokio_postgres::Notification> {
    match message {
        AsyncMessage::Notification(notification) => Some(notification),
        _ => None,
    }
}

/// The pauses between attempts to connect.
#[derive(Debug, Default)]
struct Pauses {
    /// The number of attempts since a connection was last stable.
    attempts: u32,
}

impl Pauses {
    /// A connection ended after `lived`. If it was stable, the pauses are short again; a server that accepts connections
    /// and ends each at once is not connected to any more often than one that refuses them.
    fn ended(&mut self, lived: Duration) {
        if lived >= MAX_PAUSE {
            self.attempts = 0;
        }
    }

    fn next(&mut self) -> Duration {
        let bound = MIN_PAUSE.saturating_mul(1 << self.attempts.min(16)).min(MAX_PAUSE);
        self.attempts = self.attempts.saturating_add(1);
        jittered(bound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_and_checked() {
        assert_eq!(listen_statement(["a", "B c"]).as_deref(), Ok("LISTEN \"a\";LISTEN \"B c\";"));
        assert_eq!(listen_statement(["x\"; DROP TABLE t"]).as_deref(), Ok("LISTEN \"x\"\"; DROP TABLE t\";"));
        assert_eq!(listen_statement([""; 0]), Err(ListenError::NoChannel));
        for name in ["", "a\0b", &"é".repeat(32)] {
            let error = listen_statement([name]).unwrap_err();
            let shown = name.replace('\0', r"\0");
            assert_eq!(error.to_string(), format!("invalid channel \"{shown}\": expected 1 to 63 bytes without NUL"));
        }
        let error = listen_statement(["\u{1b}[2J".repeat(100_000)]).unwrap_err().to_string();
        assert!(error.chars().count() < 600 && !error.contains(char::is_control), "{error}");
        assert!(listen_statement(["n".repeat(63)]).is_ok());
    }

    #[test]
    fn pauses_double_with_jitter_until_stable() {
        let mut pauses = Pauses::default();
        for bound in [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000].map(Duration::from_millis) {
            let pause = pauses.next();
            assert!((bound / 2..=bound).contains(&pause), "{pause:?} of {bound:?}");
        }
        pauses.ended(MAX_PAUSE - Duration::from_millis(1));
        assert!(pauses.next() >= MAX_PAUSE / 2);
        pauses.ended(MAX_PAUSE);
        assert!(pauses.next() <= MIN_PAUSE);
        let distinct: std::collections::BTreeSet<_> = (0..20).map(|_| Pauses::default().next()).collect();
        assert!(distinct.len() > 10, "{distinct:?}");
    }
}
