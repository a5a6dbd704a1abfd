//! Faults of the cache.

use std::sync::Arc;
use std::time::Duration;

use poolscope::redis;
use poolscope_testing::redis::Server;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{MissedTickBehavior, interval};

use crate::demo::cache::ProductCache;
use crate::demo::error::DemoError;

/// The time between two removals of all values.
const FLUSH_INTERVAL: Duration = Duration::from_millis(100);

/// A fault of the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CacheFault {
    None,
    /// The Redis server is killed.
    Down,
    /// All values are removed again and again, so that many keys are cold at once.
    Stampede,
}

impl CacheFault {
    /// Injects the fault.
    pub(super) async fn inject(self, cache: Option<&ProductCache>) -> Result<InjectedCacheFault, DemoError> {
        match (self, cache) {
            (Self::Down, Some(cache)) => {
                let server = Arc::clone(&cache.server);
                let killed = spawn_blocking(move || server.kill().map(|()| server)).await.map_err(DemoError::system)?;
                Ok(InjectedCacheFault::Down(killed.map_err(DemoError::Redis)?))
            }
            (Self::Stampede, Some(cache)) => {
                Ok(InjectedCacheFault::Stampede(tokio::spawn(flush_repeatedly(cache.pool.clone()))))
            }
            _ => Ok(InjectedCacheFault::None),
        }
    }
}

/// An injected fault.
#[derive(Debug)]
pub(super) enum InjectedCacheFault {
    None,
    Down(Arc<Server>),
    Stampede(JoinHandle<()>),
}

impl InjectedCacheFault {
    /// Removes the fault.
    pub(super) async fn remove(self) -> Result<(), DemoError> {
        match self {
            Self::None => {}
            Self::Down(server) => server.start().await.map_err(DemoError::Redis)?,
            Self::Stampede(task) => {
                task.abort();
                let _ = task.await;
            }
        }
        Ok(())
    }
}

/// Removes all values again and again. Never returns.
async fn flush_repeatedly(pool: redis::Pool) {
    let flush = pool.operation("flush");
    let mut ticks = interval(FLUSH_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let command = redis::redis::cmd("FLUSHALL");
        let flushed = flush
            .clone()
            .run(async |connection: &mut redis::Connection| command.query_async::<()>(connection).await)
            .await;
        if let Err(error) = flushed {
            tracing::debug!(%error, "cannot remove the cached values");
        }
    }
}
