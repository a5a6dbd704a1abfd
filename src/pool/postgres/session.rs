//! What a session is left with and how to undo it, and whether it takes writes.

use tokio_postgres::{Client, Error, SimpleQueryMessage};

use crate::labels::Dirt;

/// Counts what was left, then undoes it: what `DISCARD ALL` does, but for prepared statements, which are cached.
///
/// One round trip, and as one query one transaction. The names are whole, since `search_path` is among what may have
/// been changed. A role that was set shows in no list of settings. Where there is no temporary schema, as mostly, the
/// catalogue is not searched for what is in it.
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

/// What the columns of the answer count.
const COUNTED: [Dirt; 4] = [Dirt::Settings, Dirt::AdvisoryLocks, Dirt::Listen, Dirt::TemporaryTables];

/// Asks whether the server takes no writes: whether it is a standby, or was told so as a whole. What a session, a user
/// or a database has chosen for itself says nothing of the server.
const READ_ONLY_SERVER: &str = "\
    SELECT pg_catalog.pg_is_in_recovery() OR EXISTS (SELECT FROM pg_catalog.pg_settings \
     WHERE name OPERATOR(pg_catalog.=) 'default_transaction_read_only' AND setting OPERATOR(pg_catalog.=) 'on' \
       AND source OPERATOR(pg_catalog.=) ANY ('{configuration file,command line,environment variable}'::pg_catalog.text[]))";

/// Asks whether the server takes no writes.
pub(super) async fn is_read_only(client: &Client) -> Result<bool, Error> {
    Ok(first(&client.simple_query(READ_ONLY_SERVER).await?)?.is_some_and(|answer| answer == "t"))
}

/// Asks whether transactions of the session only read from their beginning, as libpq does for `target_session_attrs`.
pub(super) const TRANSACTION_READ_ONLY: &str = "SHOW transaction_read_only";

/// The first column of an answer's first row.
pub(super) fn first(answer: &[SimpleQueryMessage]) -> Result<Option<&str>, Error> {
    let row = answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    row.map_or(Ok(None), |row| row.try_get(0))
}

/// Undoes what a session was left with; answers what that was.
pub(super) async fn reset(client: &Client) -> Result<Vec<Dirt>, Error> {
    let answer = client.simple_query(RESET).await?;
    let row = answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let left = |place: usize| row.and_then(|row| row.get(place)).is_some_and(|count| count != "0");
    Ok(COUNTED.into_iter().enumerate().filter(|(place, _)| left(*place)).map(|(_, dirt)| dirt).collect())
}
