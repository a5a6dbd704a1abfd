//! A bounded number of turns at work that may block, off the runtime's workers.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::timeout;

/// The turns there are. A clone shares them.
#[derive(Clone, Debug)]
pub(super) struct Turns {
    free: Arc<Semaphore>,
    at_once: usize,
    max_wait: Duration,
}

/// Why work was not done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Undone {
    /// As many turns as there are were taken, and none of them ended in time.
    Busy { at_once: usize, waited: Duration },
    /// It panicked, and said this: for the log, since it is not known to be fit for strangers.
    Panicked(String),
    /// The runtime is going away and starts no more work.
    Stopping,
}

impl Turns {
    pub(super) fn new(at_once: usize, max_wait: Duration) -> Self {
        Self { free: Arc::new(Semaphore::new(at_once)), at_once, max_wait }
    }

    /// Does `work` on a blocking thread, once it is its turn.
    ///
    /// # Cancel safety
    ///
    /// Work that has begun goes on to its end, and keeps its turn until then: threads that hang cannot pile up.
    pub(super) async fn take<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Undone> {
        let turn = match timeout(self.max_wait, Arc::clone(&self.free).acquire_owned()).await {
            Ok(Ok(turn)) => turn,
            Ok(Err(_closed)) => return Err(Undone::Stopping),
            Err(_elapsed) => return Err(Undone::Busy { at_once: self.at_once, waited: self.max_wait }),
        };
        let working = spawn_blocking(move || {
            let _turn = turn;
            work()
        });
        working.await.map_err(failed_to_join)
    }
}

fn failed_to_join(error: JoinError) -> Undone {
    let Ok(panic) = error.try_into_panic() else {
        return Undone::Stopping;
    };
    let message = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("(no message)");
    Undone::Panicked(message.to_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    const SHORT: Duration = Duration::from_millis(50);

    #[tokio::test]
    async fn work_is_done_off_the_runtimes_workers() {
        let thread = Turns::new(1, SHORT).take(|| thread::current().id()).await;
        assert_ne!(thread, Ok(thread::current().id()));
    }

    #[tokio::test]
    async fn work_that_nobody_waits_for_any_more_keeps_its_turn_to_its_end() {
        let turns = Turns::new(1, SHORT);
        let (release, released) = mpsc::channel::<()>();
        let hangs = turns.take(move || released.recv());
        timeout(SHORT, hangs).await.expect_err("it hangs");

        let busy = Undone::Busy { at_once: 1, waited: SHORT };
        assert_eq!(turns.take(|| ()).await, Err(busy));

        drop(release);
        let patient = Turns { max_wait: Duration::from_secs(20), ..turns };
        assert_eq!(patient.take(|| ()).await, Ok(()));
    }

    #[tokio::test]
    async fn a_panic_gives_the_turn_back() {
        let turns = Turns::new(1, SHORT);
        let panicked = turns.take(|| panic!("no {}", "luck")).await;
        assert_eq!(panicked, Err::<(), _>(Undone::Panicked("no luck".to_owned())));
        assert_eq!(turns.take(|| 1).await, Ok(1));
    }
}
