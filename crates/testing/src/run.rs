//! Runs the binary and looks after it.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::leftovers::{entries, home, processes};

/// How long anything may take on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// How a run went that ended by itself.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

/// Runs `command` until it ends by itself.
pub fn run_to_end(mut command: Command) -> Ended {
    let mut run = Run::start(command.env("TMPDIR", "/tmp"));
    let code = run.wait().code();
    Ended { code, out: run.remaining_output(), err: run.stderr() }
}

/// A run under way, which ends with the test.
#[derive(Debug)]
pub struct Run {
    child: Child,
    lines: Receiver<String>,
    err: Option<JoinHandle<String>>,
    home: TempDir,
}

impl Run {
    /// Starts `command`, whose temporary files have a directory of their own.
    pub fn start(command: &mut Command) -> Self {
        let home = home();
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

    /// The next line of its output.
    pub fn line(&self) -> String {
        self.lines.recv_timeout(DEADLINE).expect("another line")
    }

    /// Waits for a line that begins so.
    pub fn line_starting_with(&self, begin: &str) -> String {
        self.line_that(|line| line.starts_with(begin))
    }

    /// Waits for a line that says this.
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

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().expect("a pid")), signal).expect("a signal");
    }

    /// Returns its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        wait(&mut self.child)
    }

    /// What it printed and nobody read yet, once it has ended.
    pub fn remaining_output(&self) -> String {
        self.lines.iter().fold(String::new(), |text, line| text + &line + "\n")
    }

    /// What it said on standard error, once it has ended.
    pub fn stderr(&mut self) -> String {
        self.err.take().expect("asked once").join().expect("a reader")
    }

    /// Holds that nothing of it remains: no process, no directory.
    pub fn assert_no_leftovers(&self) {
        wait_until("no process", || processes(self.home.path()).is_empty());
        wait_until("no directory", || entries(self.home.path()).is_empty());
    }

    /// The processes and directories that it has now.
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

/// Waits for a process's end, or ends it in vain.
pub fn wait(child: &mut Child) -> ExitStatus {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("its status") {
            return status;
        }
        if begun.elapsed() > DEADLINE {
            let _ = child.kill();
            panic!("it does not end");
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until `holds` does: these are other processes, which tell nobody what they do.
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < DEADLINE, "still waiting for: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}
