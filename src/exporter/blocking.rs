//! Runs a bounded number of blocking jobs, off the runtime's workers.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::timeout;

use crate::text::printable;

/// A limit on concurrent blocking jobs. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct BlockingLimiter {
    permits: Arc<Semaphore>,
    max_running: usize,
    queue_timeout: Duration,
}

/// Why a job has no result.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum JobError {
    /// As many jobs as may run were running, and none ended within `waited`.
    Busy { max_running: usize, waited: Duration },
    /// The job panicked with this message. It is for the log only: it may not be fit for clients.
    Panicked(String),
    /// The runtime is shutting down and starts no more jobs.
    ShuttingDown,
}

impl BlockingLimiter {
    /// Creates a limit of `max_running` jobs, for which others wait up to `queue_timeout`.
    pub(super) fn new(max_running: usize, queue_timeout: Duration) -> Self {
        Self { permits: Arc::new(Semaphore::new(max_running)), max_running, queue_timeout }
    }

    /// Runs `job` on a blocking thread.
    ///
    /// # Cancel safety
    ///
    /// A job that has started runs to its end and holds its permit until then, so that jobs that hang cannot pile up
    /// threads.
    pub(super) async fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Result<T, JobError> {
        let permit = match timeout(self.queue_timeout, Arc::clone(&self.permits).acquire_owned()).await {
            Ok(Ok(permit)) => permit,
            Ok(Err(_closed)) => return Err(JobError::ShuttingDown),
            Err(_elapsed) => return Err(JobError::Busy { max_running: self.max_running, waited: self.queue_timeout }),
        };
        let running = spawn_blocking(move || {
            let _permit = permit;
            job()
        });
        running.await.map_err(JobError::from)
    }
}

impl From<JoinError> for JobError {
    fn from(error: JoinError) -> Self {
        let Ok(panic) = error.try_into_panic() else { return Self::ShuttingDown };
        let message = panic
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
            .unwrap_or("(no message)");
        Self::Panicked(printable(message).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    const QUEUE_TIMEOUT: Duration = Duration::from_millis(50);

    #[tokio::test]
    async fn jobs_run_off_the_runtimes_workers() {
        let thread = BlockingLimiter::new(1, QUEUE_TIMEOUT).run(|| thread::current().id()).await;
        assert_ne!(thread, Ok(thread::current().id()));
    }

    #[tokio::test]
    async fn abandoned_job_holds_its_permit_to_its_end() {
        let limiter = BlockingLimiter::new(1, QUEUE_TIMEOUT);
        let (release, released) = mpsc::channel::<()>();
        let hanging = limiter.run(move || released.recv());
        timeout(QUEUE_TIMEOUT, hanging).await.expect_err("it hangs");

        let busy = JobError::Busy { max_running: 1, waited: QUEUE_TIMEOUT };
        assert_eq!(limiter.run(|| ()).await, Err(busy));

        drop(release);
        let patient = BlockingLimiter { queue_timeout: Duration::from_secs(20), ..limiter };
        assert_eq!(patient.run(|| ()).await, Ok(()));
    }

    #[tokio::test]
    async fn panic_releases_the_permit() {
        let limiter = BlockingLimiter::new(1, QUEUE_TIMEOUT);
        let panicked = limiter.run(|| panic!("no {}", "luck")).await;
        assert_eq!(panicked, Err::<(), _>(JobError::Panicked("no luck".to_owned())));
        assert_eq!(limiter.run(|| 1).await, Ok(1));
    }
}
