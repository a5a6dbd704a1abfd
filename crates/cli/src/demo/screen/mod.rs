//! The output of the demo: lines, and on a terminal a status line below them that is rewritten in place.
//!
//! One thread owns standard output, and receives text through a channel. A suspended terminal (Ctrl-S) or a slow reader
//! therefore blocks nothing else. Log lines pass through it too, so that they appear above the status line; the number of
//! queued log lines and statuses is bounded. The thread also detects that the reader of standard output is gone.

mod printer;
mod status;
mod summary;

use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::watch;
use tracing_subscriber::fmt::MakeWriter;

use self::printer::Printer;
pub(super) use self::status::{Status, clock};
pub(super) use self::summary::summary;
use crate::service::{ShutdownReason, request_shutdown};

/// How many statuses and log lines may be queued before more are dropped.
const MAX_QUEUED: usize = 4096;

/// How often the thread checks whether standard output is closed.
const OUTPUT_CHECK_INTERVAL: Duration = Duration::from_millis(250);

/// How long [`Screen::finish`] waits for the queue to be printed.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

enum Message {
    Lines(String),
    Log(Vec<u8>),
    Status(Box<Status>),
    KeepStatus,
    Finish,
}

/// The sender to the thread that prints.
#[derive(Clone, Debug)]
struct Queue {
    messages: Sender<Message>,
    backlog: Arc<Backlog>,
}

/// The number of queued statuses and log lines, and of dropped ones.
#[derive(Debug, Default)]
struct Backlog {
    queued: AtomicUsize,
    dropped: AtomicU64,
}

impl Queue {
    /// Queues a message that must not be dropped. It is lost only if the thread has ended.
    fn send(&self, message: Message) {
        let _ = self.messages.send(message);
    }

    /// Queues a message, or drops it if the queue is full.
    fn offer(&self, message: Message) {
        let increment = |queued| (queued < MAX_QUEUED).then_some(queued + 1);
        if self.backlog.queued.fetch_update(Relaxed, Relaxed, increment).is_ok() {
            self.send(message);
        } else {
            self.backlog.dropped.fetch_add(1, Relaxed);
        }
    }
}

/// The state of standard output.
#[derive(Clone, Debug)]
pub(super) enum Output {
    /// It is open, as far as is known.
    Open,
    /// The reader closed it.
    Closed,
    /// Writing to it failed.
    Failed(Arc<io::Error>),
}

/// A handle to the thread that prints.
#[derive(Debug)]
pub(crate) struct Screen {
    queue: Queue,
    output: watch::Receiver<Output>,
    /// Disconnected when the thread has ended.
    ended: Receiver<()>,
    is_terminal: bool,
}

impl Screen {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// Returns an error if the thread cannot be started.
    pub(crate) fn start() -> io::Result<Self> {
        let (out, err) = (io::stdout(), io::stderr());
        let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let is_terminal = out.is_terminal() && !is_dumb;
        let printer = Printer {
            ansi: is_terminal && anstream::AutoStream::choice(&out) != anstream::ColorChoice::Never,
            is_terminal,
            is_shared: is_terminal && err.is_terminal(),
            glyphs: if is_utf8() { &status::BLOCKS } else { &status::ASCII },
            width: || terminal_size::terminal_size_of(io::stdout()).map_or(80, |(width, _)| width.0.into()),
            status_line: None,
            out,
            err,
        };
        let (messages, incoming) = mpsc::channel();
        let queue = Queue { messages, backlog: Arc::default() };
        let backlog = Arc::clone(&queue.backlog);
        let (report, output) = watch::channel(Output::Open);
        let (guard, ended) = mpsc::channel();
        thread::Builder::new().name("poolscope-screen".to_owned()).spawn(move || {
            let _guard: Sender<()> = guard;
            print(printer, &incoming, &backlog, &report);
        })?;
        Ok(Self { queue, output, ended, is_terminal })
    }

    /// Returns whether there is a status line, which requires a terminal.
    #[must_use]
    pub(super) const fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    /// Returns the writer of the log, which prints to standard error above the status line.
    #[must_use]
    pub(crate) fn log(&self) -> LogWriter {
        LogWriter(self.queue.clone())
    }

    /// Prints the queue, and stops the thread. Gives up after a second.
    pub(crate) fn finish(self) {
        self.queue.send(Message::Finish);
        let _ = self.ended.recv_timeout(FLUSH_TIMEOUT);
    }

    /// Prints lines above the status line.
    pub(super) fn print(&self, lines: impl Into<String>) {
        self.queue.send(Message::Lines(lines.into()));
    }

    /// Replaces the status line on a terminal, and elsewhere prints a line.
    pub(super) fn status(&self, status: Status) {
        self.queue.offer(Message::Status(Box::new(status)));
    }

    /// Keeps the last status line, and continues below it.
    pub(super) fn keep_status(&self) {
        self.queue.send(Message::KeepStatus);
    }

    /// Returns the state of standard output.
    pub(super) fn output(&self) -> watch::Receiver<Output> {
        self.output.clone()
    }
}

/// Requests shutdown as soon as standard output is closed or fails.
pub(super) fn watch_output(mut output: watch::Receiver<Output>, shutdown: watch::Sender<Option<ShutdownReason>>) {
    tokio::spawn(async move {
        if let Ok(output) = output.wait_for(|output| !matches!(output, Output::Open)).await {
            let is_closed = matches!(*output, Output::Closed);
            let reason = if is_closed { ShutdownReason::OutputClosed } else { ShutdownReason::Failure };
            request_shutdown(&shutdown, reason);
        }
    });
}

/// Prints messages, and reports the state of standard output.
fn print(
    mut printer: Printer<io::Stdout, io::Stderr>,
    incoming: &Receiver<Message>,
    backlog: &Backlog,
    report: &watch::Sender<Output>,
) {
    loop {
        let message = incoming.recv_timeout(OUTPUT_CHECK_INTERVAL);
        if matches!(message, Ok(Message::Log(_) | Message::Status(_))) {
            backlog.queued.fetch_sub(1, Relaxed);
        }
        let printed = match message {
            Ok(Message::Lines(lines)) => printer.lines(&lines),
            Ok(Message::Log(line)) => {
                let dropped = backlog.dropped.swap(0, Relaxed);
                let notice = if dropped > 0 { format!("{dropped} lines dropped\n") } else { String::new() };
                printer.log(&[notice.as_bytes(), &line].concat())
            }
            Ok(Message::Status(status)) => printer.status(&status),
            Ok(Message::KeepStatus) => printer.keep_status(),
            Ok(Message::Finish) | Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => Ok(()),
        };
        // The first failure is kept.
        if !matches!(*report.borrow(), Output::Open) {
            continue;
        }
        match printed {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => drop(report.send_replace(Output::Closed)),
            Err(error) => drop(report.send_replace(Output::Failed(Arc::new(error)))),
            Ok(()) if is_closed(&io::stdout()) => drop(report.send_replace(Output::Closed)),
            Ok(()) => {}
        }
    }
}

/// Returns whether the other end of a pipe or terminal is closed, without writing to it.
fn is_closed(output: &impl AsFd) -> bool {
    let mut descriptors = [PollFd::new(output.as_fd(), PollFlags::empty())];
    let has_events = poll(&mut descriptors, PollTimeout::ZERO).is_ok_and(|count| count > 0);
    has_events
        && descriptors[0].revents().is_some_and(|events| events.intersects(PollFlags::POLLERR | PollFlags::POLLHUP))
}

/// Returns whether the locale is UTF-8.
fn is_utf8() -> bool {
    let non_empty = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(non_empty).unwrap_or_default();
    let locale = locale.to_ascii_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}

/// Prints log lines above the status line.
#[derive(Clone, Debug)]
pub(crate) struct LogWriter(Queue);

impl<'a> MakeWriter<'a> for LogWriter {
    type Writer = LogLine;

    fn make_writer(&'a self) -> LogLine {
        LogLine { queue: self.0.clone(), line: Vec::new() }
    }
}

/// A log line, which is printed when it is dropped.
#[derive(Debug)]
pub(crate) struct LogLine {
    queue: Queue,
    line: Vec<u8>,
}

impl Write for LogLine {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for LogLine {
    fn drop(&mut self) {
        if !self.line.is_empty() {
            // Logging must not block.
            self.queue.offer(Message::Log(std::mem::take(&mut self.line)));
        }
    }
}
