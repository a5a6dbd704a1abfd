//! What a person sees: lines, and on a terminal a status line below them that is rewritten in place.
//!
//! One thread owns standard output. It is told what to print through a channel, so that a terminal that was stopped
//! (Ctrl-S) or a reader that is slow holds up nothing else. Lines of the log pass through it too, so that they
//! appear above the status line; of them, as of statuses, only so many wait. The thread also notices when nobody
//! reads standard output any more.

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
use crate::service::{Ending, end};

/// How many statuses and lines of the log may wait to be printed before more are dropped.
const BACKLOG: usize = 4096;

/// How often the thread looks whether somebody still reads.
const LOOK: Duration = Duration::from_millis(250);

/// How long the end waits for what is not printed yet.
const PATIENCE: Duration = Duration::from_secs(1);

enum Message {
    Lines(String),
    Log(Vec<u8>),
    Status(Box<Status>),
    Settle,
    End,
}

/// Sends to the thread that prints.
#[derive(Clone, Debug)]
struct Queue {
    messages: Sender<Message>,
    backlog: Arc<Backlog>,
}

/// What waits of that which may be dropped, and what was.
#[derive(Debug, Default)]
struct Backlog {
    waiting: AtomicUsize,
    lost: AtomicU64,
}

impl Queue {
    /// Sends what must not be lost. If the thread has ended, it is.
    fn send(&self, message: Message) {
        let _ = self.messages.send(message);
    }

    /// Sends what may be lost, if there is a place for it.
    fn offer(&self, message: Message) {
        let place = |waiting| (waiting < BACKLOG).then_some(waiting + 1);
        if self.backlog.waiting.fetch_update(Relaxed, Relaxed, place).is_ok() {
            self.send(message);
        } else {
            self.backlog.lost.fetch_add(1, Relaxed);
        }
    }
}

/// What became of standard output.
#[derive(Clone, Debug)]
pub(super) enum Output {
    /// Somebody reads it, as far as one can tell.
    Open,
    /// Nobody reads it any more.
    Unread,
    /// It takes no more.
    Failed(Arc<io::Error>),
}

/// A handle to the thread that prints.
#[derive(Debug)]
pub struct Screen {
    queue: Queue,
    output: watch::Receiver<Output>,
    ended: Receiver<()>,
    live: bool,
}

impl Screen {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// If the system has no thread to give.
    pub fn start() -> io::Result<Self> {
        let (out, err) = (io::stdout(), io::stderr());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let live = out.is_terminal() && !dumb;
        let printer = Printer {
            colours: live && anstream::AutoStream::choice(&out) != anstream::ColorChoice::Never,
            live,
            shared: live && err.is_terminal(),
            glyphs: if is_utf8() { &status::BLOCKS } else { &status::ASCII },
            width: || terminal_size::terminal_size_of(io::stdout()).map_or(80, |(width, _)| width.0.into()),
            shown: None,
            out,
            err,
        };
        let (messages, incoming) = mpsc::channel();
        let queue = Queue { messages, backlog: Arc::default() };
        let backlog = Arc::clone(&queue.backlog);
        let (report, output) = watch::channel(Output::Open);
        let (end, ended) = mpsc::channel();
        thread::Builder::new().name("poolscope-screen".to_owned()).spawn(move || {
            let _end: Sender<()> = end;
            print(printer, &incoming, &backlog, &report);
        })?;
        Ok(Self { queue, output, ended, live })
    }

    /// Whether there is a status line: on a terminal that can rewrite it.
    #[must_use]
    pub const fn is_live(&self) -> bool {
        self.live
    }

    /// Where the log goes: standard error, above the status line.
    #[must_use]
    pub fn log(&self) -> LogWriter {
        LogWriter(self.queue.clone())
    }

    /// Prints what is there to be printed, and ends the thread. If it does not get rid of it, its loss.
    pub fn finish(self) {
        self.queue.send(Message::End);
        let _ = self.ended.recv_timeout(PATIENCE);
    }

    /// Prints lines, above the status line.
    pub(super) fn lines(&self, lines: impl Into<String>) {
        self.queue.send(Message::Lines(lines.into()));
    }

    /// Shows this status instead of the last one; elsewhere than on a terminal, prints it.
    pub(super) fn status(&self, status: Status) {
        self.queue.offer(Message::Status(Box::new(status)));
    }

    /// Leaves the last status line where it is.
    pub(super) fn settle(&self) {
        self.queue.send(Message::Settle);
    }

    /// What became of standard output.
    pub(super) fn output(&self) -> watch::Receiver<Output> {
        self.output.clone()
    }
}

/// Ends the demo as soon as nobody reads its output.
pub(super) fn watch_output(mut output: watch::Receiver<Output>, ending: watch::Sender<Option<Ending>>) {
    tokio::spawn(async move {
        if let Ok(output) = output.wait_for(|output| !matches!(output, Output::Open)).await {
            end(&ending, if matches!(*output, Output::Unread) { Ending::Unread } else { Ending::Failure });
        }
    });
}

fn print(
    mut printer: Printer<io::Stdout, io::Stderr>,
    incoming: &Receiver<Message>,
    backlog: &Backlog,
    report: &watch::Sender<Output>,
) {
    loop {
        let message = incoming.recv_timeout(LOOK);
        if matches!(message, Ok(Message::Log(_) | Message::Status(_))) {
            backlog.waiting.fetch_sub(1, Relaxed);
        }
        let printed = match message {
            Ok(Message::Lines(lines)) => printer.lines(&lines),
            Ok(Message::Log(line)) => {
                let lost = backlog.lost.swap(0, Relaxed);
                let lost = if lost > 0 { format!("{lost} lines were lost here\n") } else { String::new() };
                printer.log(&[lost.as_bytes(), &line].concat())
            }
            Ok(Message::Status(status)) => printer.status(&status),
            Ok(Message::Settle) => printer.settle(),
            Ok(Message::End) | Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => Ok(()),
        };
        // What is wrong stays so: only the first time counts.
        if !matches!(*report.borrow(), Output::Open) {
            continue;
        }
        match printed {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => drop(report.send_replace(Output::Unread)),
            Err(error) => drop(report.send_replace(Output::Failed(Arc::new(error)))),
            Ok(()) if is_unread(&io::stdout()) => drop(report.send_replace(Output::Unread)),
            Ok(()) => {}
        }
    }
}

/// Whether the other end of a pipe or a terminal is gone: writing would tell, but there may be nothing to write for
/// long.
fn is_unread(output: &impl AsFd) -> bool {
    let mut asked = [PollFd::new(output.as_fd(), PollFlags::empty())];
    let answered = poll(&mut asked, PollTimeout::ZERO).is_ok_and(|ready| ready > 0);
    answered && asked[0].revents().is_some_and(|events| events.intersects(PollFlags::POLLERR | PollFlags::POLLHUP))
}

/// Whether the locale says that more than ASCII can be shown.
fn is_utf8() -> bool {
    let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(set).unwrap_or_default();
    let locale = locale.to_ascii_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}

/// Writes the lines of the log past the status line.
#[derive(Clone, Debug)]
pub struct LogWriter(Queue);

impl<'a> MakeWriter<'a> for LogWriter {
    type Writer = LogLine;

    fn make_writer(&'a self) -> LogLine {
        LogLine { to: self.0.clone(), line: Vec::new() }
    }
}

/// A line of the log, which is printed when it is dropped.
#[derive(Debug)]
pub struct LogLine {
    to: Queue,
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
            // A log that nobody takes off must not hold up what it tells of.
            self.to.offer(Message::Log(std::mem::take(&mut self.line)));
        }
    }
}
