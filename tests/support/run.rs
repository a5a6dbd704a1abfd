//! Runs the binary and looks after it.
#![allow(dead_code, reason = "each test binary needs some of it")]

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::http;
use crate::remains::{entries, home, processes};

/// How long anything may take on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// The binary with these arguments, and none of our own environment's opinions.
pub(crate) fn poolscope(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_poolscope"));
    command.args(arguments).stdin(Stdio::null());
    let opinions = ["RUST_LOG", "RUST_BACKTRACE", "NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "COLUMNS", "LC_ALL"];
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        let ours = ["POOLSCOPE_", "OTEL_"].iter().any(|prefix| name.starts_with(prefix));
        if opinions.contains(&&*name) || ours && name != "POOLSCOPE_PG_BIN" {
            command.env_remove(&*name);
        }
    }
    command
}

/// `poolscope demo` at free ports.
pub(crate) fn demo(arguments: &[&str]) -> Command {
    let mut command = poolscope(&["demo", "--web.listen-address", "127.0.0.1:0"]);
    command.args(arguments);
    command
}

/// How a run went that ended by itself.
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

pub(crate) fn to_its_end(mut command: Command) -> Ended {
    let mut run = Run::start(command.env("TMPDIR", "/tmp"));
    let code = run.wait().code();
    Ended { code, out: run.rest(), err: run.err() }
}

/// A run under way, which ends with the test.
pub(crate) struct Run {
    child: Child,
    lines: Receiver<String>,
    err: Option<JoinHandle<String>>,
    home: TempDir,
}

impl Run {
    /// Starts `command`, whose temporary files have a directory of their own.
    pub(crate) fn start(command: &mut Command) -> Self {
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

    /// Starts `command`, and waits until it says how to end it: then everything is up.
    pub(crate) fn up(command: &mut Command) -> Up {
        let run = Self::start(command);
        let mut seen = Vec::new();
        while !seen.last().is_some_and(|line: &String| line.starts_with("  ends ")) {
            seen.push(run.line());
        }
        let field = |name: &str| {
            let line = seen.iter().find_map(|line| line.strip_prefix(&format!("  {name:<9}")));
            line.unwrap_or_else(|| panic!("no {name} in {seen:?}")).to_owned()
        };
        let address = |name: &str, path: &str| {
            let url = field(name);
            let host = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
            let address = host.and_then(|url| url.strip_suffix(path)).map(str::parse);
            address.expect("a URL").expect("an address")
        };
        let (address, shop) = (address("metrics", "/metrics"), address("shop", "/products/7"));
        Up { address, shop, server: field("server"), seen: seen.join("\n"), run }
    }

    /// The next line of its output.
    pub(crate) fn line(&self) -> String {
        self.lines.recv_timeout(DEADLINE).expect("another line")
    }

    /// Waits for a line that begins so.
    pub(crate) fn line_that_begins(&self, begin: &str) -> String {
        self.line_that(|line| line.starts_with(begin))
    }

    /// Waits for a line that says this.
    pub(crate) fn line_that_contains(&self, part: &str) -> String {
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

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().expect("a pid")), signal).expect("a signal");
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        wait(&mut self.child)
    }

    /// What it printed and nobody read yet, once it has ended.
    pub(crate) fn rest(&self) -> String {
        self.lines.iter().fold(String::new(), |text, line| text + &line + "\n")
    }

    /// What it said on standard error, once it has ended.
    pub(crate) fn err(&mut self) -> String {
        self.err.take().expect("asked once").join().expect("a reader")
    }

    /// Holds that nothing of it remains: no process, no directory.
    pub(crate) fn remains_nothing(&self) {
        await_that("no process", || processes(self.home.path()).is_empty());
        await_that("no directory", || entries(self.home.path()).is_empty());
    }

    /// The processes and directories that it has now.
    pub(crate) fn belongings(&self) -> (usize, Vec<String>) {
        (processes(self.home.path()).len(), entries(self.home.path()))
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A demo that is up.
pub(crate) struct Up {
    pub(crate) run: Run,
    /// Where the exporter listens.
    pub(crate) address: SocketAddr,
    /// Where the shop does.
    pub(crate) shop: SocketAddr,
    /// How to reach the server.
    pub(crate) server: String,
    /// What was printed so far.
    pub(crate) seen: String,
}

impl Up {
    /// The answer's status and body; `None` if nobody listens any more.
    pub(crate) fn get(&self, path: &str) -> Option<(u16, String)> {
        http::get(self.address, path).ok().filter(|(status, _)| *status > 0)
    }

    /// The directory of the private server's sockets.
    pub(crate) fn sockets(&self) -> &str {
        let words: Vec<_> = self.server.split(' ').collect();
        assert_eq!((words[0], words[1]), ("psql", "-h"), "{}", self.server);
        words[2]
    }
}

/// Waits for a process's end, or ends it in vain.
pub(crate) fn wait(child: &mut Child) -> ExitStatus {
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
pub(crate) fn await_that(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < DEADLINE, "still waiting for: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}
