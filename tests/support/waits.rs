//! Waits that end in time, for tests with real servers.

use std::time::{Duration, Instant};

/// Long enough for a busy machine; only failing tests wait for it.
pub(crate) const TEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Awaits a future; panics after [`TEST_TIMEOUT`].
pub(crate) async fn with_deadline<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(TEST_TIMEOUT, future).await {
        Ok(value) => value,
        Err(_) => panic!("not within {TEST_TIMEOUT:?}: {what}"),
    }
}

/// Calls `check` until it returns a value; panics after [`TEST_TIMEOUT`].
pub(crate) async fn poll_until<T>(what: &str, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = check().await {
            return value;
        }
        assert!(started.elapsed() < TEST_TIMEOUT, "not within {TEST_TIMEOUT:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Calls `check` until it returns true; panics after [`TEST_TIMEOUT`].
pub(crate) async fn eventually(what: &str, mut check: impl AsyncFnMut() -> bool) {
    poll_until(what, async || check().await.then_some(())).await;
}
