//! A reader of the log that does not read.

use std::io::{BufRead as _, BufReader, PipeReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use poolscope_testing::http;
use tempfile::TempDir;

use crate::run::{demo, poolscope, wait, wait_until};

/// The time in which a request is answered, and the process ends, on a busy machine.
const MAX_ANSWER_TIME: Duration = Duration::from_secs(5);
const MAX_SHUTDOWN_TIME: Duration = Duration::from_secs(11);

/// A standalone exporter of failing databases whose standard error is a pipe that nobody reads.
struct Stalled {
    child: Child,
    err: PipeReader,
    address: SocketAddr,
    _directory: TempDir,
}

impl Stalled {
    /// Starts the exporter, and waits until it has lost log lines.
    fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("poolscope.toml");
        let databases: String = (0..8)
            .map(|number| format!("[databases.gone{number}]\ndatabase_url = 'postgres://app@127.0.0.1:1/shop'\n"))
            .collect();
        std::fs::write(&file, format!("probe_interval = '1s'\n{databases}")).expect("to write");
        let (err, unread) = std::io::pipe().expect("a pipe");
        let arguments = ["serve", "--web.listen-address", "127.0.0.1:0", "--config", file.to_str().expect("a path")];
        let mut command = poolscope(&arguments);
        command.env("RUST_LOG", "trace").stdout(Stdio::piped()).stderr(unread);
        let mut child = command.spawn().expect("the binary");
        drop(command);
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("its output")).read_line(&mut line).expect("a line");
        let address = line.split("http://").nth(1).and_then(|rest| rest.split('/').next()).expect("an address");
        let stalled = Self { child, err, address: address.parse().expect("an address"), _directory: directory };
        wait_until("lost lines", || {
            // Each is a line of the log at this level.
            for _ in 0..200 {
                let mut client = TcpStream::connect(stalled.address).expect("a connection");
                client.write_all(b"nonsense\r\n\r\n").expect("to send");
            }
            stalled.lost_lines() > 0
        });
        stalled
    }

    /// Requests a path, and checks that the response does not wait for the log.
    fn get(&self, path: &str) -> String {
        let begun = Instant::now();
        let (status, body) = http::get(self.address, path).expect("a response");
        assert_eq!(status, 200);
        assert!(begun.elapsed() < MAX_ANSWER_TIME, "{:?}", begun.elapsed());
        body
    }

    fn lost_lines(&self) -> u64 {
        let page = self.get("/metrics");
        let value = page.lines().find_map(|line| line.strip_prefix("poolscope_log_lines_lost_total "));
        value.expect("the metric").parse().expect("a number")
    }

    fn signal(&self) {
        kill(Pid::from_raw(self.child.id().try_into().expect("a pid")), Signal::SIGTERM).expect("a signal");
    }
}

impl Drop for Stalled {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn stalled_log_stops_neither_exporter_nor_shutdown() {
    let mut stalled = Stalled::start();
    for _ in 0..5 {
        assert_eq!(stalled.get("/-/healthy"), "poolscope is healthy.\n");
        stalled.get("/metrics");
    }
    let begun = Instant::now();
    stalled.signal();
    assert_eq!(wait(&mut stalled.child).code(), Some(0));
    assert!(begun.elapsed() < MAX_SHUTDOWN_TIME, "{:?}", begun.elapsed());
}

#[test]
fn second_signal_ends_a_stalled_process_at_once() {
    let mut stalled = Stalled::start();
    let begun = Instant::now();
    stalled.signal();
    thread::sleep(Duration::from_millis(100));
    stalled.signal();
    // Unless the first signal has ended it.
    let code = wait(&mut stalled.child).code();
    assert!([Some(143), Some(0)].contains(&code), "{code:?}");
    assert!(begun.elapsed() < MAX_ANSWER_TIME, "{:?}", begun.elapsed());
}

#[test]
fn lost_lines_are_reported_once_the_log_is_read() {
    let stalled = Stalled::start();
    let (report, reported) = mpsc::channel();
    let mut err = stalled.err.try_clone().expect("a reader");
    thread::spawn(move || {
        let (mut text, mut bytes) = (Vec::new(), [0; 64 * 1024]);
        while let Ok(count @ 1..) = err.read(&mut bytes) {
            text.extend_from_slice(&bytes[..count]);
            let shown = String::from_utf8_lossy(&text);
            if let Some(line) = shown.lines().find(|line| line.contains("log lines were lost")) {
                let _ = report.send(line.to_owned());
                text.clear();
            }
        }
    });
    let line = reported.recv_timeout(Duration::from_secs(60)).expect("a report");
    assert!(line.contains(" WARN ") && line.contains("lines="), "{line}");
}

/// The demo's private server and its own status are no reason to wait either.
#[test]
fn stalled_output_stops_neither_the_demo_nor_its_shutdown() {
    let (err, unread) = std::io::pipe().expect("a pipe");
    let mut command = demo(&[]);
    command.env("RUST_LOG", "trace").stdout(Stdio::piped()).stderr(unread);
    let mut child = command.spawn().expect("the binary");
    drop(command);
    let mut out = BufReader::new(child.stdout.take().expect("its output"));
    let address: SocketAddr = loop {
        let mut line = String::new();
        assert!(out.read_line(&mut line).expect("a line") > 0, "a line about the metrics");
        let url = line.trim().strip_prefix("metrics  http://").and_then(|url| url.strip_suffix("/metrics"));
        if let Some(address) = url {
            break address.parse().expect("an address");
        }
    };
    // Neither is read from now on.
    let stalled = Stalled { child, err, address, _directory: tempfile::tempdir().expect("a directory") };
    wait_until("lost lines", || stalled.lost_lines() > 0);
    for _ in 0..5 {
        assert_eq!(stalled.get("/-/healthy"), "poolscope is healthy.\n");
    }
    stalled.signal();
    let mut stalled = stalled;
    let begun = Instant::now();
    assert_eq!(wait(&mut stalled.child).code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    drop(out);
}
