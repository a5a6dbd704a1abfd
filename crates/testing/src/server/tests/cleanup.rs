//! Cleanup of a server when its process ends, in each way that a process can end.

use std::env;
use std::fs;
use std::future::poll_fn;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Server, start};

use crate::leftovers::{entries, processes, temp_home};

/// The variable that selects how [`child_process`] ends.
const EXIT_MODE: &str = "POOLSCOPE_TEST_EXIT_MODE";

/// Not a test by itself: the tests below run it as a child process with a server.
#[test]
fn child_process() {
    static SERVER: OnceLock<Server> = OnceLock::new();
    let Ok(mode) = env::var(EXIT_MODE) else { return };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    if mode == "cancelled" {
        let mut starting = Box::pin(Server::builder().start());
        let polled = runtime.block_on(poll_fn(|context| Poll::Ready(starting.as_mut().poll(context))));
        assert!(polled.is_pending());
        drop(starting);
        print_line("cancelled");
        return;
    }
    let server = runtime.block_on(start());
    print_line("server is up");
    match mode.as_str() {
        "panic" => panic!("expected by the test"),
        "exit" => {
            SERVER.set(server).expect("an empty cell");
            std::process::exit(7);
        }
        // Blocks until the test kills this process, or ends and thereby closes the pipe.
        _ => drop(io::stdin().read_to_end(&mut Vec::new())),
    }
}

/// Prints a line directly, after a line that the test harness may have left incomplete.
fn print_line(line: &str) {
    writeln!(io::stdout(), "\n{line}").expect("an open output");
}

/// Waits for a line. `output` stays open, since a harness that cannot print fails.
fn await_line(output: &mut BufReader<ChildStdout>, wanted: &str) {
    assert!(output.lines().map_while(Result::ok).any(|line| line == wanted), "no line `{wanted}`");
}

/// Starts a process with a server under `home`, and returns it with its output.
fn spawn(home: &Path, mode: &str) -> (Child, BufReader<ChildStdout>) {
    let (_, module) = module_path!().split_once("::").expect("a crate");
    let mut child = Command::new(env::current_exe().expect("the test binary"))
        .args([&format!("{module}::child_process"), "--exact", "--nocapture"])
        .env(EXIT_MODE, mode)
        .env("TMPDIR", home)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("a process");
    let output = BufReader::new(child.stdout.take().expect("its output"));
    (child, output)
}

fn program(process: &str) -> &str {
    process.split(['\0', ' ']).next().unwrap_or_default()
}

/// Polls until `holds` returns true, since other processes report no events.
fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < Duration::from_secs(30), "still waiting for: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Runs a process with a server, ends it by `kill`, and checks that nothing of the server remains.
fn assert_cleaned_up(mode: &str, kill: impl FnOnce(&mut Child)) -> ExitStatus {
    let home = temp_home();
    let (mut child, mut output) = spawn(home.path(), mode);
    await_line(&mut output, "server is up");
    if mode == "killed" {
        assert_eq!(entries(home.path()).len(), 1);
        // The child, the server's main process with its children, and the watchdog's shells.
        assert!(processes(home.path()).len() > 5, "{:?}", processes(home.path()));
    }
    kill(&mut child);
    let status = child.wait().expect("an exit status");
    wait_until("no directory", || entries(home.path()).is_empty());
    wait_until("no process", || processes(home.path()).is_empty());
    status
}

fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id().try_into().expect("a pid")), signal).expect("a signal");
}

#[test]
fn killed_process_leaves_nothing() {
    let status = assert_cleaned_up("killed", |child| signal(child, Signal::SIGKILL));
    assert_eq!(status.signal(), Some(9));
}

#[test]
fn terminated_process_leaves_nothing() {
    let status = assert_cleaned_up("killed", |child| signal(child, Signal::SIGTERM));
    assert_eq!(status.signal(), Some(15));
}

#[test]
fn panicking_process_leaves_nothing() {
    assert_eq!(assert_cleaned_up("panic", |_| {}).code(), Some(101));
}

#[test]
fn exit_with_server_in_static_leaves_nothing() {
    assert_eq!(assert_cleaned_up("exit", |_| {}).code(), Some(7));
}

#[test]
fn cancelled_start_leaves_nothing() {
    let home = temp_home();
    let (mut child, mut output) = spawn(home.path(), "cancelled");
    await_line(&mut output, "cancelled");
    // Usually removed by now, unless initdb took longer than a drop waits.
    wait_until("no directory", || entries(home.path()).is_empty());
    wait_until("no process", || processes(home.path()).is_empty());
    assert!(child.wait().expect("an exit status").success());
}

#[test]
fn process_killed_during_start_leaves_nothing() {
    let stages: [fn(&Path) -> bool; 3] = [
        |home| !processes(home).is_empty(),
        |home| !entries(home).is_empty(),
        |home| processes(home).iter().any(|process| program(process).ends_with("initdb")),
    ];
    for reached in stages {
        let home = temp_home();
        let (mut child, _output) = spawn(home.path(), "killed");
        wait_until("the stage of the start", || reached(home.path()));
        signal(&child, Signal::SIGKILL);
        child.wait().expect("an exit status");
        wait_until("no process", || processes(home.path()).is_empty());
        assert_eq!(entries(home.path()), Vec::<String>::new());
    }
}

#[test]
fn process_killed_with_stopped_server_leaves_nothing() {
    let home = temp_home();
    let (mut child, mut output) = spawn(home.path(), "killed");
    await_line(&mut output, "server is up");
    let data = Path::new(&entries(home.path())[0]).join("data/postmaster.pid");
    let file = fs::read_to_string(data).expect("postmaster.pid");
    let pid: i32 = file.lines().next().and_then(|line| line.parse().ok()).expect("a pid");
    kill(Pid::from_raw(pid), Signal::SIGSTOP).expect("a signal");
    signal(&child, Signal::SIGKILL);
    child.wait().expect("an exit status");
    wait_until("no process", || processes(home.path()).is_empty());
    assert_eq!(entries(home.path()), Vec::<String>::new());
}
