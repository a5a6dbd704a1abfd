//! What remains of a server when its process ends: nothing, however that came about.

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

/// Tells [`stands_in_for_a_process_with_a_server`] how to end.
const END: &str = "POOLSCOPE_TEST_END";

/// Not a test by itself: the tests below run it in a process of its own, and end that.
#[test]
fn stands_in_for_a_process_with_a_server() {
    static KEPT: OnceLock<Server> = OnceLock::new();
    let Ok(end) = env::var(END) else { return };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    if end == "cancelled" {
        let mut starting = Box::pin(Server::builder().start());
        let polled = runtime.block_on(poll_fn(|context| Poll::Ready(starting.as_mut().poll(context))));
        assert!(polled.is_pending());
        drop(starting);
        say("cancelled");
        return;
    }
    let server = runtime.block_on(start());
    say("server is up");
    match end.as_str() {
        "panic" => panic!("as the test wants it"),
        "exit" => {
            KEPT.set(server).expect("the only one");
            std::process::exit(7);
        }
        // Until the test kills this process, or ends and so closes the pipe.
        _ => drop(io::stdin().read_to_end(&mut Vec::new())),
    }
}

/// Prints a line past the test harness, which may have left one unfinished.
fn say(word: &str) {
    writeln!(io::stdout(), "\n{word}").expect("someone who listens");
}

/// Leaves `output` open: a harness that cannot print fails.
fn await_line(output: &mut BufReader<ChildStdout>, wanted: &str) {
    assert!(output.lines().map_while(Result::ok).any(|line| line == wanted), "no line `{wanted}`");
}

/// A process with a server under `home`, and its output.
fn spawn(home: &Path, end: &str) -> (Child, BufReader<ChildStdout>) {
    let (_, module) = module_path!().split_once("::").expect("a crate");
    let mut child = Command::new(env::current_exe().expect("the tests"))
        .args([&format!("{module}::stands_in_for_a_process_with_a_server"), "--exact", "--nocapture"])
        .env(END, end)
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

/// Waits until `holds` does: these are other processes, which tell nobody what they do.
fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(30), "still waiting for: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Runs a process with a server, ends it, and holds that nothing of the server remains.
fn nothing_remains(end: &str, kill: impl FnOnce(&mut Child)) -> ExitStatus {
    let home = temp_home();
    let (mut child, mut output) = spawn(home.path(), end);
    await_line(&mut output, "server is up");
    if end == "killed" {
        assert_eq!(entries(home.path()).len(), 1);
        // The server's main process, its children, and the two shells that keep them.
        assert!(processes(home.path()).len() > 5, "{:?}", processes(home.path()));
    }
    kill(&mut child);
    let status = child.wait().expect("its end");
    wait_until("no directory", || entries(home.path()).is_empty());
    wait_until("no process", || processes(home.path()).is_empty());
    status
}

fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id().try_into().expect("a pid")), signal).expect("a signal");
}

#[test]
fn nothing_remains_of_a_process_that_is_killed() {
    let status = nothing_remains("killed", |child| signal(child, Signal::SIGKILL));
    assert_eq!(status.signal(), Some(9));
}

#[test]
fn nothing_remains_of_a_process_that_is_terminated() {
    let status = nothing_remains("killed", |child| signal(child, Signal::SIGTERM));
    assert_eq!(status.signal(), Some(15));
}

#[test]
fn nothing_remains_of_a_process_that_panics() {
    assert_eq!(nothing_remains("panic", |_| {}).code(), Some(101));
}

#[test]
fn nothing_remains_of_a_process_that_exits_with_a_server_in_a_static() {
    assert_eq!(nothing_remains("exit", |_| {}).code(), Some(7));
}

#[test]
fn nothing_remains_of_a_start_that_is_cancelled() {
    let home = temp_home();
    let (mut child, mut output) = spawn(home.path(), "cancelled");
    await_line(&mut output, "cancelled");
    // By now it is gone, unless the machine is so busy that initdb took longer than a drop waits.
    wait_until("no directory", || entries(home.path()).is_empty());
    wait_until("no process", || processes(home.path()).is_empty());
    assert!(child.wait().expect("its end").success());
}

#[test]
fn nothing_remains_of_a_process_that_is_killed_while_its_server_is_made() {
    let stages: [fn(&Path) -> bool; 3] = [
        |home| !processes(home).is_empty(),
        |home| !entries(home).is_empty(),
        |home| processes(home).iter().any(|process| program(process).ends_with("initdb")),
    ];
    for reached in stages {
        let home = temp_home();
        let (mut child, _output) = spawn(home.path(), "killed");
        wait_until("the stage", || reached(home.path()));
        signal(&child, Signal::SIGKILL);
        child.wait().expect("its end");
        wait_until("no process", || processes(home.path()).is_empty());
        assert_eq!(entries(home.path()), Vec::<String>::new());
    }
}

#[test]
fn nothing_remains_of_a_process_that_is_killed_while_its_server_is_frozen() {
    let home = temp_home();
    let (mut child, mut output) = spawn(home.path(), "killed");
    await_line(&mut output, "server is up");
    let data = Path::new(&entries(home.path())[0]).join("data/postmaster.pid");
    let file = fs::read_to_string(data).expect("postmaster.pid");
    let pid: i32 = file.lines().next().and_then(|line| line.parse().ok()).expect("a pid");
    kill(Pid::from_raw(pid), Signal::SIGSTOP).expect("a signal");
    signal(&child, Signal::SIGKILL);
    child.wait().expect("its end");
    wait_until("no process", || processes(home.path()).is_empty());
    assert_eq!(entries(home.path()), Vec::<String>::new());
}
