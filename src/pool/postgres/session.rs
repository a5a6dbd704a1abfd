//! The state of a session: its reset, and whether it accepts writes.

use std::pin::pin;

use futures_util::TryStreamExt as _;
use tokio_postgres::{Client, Error, SimpleQueryMessage};

use super::error::ConnectError;
use crate::labels::Dirt;

/// The messages of an answer to a query of the pool itself, which are at most about twenty.
pub(super) const MAX_OWN_MESSAGES: usize = 256;

/// The bytes of the values in such an answer in total, in which the names of a few settings are the longest.
pub(super) const MAX_OWN_BYTES: usize = 1024 * 1024;

/// The first messages of an answer.
pub(super) struct BoundedAnswer {
    pub(super) messages: Vec<SimpleQueryMessage>,
    /// Whether the answer has as many messages or bytes as it may, or more.
    pub(super) is_too_long: bool,
}

/// Executes a query of the pool itself, and returns its answer.
///
/// # Errors
///
/// Returns [`ConnectError::Answer`] if the answer is too long. What follows is discarded as it arrives.
pub(super) async fn own_query(client: &Client, query: &str) -> Result<Vec<SimpleQueryMessage>, ConnectError> {
    let answer = bounded_query(client, query, MAX_OWN_MESSAGES, MAX_OWN_BYTES).await.map_err(ConnectError::query)?;
    if answer.is_too_long { Err(ConnectError::Answer {}) } else { Ok(answer.messages) }
}

/// Executes a query, and returns the first messages of its answer: fewer than `max_messages`, with fewer than `max_bytes`
/// in total. A message is received before it is counted, so that at most one more is in memory.
pub(super) async fn bounded_query(
    client: &Client,
    query: &str,
    max_messages: usize,
    max_bytes: usize,
) -> Result<BoundedAnswer, Error> {
    let mut answer = pin!(client.simple_query_raw(query).await?);
    let (mut messages, mut bytes) = (Vec::new(), 0_usize);
    while let Some(message) = answer.try_next().await? {
        bytes = bytes.saturating_add(size_of_message(&message));
        if messages.len() + 1 >= max_messages || bytes >= max_bytes {
            return Ok(BoundedAnswer { messages, is_too_long: true });
        }
        messages.push(message);
    }
    Ok(BoundedAnswer { messages, is_too_long: false })
}

/// Returns about how much memory a message takes.
fn size_of_message(message: &SimpleQueryMessage) -> usize {
    /// What is kept for each column beside its text.
    const COLUMN_BYTES: usize = 32;
    match message {
        SimpleQueryMessage::Row(row) => {
            (0..row.len()).map(|column| COLUMN_BYTES + row.get(column).map_or(0, str::len)).sum()
        }
        SimpleQueryMessage::RowDescription(columns) => {
            columns.iter().map(|column| COLUMN_BYTES + column.name().len()).sum()
        }
        _ => 0,
    }
}

/// Counts the state that the session's user left, then resets it like `DISCARD ALL`, except for prepared statements,
/// which are cached.
///
/// One round trip and, as a single query, one transaction. Names are qualified, since `search_path` may have been
/// changed. A role set with `SET ROLE` is not listed in `pg_settings`. Without a temporary schema, the usual case,
/// `pg_class` is not searched.
///
/// Source: PostgreSQL's documentation of DISCARD.
const RESET: &str = "\
    SELECT (SELECT pg_catalog.count(*) FROM pg_catalog.pg_settings WHERE source OPERATOR(pg_catalog.=) 'session') \
         OPERATOR(pg_catalog.+) (pg_catalog.current_setting('role') OPERATOR(pg_catalog.<>) 'none')::pg_catalog.int4, \
           (SELECT pg_catalog.count(*) FROM pg_catalog.pg_locks \
             WHERE locktype OPERATOR(pg_catalog.=) 'advisory' \
               AND pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()), \
           (SELECT pg_catalog.count(*) FROM pg_catalog.pg_listening_channels()), \
           (SELECT pg_catalog.count(*) FROM pg_catalog.pg_class \
             WHERE pg_catalog.pg_my_temp_schema() OPERATOR(pg_catalog.<>) 0::pg_catalog.oid \
               AND relnamespace OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema()); \
    CLOSE ALL; SET SESSION AUTHORIZATION DEFAULT; RESET ROLE; RESET ALL; UNLISTEN *; \
    SELECT pg_catalog.pg_advisory_unlock_all(); DISCARD TEMP; DISCARD SEQUENCES";

/// The kinds of state counted by the columns of the answer.
const RESET_COLUMNS: [Dirt; 4] = [Dirt::Settings, Dirt::AdvisoryLocks, Dirt::Listen, Dirt::TemporaryTables];

/// Queries whether the server rejects writes: whether it is a standby, or `default_transaction_read_only` is set for
/// the whole server. The setting of a session, a user or a database does not count.
const READ_ONLY_SERVER: &str = "\
    SELECT pg_catalog.pg_is_in_recovery() OR EXISTS (SELECT FROM pg_catalog.pg_settings \
     WHERE name OPERATOR(pg_catalog.=) 'default_transaction_read_only' AND setting OPERATOR(pg_catalog.=) 'on' \
       AND source OPERATOR(pg_catalog.=) ANY ('{configuration file,command line,environment variable}'::pg_catalog.text[]))";

/// Returns whether the server rejects writes.
pub(super) async fn is_read_only(client: &Client) -> Result<bool, ConnectError> {
    let answer = own_query(client, READ_ONLY_SERVER).await?;
    Ok(first_column(&answer).map_err(ConnectError::query)?.is_some_and(|answer| answer == "t"))
}

/// Queries whether the session's transactions are read-only by default, like libpq for `target_session_attrs`.
pub(super) const SHOW_TRANSACTION_READ_ONLY: &str = "SHOW transaction_read_only";

/// Returns the first column of the first row.
pub(super) fn first_column(answer: &[SimpleQueryMessage]) -> Result<Option<&str>, Error> {
    let row = answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    row.map_or(Ok(None), |row| row.try_get(0))
}

/// Resets the session, and returns the kinds of state that were reset.
pub(super) async fn reset(client: &Client) -> Result<Vec<Dirt>, ConnectError> {
    let answer = own_query(client, RESET).await?;
    let row = answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let was_left = |column: usize| row.and_then(|row| row.get(column)).is_some_and(|count| count != "0");
    Ok(RESET_COLUMNS.into_iter().enumerate().filter(|(column, _)| was_left(*column)).map(|(_, dirt)| dirt).collect())
}
