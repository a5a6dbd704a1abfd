//! Standard output and standard error.
//!
//! Long-running commands have a [`Console`]: one thread owns both, and receives text through a queue. A suspended terminal
//! (Ctrl-S), a slow reader, or one that does not read at all therefore blocks nothing else: neither the workers of the
//! runtime, which write the log, nor the shutdown. Log lines appear above the status line, if there is one. The number of
//! queued log lines and statuses is bounded; lost log lines are counted, and reported once the queue has been written.
//! The thread also detects that the reader of standard output is gone.
//!
//! Commands that only print use [`print`].

mod log_writer;
mod printer;

use std::fmt;
use std::io::{self, IsTerminal, Write as _};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use prometheus::{IntCounter, Registry};
use tokio::sync::watch;

pub(crate) use self::log_writer::LogWriter;
use self::printer::Printer;
use crate::monitoring::names::{LOG_LINES_LOST, METRICS};

/// How many statuses and log lines may be queued before more are lost.
const MAX_QUEUED: usize = 1024;

/// How often the thread checks whether standard output is closed.
const OUTPUT_CHECK_INTERVAL: Duration = Duration::from_millis(250);

/// How long [`Console::flush`] and [`Console::finish`] wait for the queue to be written.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Prints to standard output. That its reader has closed it, as `head` does, is no error.
///
/// # Errors
///
/// Returns an error if the text cannot be written.
pub(crate) fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// What a terminal shows on its last line.
pub(crate) trait StatusLine: fmt::Debug + Send {
    /// Returns the line, which has at most `width` columns, and escape sequences if `ansi` is true.
    fn line(&self, width: usize, is_utf8: bool, ansi: bool) -> String;

    /// Returns the line for anything but a terminal.
    fn plain(&self) -> String;
}

enum Message {
    Lines(String),
    Log(Vec<u8>),
    Error(Vec<u8>),
    Status(Box<dyn StatusLine>),
    KeepStatus,
    Flush(Sender<()>),
    Finish,
}

/// The sender to the thread that writes.
#[derive(Clone, Debug)]
struct Queue {
    messages: Sender<Message>,
    backlog: Arc<Backlog>,
}

/// The number of queued statuses and log lines, and of lost log lines.
#[derive(Debug)]
struct Backlog {
    queued: AtomicUsize,
    lost: IntCounter,
    /// The lost lines that were not reported yet.
    unreported: AtomicU64,
}

impl Queue {
    /// Queues a message that must not be lost. It is lost only if the thread has ended.
    fn send(&self, message: Message) {
        let _ = self.messages.send(message);
    }

    /// Queues a status or a log line. Returns false if the queue is full.
    fn offer(&self, message: Message) -> bool {
        let increment = |queued| (queued < MAX_QUEUED).then_some(queued + 1);
        let is_queued = self.backlog.queued.fetch_update(Relaxed, Relaxed, increment).is_ok();
        if is_queued {
            self.send(message);
        }
        is_queued
    }

    fn offer_log(&self, line: Vec<u8>) {
        if !self.offer(Message::Log(line)) {
            self.backlog.lost.inc();
            self.backlog.unreported.fetch_add(1, Relaxed);
        }
    }
}

/// The state of standard output.
#[derive(Clone, Debug)]
pub(crate) enum OutputState {
    /// It is open, as far as is known.
    Open,
    /// The reader closed it.
    Closed,
    /// Writing to it failed.
    Failed(Arc<io::Error>),
}

/// A handle to the thread that writes.
#[derive(Debug)]
pub(crate) struct Console {
    queue: Queue,
    state: watch::Receiver<OutputState>,
    /// Disconnected when the thread has ended.
    ended: Receiver<()>,
    is_terminal: bool,
}

impl Console {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// Returns an error if the thread cannot be started.
    pub(crate) fn start() -> io::Result<Self> {
        let (out, err) = (io::stdout(), io::stderr());
        let is_terminal = out.is_terminal() && !is_dumb_terminal();
        let printer = Printer {
            ansi: is_terminal && anstream::AutoStream::choice(&out) != anstream::ColorChoice::Never,
            is_terminal,
            is_shared: is_terminal && err.is_terminal(),
            is_utf8: is_utf8(),
            width: || terminal_size::terminal_size_of(io::stdout()).map_or(80, |(width, _)| width.0.into()),
            status_line: None,
            out,
            err,
        };
        let (messages, incoming) = mpsc::channel();
        let lost = lost_lines_counter().map_err(io::Error::other)?;
        let backlog = Backlog { queued: AtomicUsize::new(0), lost, unreported: AtomicU64::new(0) };
        let queue = Queue { messages, backlog: Arc::new(backlog) };
        let backlog = Arc::clone(&queue.backlog);
        let (report, state) = watch::channel(OutputState::Open);
        let (guard, ended) = mpsc::channel();
        thread::Builder::new().name("poolscope-console".to_owned()).spawn(move || {
            let _guard: Sender<()> = guard;
            write(printer, &incoming, &backlog, &report);
        })?;
        Ok(Self { queue, state, ended, is_terminal })
    }

    /// Returns whether there is a status line, which requires a terminal.
    #[must_use]
    pub(crate) const fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    /// Returns the writer of the log, which writes to standard error above the status line.
    #[must_use]
    pub(crate) fn log(&self) -> LogWriter {
        LogWriter::new(self.queue.clone())
    }

    /// Returns a registry with the number of lost log lines.
    pub(crate) fn registry(&self) -> prometheus::Result<Registry> {
        let registry = Registry::new();
        registry.register(Box::new(self.queue.backlog.lost.clone()))?;
        Ok(registry)
    }

    /// Waits until everything queued has been written, at most for a second.
    pub(crate) fn flush(&self) {
        let (written, receiver) = mpsc::channel();
        self.queue.send(Message::Flush(written));
        let _ = receiver.recv_timeout(FLUSH_TIMEOUT);
    }

    /// Writes the queue, and stops the thread. Gives up after a second.
    pub(crate) fn finish(self) {
        self.queue.send(Message::Finish);
        let _ = self.ended.recv_timeout(FLUSH_TIMEOUT);
    }

    /// Prints lines above the status line.
    pub(crate) fn print(&self, lines: impl Into<String>) {
        self.queue.send(Message::Lines(lines.into()));
    }

    /// Prints a line to standard error.
    pub(crate) fn error(&self, line: Vec<u8>) {
        self.queue.send(Message::Error(line));
    }

    /// Replaces the status line on a terminal, and elsewhere prints a line.
    pub(crate) fn status(&self, status: impl StatusLine + 'static) {
        self.queue.offer(Message::Status(Box::new(status)));
    }

    /// Keeps the last status line, and continues below it.
    pub(crate) fn keep_status(&self) {
        self.queue.send(Message::KeepStatus);
    }

    /// Returns the state of standard output, which changes at most once.
    pub(crate) fn state(&self) -> watch::Receiver<OutputState> {
        self.state.clone()
    }

    /// Returns the error of standard output, if it failed.
    pub(crate) fn result(&self) -> Result<(), Arc<io::Error>> {
        match &*self.state.borrow() {
            OutputState::Failed(error) => Err(Arc::clone(error)),
            OutputState::Open | OutputState::Closed => Ok(()),
        }
    }
}

/// Returns the counter of lost log lines.
fn lost_lines_counter() -> prometheus::Result<IntCounter> {
    let help = METRICS.iter().find(|metric| metric.name == LOG_LINES_LOST).map_or("", |metric| metric.help);
    IntCounter::new(LOG_LINES_LOST, help)
}

/// Writes messages, and reports the state of standard output.
fn write(
    mut printer: Printer<io::Stdout, io::Stderr>,
    incoming: &Receiver<Message>,
    backlog: &Backlog,
    report: &watch::Sender<OutputState>,
) {
    loop {
        let message = incoming.recv_timeout(OUTPUT_CHECK_INTERVAL);
        if matches!(message, Ok(Message::Log(_) | Message::Status(_))) {
            backlog.queued.fetch_sub(1, Relaxed);
        }
        let written = match message {
            Ok(Message::Lines(lines)) => printer.lines(&lines),
            Ok(Message::Log(line)) => {
                let written = printer.log(&line);
                if matches!(written, Ok(false)) {
                    backlog.lost.inc();
                }
                report_lost_lines(backlog);
                written.map(drop)
            }
            Ok(Message::Error(line)) => printer.log(&line).map(drop),
            Ok(Message::Status(status)) => printer.status(&*status),
            Ok(Message::KeepStatus) => printer.keep_status(),
            Ok(Message::Flush(written)) => {
                // The caller may have given up.
                let _ = written.send(());
                Ok(())
            }
            Ok(Message::Finish) | Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => Ok(()),
        };
        // The first failure is kept.
        if !matches!(*report.borrow(), OutputState::Open) {
            continue;
        }
        match written {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => drop(report.send_replace(OutputState::Closed)),
            Err(error) => drop(report.send_replace(OutputState::Failed(Arc::new(error)))),
            Ok(()) if is_closed(&io::stdout()) => drop(report.send_replace(OutputState::Closed)),
            Ok(()) => {}
        }
    }
}

/// Logs how many log lines were lost, once the queue has been written.
fn report_lost_lines(backlog: &Backlog) {
    if backlog.queued.load(Relaxed) > 0 {
        return;
    }
    let lines = backlog.unreported.swap(0, Relaxed);
    if lines > 0 {
        tracing::warn!(lines, "log lines were lost, because standard error was not read in time");
    }
}

/// Returns whether the other end of a pipe or terminal is closed, without writing to it.
fn is_closed(output: &impl AsFd) -> bool {
    let mut descriptors = [PollFd::new(output.as_fd(), PollFlags::empty())];
    let has_events = poll(&mut descriptors, PollTimeout::ZERO).is_ok_and(|count| count > 0);
    has_events
        && descriptors[0].revents().is_some_and(|events| events.intersects(PollFlags::POLLERR | PollFlags::POLLHUP))
}

/// Returns whether the terminal, if there is one, knows no escape sequences.
pub(crate) fn is_dumb_terminal() -> bool {
    std::env::var_os("TERM").is_some_and(|term| term == "dumb")
}

/// Returns whether the locale is UTF-8.
pub(crate) fn is_utf8() -> bool {
    let non_empty = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(non_empty).unwrap_or_default();
    let locale = locale.to_ascii_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}
