//! Cancel requests, each of which has a connection of its own.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use super::stream::Stream;
use super::upstream::Upstream;
use crate::telemetry::log::{Limiter, event};

/// How long the server may take to process a request.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(10);

/// Forwards a cancel request, and keeps the client's connection open until the server has closed its own: only then has it
/// sent the signal.
pub(super) async fn forward(mut client: Stream, request: &[u8], upstream: &Upstream) {
    static FAILURES: Limiter = Limiter::new();
    if let Err(error) =
        timeout(CANCEL_TIMEOUT, send(request, upstream)).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        && let Some(suppressed) = FAILURES.pass_now()
    {
        event!(warn, %error, suppressed, "could not forward a cancel request");
    }
    let _ = client.shutdown().await;
}

async fn send(request: &[u8], upstream: &Upstream) -> io::Result<()> {
    let mut server = upstream.connect().await.map_err(io::Error::other)?;
    server.write_all(request).await?;
    server.flush().await?;
    let mut discarded = [0; 64];
    // A server that closes with unread data resets the connection.
    while server.read(&mut discarded).await.is_ok_and(|bytes| bytes > 0) {}
    Ok(())
}
