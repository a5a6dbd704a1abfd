//! Runs a program and checks its output, end and leftovers.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::leftovers::{entries, processes, temp_home};

/// Long enough for a busy machine; only failing tests wait for it.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The exit code and output of a program that ended by itself.
#[derive(Debug)]
pub struct Output {
    /// The exit code; `None` if it was killed by a signal.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

/// Runs `command` until it ends.
pub fn run_to_end(mut command: Command) -> Output {
    let mut run = Run::start(command.env("TMPDIR", "/tmp"));
    let code = run.wait().code();
    Output { code, out: run.remaining_output(), err: run.stderr() }
}

/// A running program, which is killed when this is dropped.
#[derive(Debug)]
pub struct Run {
    child: Child,
    lines: Receiver<String>,
    err: Option<JoinHandle<String>>,
    home: TempDir,
}

impl Run {
    /// Starts `command` with a temporary directory of its own.
    pub fn start(command: &mut Command) -> Self {
        let home = temp_home();
        let child = command.env("TMPDIR", home.path()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.expect("the binary");
        let (out, mut err) = (child.stdout.take().expect("its output"), child.stderr.take().expect("its errors"));
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let err = thread::spawn(move || {
            let mut text = String::new();
            err.read_to_string(&mut text).expect("text");
            text
        });
        Self { child, lines, err: Some(err), home }
    }

    /// Waits for the next line of output.
    pub fn line(&self) -> String {
        self.lines.recv_timeout(TIMEOUT).expect("another line")
    }

    /// Waits for a line that starts with `begin`.
    pub fn line_starting_with(&self, begin: &str) -> String {
        self.line_that(|line| line.starts_with(begin))
    }

    /// Waits for a line that contains `part`.
    pub fn line_containing(&self, part: &str) -> String {
        self.line_that(|line| line.contains(part))
    }

    fn line_that(&self, is_it: impl Fn(&str) -> bool) -> String {
        loop {
            let line = self.line();
            if is_it(&line) {
                return line;
            }
        }
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().expect("a pid")), signal).expect("a signal");
    }

    /// Returns the process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the end of the process.
    pub fn wait(&mut self) -> ExitStatus {
        wait(&mut self.child)
    }

    /// Returns the unread output, once the process has ended.
    pub fn remaining_output(&self) -> String {
        self.lines.iter().fold(String::new(), |text, line| text + &line + "\n")
    }

    /// Returns standard error, once the process has ended.
    pub fn stderr(&mut self) -> String {
        self.err.take().expect("called once").join().expect("a reader")
    }

    /// Asserts that no process and no directory of it is left.
    pub fn assert_no_leftovers(&self) {
        wait_until("no process", || processes(self.home.path()).is_empty());
        wait_until("no directory", || entries(self.home.path()).is_empty());
    }

    /// Returns its current number of processes, and its directories.
    pub fn resources(&self) -> (usize, Vec<String>) {
        (processes(self.home.path()).len(), entries(self.home.path()))
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for the end of a process. Kills it and panics after a deadline.
pub fn wait(child: &mut Child) -> ExitStatus {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("its status") {
            return status;
        }
        if start.elapsed() > TIMEOUT {
            let _ = child.kill();
            panic!("the process does not end");
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Polls until `holds` returns true. Panics after a deadline.
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < TIMEOUT, "still waiting for: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}
