//! Checks whether a server accepts connections, by connecting.

use std::io;
use std::path::Path;
use std::thread;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Config, NoTls};

use super::POSTGRES;

/// Returns whether the server at `socket` accepts connections. Waits until the connection has released its
/// slot, so that it does not show in `pg_stat_activity` or count against `max_connections` later.
pub(super) async fn accepts_connections(socket: &Path) -> bool {
    let Ok((stream, mut duplicate)) = connect(socket).await else {
        return false;
    };
    match Config::new().user(POSTGRES).dbname(POSTGRES).connect_raw(stream, NoTls).await {
        Ok((client, connection)) => {
            drop(client);
            let _ = connection.await;
        }
        Err(error) => return error.code() == Some(&SqlState::TOO_MANY_CONNECTIONS),
    }
    // A backend keeps its socket open until its process ends.
    let _ = duplicate.read_to_end(&mut Vec::new()).await;
    true
}

/// Connects, and returns the stream and a second handle that reads its end.
async fn connect(socket: &Path) -> io::Result<(UnixStream, UnixStream)> {
    let stream = UnixStream::connect(socket).await?.into_std()?;
    let duplicate = stream.try_clone()?;
    Ok((UnixStream::from_std(stream)?, UnixStream::from_std(duplicate)?))
}

/// Sleeps 5 ms of real time; a test's paused clock would skip tokio's timers.
pub(super) async fn pause() {
    let _ = tokio::task::spawn_blocking(|| thread::sleep(Duration::from_millis(5))).await;
}
