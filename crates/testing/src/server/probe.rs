//! Whether a server takes connections: by connecting to it.

use std::io;
use std::path::Path;
use std::thread;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Config, NoTls};

use super::POSTGRES;

/// Whether the server behind `socket` takes connections. Returns only when the connection that found out
/// has given up its slot, so that nobody meets it later in `pg_stat_activity` or at the limit.
pub(super) async fn answers(socket: &Path) -> bool {
    let Ok((stream, mut witness)) = connect(socket).await else {
        return false;
    };
    match Config::new().user(POSTGRES).dbname(POSTGRES).connect_raw(stream, NoTls).await {
        Ok((client, connection)) => {
            drop(client);
            let _ = connection.await;
        }
        Err(error) => return error.code() == Some(&SqlState::TOO_MANY_CONNECTIONS),
    }
    // A backend leaves its socket open until its process is gone.
    let _ = witness.read_to_end(&mut Vec::new()).await;
    true
}

/// A stream, and a second handle to see its end by.
async fn connect(socket: &Path) -> io::Result<(UnixStream, UnixStream)> {
    let stream = UnixStream::connect(socket).await?.into_std()?;
    let witness = stream.try_clone()?;
    Ok((UnixStream::from_std(stream)?, UnixStream::from_std(witness)?))
}

/// Waits for a moment of real time. A test's paused clock would skip tokio's own timers.
pub(super) async fn pause() {
    let _ = tokio::task::spawn_blocking(|| thread::sleep(Duration::from_millis(5))).await;
}
