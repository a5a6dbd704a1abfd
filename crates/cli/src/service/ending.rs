//! What ends a service: a signal, its time, its output, a failure.

use std::process;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use super::error::ServiceError;

/// Why it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Somebody sent this signal.
    Signal(&'static str),
    /// Its time is over.
    Time,
    /// Nobody reads its output any more.
    Unread,
    /// A part of it failed.
    Failure,
}

/// Waits for the signals that end a service: `SIGINT`, `SIGTERM`, and `SIGHUP` unless somebody had it ignored.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Option<Signal>,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: if is_hang_up_ignored() { None } else { Some(signal(SignalKind::hangup())?) },
        })
    }

    /// The next signal's name, and the exit code by which a shell tells it.
    async fn next(&mut self) -> (&'static str, i32) {
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

/// Reports the first signal, and ends the process at the second: what a private server leaves is cleaned up by the
/// process that keeps it.
pub(crate) fn watch_signals(ending: watch::Sender<Option<Ending>>) -> Result<(), ServiceError> {
    let mut signals = Signals::listen().map_err(ServiceError::system)?;
    tokio::spawn(async move {
        let (name, _) = signals.next().await;
        tracing::debug!(signal = name, "ending");
        end(&ending, Ending::Signal(name));
        let (_, code) = signals.next().await;
        process::exit(code);
    });
    Ok(())
}

/// Gives a reason to end. The first one counts.
pub(crate) fn end(ending: &watch::Sender<Option<Ending>>, why: Ending) {
    ending.send_if_modified(|ending| ending.is_none() && ending.replace(why).is_none());
}

/// Whether this process was started with `SIGHUP` ignored, as by `nohup`: then it stays so. Where the system does
/// not tell, it is left as it is.
fn is_hang_up_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_none_or(|mask| mask & 1 != 0)
}

/// Waits until it is to end, and says why.
pub(crate) async fn ended(ending: &mut watch::Receiver<Option<Ending>>) -> Ending {
    match ending.wait_for(Option::is_some).await {
        Ok(ending) => (*ending).unwrap_or(Ending::Failure),
        Err(_) => Ending::Failure,
    }
}
