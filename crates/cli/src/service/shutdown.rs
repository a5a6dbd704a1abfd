//! The reasons to shut down, and the signals that request it.

use std::process;
use std::thread;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::sleep;

use super::error::ServiceError;

/// The exit code of a shutdown that took too long, and how long the log's thread has for its last line.
const FAILURE: i32 = 1;
const LAST_LINE_TIMEOUT: Duration = Duration::from_millis(200);

/// Why a command shuts down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ShutdownReason {
    /// The process received this signal.
    Signal(&'static str),
    /// The requested duration has elapsed.
    DurationElapsed,
    /// The reader of standard output closed it.
    OutputClosed,
    /// A component failed.
    Failure,
}

/// The signals that end a service: `SIGINT`, `SIGTERM`, and `SIGHUP` unless the process was started with it ignored.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Option<Signal>,
}

impl Signals {
    pub(crate) fn listen() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: if is_hang_up_ignored() { None } else { Some(signal(SignalKind::hangup())?) },
        })
    }

    /// Waits for the next signal. Returns its name, and the exit code that a shell reports for it.
    pub(crate) async fn next(&mut self) -> (&'static str, i32) {
        let hang_up = async {
            match &mut self.hang_up {
                Some(signal) => signal.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => ("Ctrl-C", 128 + SignalKind::interrupt().as_raw_value()),
            _ = self.terminate.recv() => ("SIGTERM", 128 + SignalKind::terminate().as_raw_value()),
            _ = hang_up => ("SIGHUP", 128 + SignalKind::hangup().as_raw_value()),
        }
    }
}

/// Requests shutdown at the first signal, and exits the process at the second, or if `timeout` elapses after the first. A
/// private server is then stopped by its watchdog process.
///
/// Signals are handled on a thread of their own, so that they end a process whose workers are all blocked.
pub(crate) fn watch_signals(
    shutdown: watch::Sender<Option<ShutdownReason>>,
    timeout: Duration,
) -> Result<(), ServiceError> {
    let runtime = Builder::new_current_thread().enable_all().build().map_err(ServiceError::system)?;
    let mut signals = {
        let _entered = runtime.enter();
        Signals::listen().map_err(ServiceError::system)?
    };
    let handle = async move {
        let (name, _) = signals.next().await;
        tracing::debug!(signal = name, "shutting down");
        request_shutdown(&shutdown, ShutdownReason::Signal(name));
        let code = tokio::select! {
            (_, code) = signals.next() => code,
            () = sleep(timeout) => {
                tracing::error!(?timeout, "shutdown takes too long; exiting");
                thread::sleep(LAST_LINE_TIMEOUT);
                FAILURE
            }
        };
        process::exit(code);
    };
    let spawned = thread::Builder::new().name("poolscope-signals".to_owned()).spawn(move || runtime.block_on(handle));
    spawned.map(drop).map_err(ServiceError::system)
}

/// Requests shutdown. The first reason is kept.
pub(crate) fn request_shutdown(shutdown: &watch::Sender<Option<ShutdownReason>>, reason: ShutdownReason) {
    shutdown.send_if_modified(|current| current.is_none() && current.replace(reason).is_none());
}

/// Waits until shutdown is requested, and returns the reason.
pub(crate) async fn shutdown_requested(shutdown: &mut watch::Receiver<Option<ShutdownReason>>) -> ShutdownReason {
    match shutdown.wait_for(Option::is_some).await {
        Ok(reason) => (*reason).unwrap_or(ShutdownReason::Failure),
        Err(_) => ShutdownReason::Failure,
    }
}

/// Returns whether this process was started with `SIGHUP` ignored, as by `nohup`; true where `/proc` does not exist, so
/// that the disposition is left alone there.
fn is_hang_up_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_none_or(|mask| mask & 1 != 0)
}
