//! Incident files: the window around a problem, written while it lasts, so that the evidence survives the process.
//!
//! - [`watch`] observes the pools, reduces each sample and queues it, without waiting;
//! - [`writer`] is the thread that keeps the last minutes compressed, and writes a file while a pool has a problem;
//! - [`window`] is one pool's part of it;
//! - [`files`] names the files, creates and completes them, and deletes old ones.
//!
//! A file is a sequence of gzip members, one for some seconds each. A process that is killed leaves a file that ends with
//! the last complete member.

mod files;
#[cfg(test)]
mod tests;
mod watch;
mod window;
mod writer;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::thread;
use std::time::{Duration, Instant};

use self::watch::{Sample, Watched, Watches};
use self::writer::Writer;
use crate::telemetry::{Collector, incidents};

/// How many samples may be queued for the thread that writes: some seconds of some hundred pools.
const MAX_QUEUED: usize = 2048;

/// How long [`IncidentRecorder::finish`] waits for the disk.
const FINISH_TIMEOUT: Duration = Duration::from_secs(2);

/// The pause between attempts to queue a message that must not be lost.
const RETRY_PAUSE: Duration = Duration::from_millis(10);

/// Where incident files are written, and how many.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct IncidentSettings {
    /// The directory. It is created if it does not exist.
    pub directory: PathBuf,
    /// The time before a problem that its file contains. Default 10 minutes.
    pub before: Duration,
    /// The time after the beginning of a problem, and of each further one, that its file contains. Default 2 minutes.
    pub after: Duration,
    /// How many files are kept; the oldest ones are deleted. Default 50.
    pub max_files: usize,
    /// How many bytes all files together have; the oldest ones are deleted. Default 64 MiB.
    pub max_bytes: u64,
    /// How long a file is kept. Default 30 days.
    pub max_age: Duration,
}

impl IncidentSettings {
    /// Returns the defaults for files in this directory.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            before: Duration::from_secs(600),
            after: Duration::from_secs(120),
            max_files: 50,
            max_bytes: 64 << 20,
            max_age: Duration::from_secs(30 * 86_400),
        }
    }
}

/// Writes a file for each problem of the pools of a collector.
///
/// When the verdict about a pool names a problem, or another one than before, a file is begun with the ten minutes before,
/// and continued for two minutes, or until the process ends. Its format is that of a
/// [`Recording`](super::Recording), compressed with gzip, with the holders and waiters at the worst moments.
///
/// The pools have to be sampled, by an exporter or by [`Pool::watch`](crate::Pool::watch). A thread of its own writes, so
/// that a slow, full or read-only disk affects nothing else: what cannot be written is counted by
/// `poolscope_incident_errors_total` and logged. A pool takes at most about 200 KB of memory.
///
/// Clones are handles to the same recorder. When the last one is dropped, the files are completed, which may take up to
/// two seconds.
///
/// ```no_run
/// # fn example() -> std::io::Result<()> {
/// use poolscope::Collector;
/// use poolscope::recording::{IncidentRecorder, IncidentSettings};
///
/// let settings = IncidentSettings::new("/var/lib/shop/incidents");
/// let _recorder = IncidentRecorder::start(&Collector::global(), settings)?;
/// // Run the service.
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct IncidentRecorder {
    handle: Arc<Handle>,
}

#[derive(Debug)]
struct Handle {
    queue: SyncSender<Message>,
    watches: Arc<Watches>,
    /// Ends the thread if the queue is full: the thread has senders too, so it would wait for messages for ever.
    is_finishing: Arc<AtomicBool>,
}

/// What the thread receives.
#[derive(Debug)]
enum Message {
    Pool(Watched),
    Sample(Box<Sample>),
    /// Begins a file for the pool of this name, or for each pool.
    Record(Option<String>),
    /// Completes all files, and ends the thread.
    Finish(SyncSender<()>),
}

impl IncidentRecorder {
    /// Starts the thread. A directory that cannot be created or written is no error: it is logged, and tried again.
    ///
    /// # Errors
    ///
    /// Returns an error if the thread cannot be started.
    pub fn start(collector: &Collector, settings: IncidentSettings) -> io::Result<Self> {
        incidents::register();
        let (handle, incoming) = Handle::new(MAX_QUEUED);
        let writer = Writer::new(collector.clone(), settings, &handle);
        thread::Builder::new().name("poolscope-incidents".to_owned()).spawn(move || writer.run(&incoming))?;
        collector.add_pool_observer(&handle.watches);
        Ok(Self { handle: Arc::new(handle) })
    }

    /// Begins a file for the pool of this name, or for each pool if it is `None`, as if it had a problem. Returns whether
    /// the request was queued; it is not while the disk does not keep up, and after [`finish`](Self::finish).
    pub fn record(&self, pool: Option<&str>) -> bool {
        self.handle.queue.try_send(Message::Record(pool.map(str::to_owned))).is_ok()
    }

    /// Completes all files and stops recording. Blocks the thread for up to two seconds.
    pub fn finish(&self) {
        self.handle.finish(FINISH_TIMEOUT);
    }
}

impl Handle {
    fn new(max_queued: usize) -> (Self, Receiver<Message>) {
        let (queue, incoming) = mpsc::sync_channel(max_queued);
        let watches = Arc::new(Watches::new(queue.clone()));
        (Self { queue, watches, is_finishing: Arc::default() }, incoming)
    }

    fn finish(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        let (finished, receiver) = mpsc::sync_channel(1);
        let mut message = Message::Finish(finished);
        loop {
            match self.queue.try_send(message) {
                Ok(()) => break,
                Err(TrySendError::Full(unsent)) if Instant::now() < deadline => {
                    message = unsent;
                    thread::sleep(RETRY_PAUSE);
                }
                // The thread has ended, or the disk does not respond. What is queued is lost.
                Err(_) => {
                    self.is_finishing.store(true, SeqCst);
                    return;
                }
            }
        }
        let _ = receiver.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.finish(FINISH_TIMEOUT);
    }
}
