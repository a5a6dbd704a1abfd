//! The runtime of the commands that serve until a signal arrives, and the time that their end may take.

use std::time::Duration;

use tokio::runtime::Builder;

use super::error::ServiceError;

/// How long shutdown waits for spans to be exported, and for blocking threads of the runtime.
pub(crate) const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);
const RUNTIME_SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);

/// After which time from the first signal the process exits, whatever shutdown waits for. Longer than the sum of these, of
/// the exporter's own, and of the two seconds for probes.
pub(crate) const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(14);

/// Runs a service on a runtime of two threads.
///
/// # Errors
///
/// Returns an error if the runtime cannot start, or the service fails.
pub(crate) fn run<E: From<ServiceError>>(service: impl Future<Output = Result<(), E>>) -> Result<(), E> {
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("poolscope")
        .enable_all()
        .build()
        .map_err(ServiceError::system)?;
    let result = runtime.block_on(service);
    // Dropping the runtime would wait for the blocking thread of a scrape that hangs.
    runtime.shutdown_timeout(RUNTIME_SHUTDOWN_TIMEOUT);
    result
}
