//! The binary, as its user meets it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../support/scrape.rs"]
mod scrape;

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use self::scrape::{Scrape, get};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn poolscope(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_poolscope"));
    command.args(arguments).stdin(Stdio::null());
    for (name, _) in std::env::vars() {
        if name.starts_with("POOLSCOPE_") && name != "POOLSCOPE_PG_BIN" || name == "RUST_LOG" {
            command.env_remove(name);
        }
    }
    command
}

fn answer(command: &mut Command) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

/// Waits until `found` finds something.
fn eventually<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < deadline, "in vain: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// A demo that runs, and what it printed of itself.
struct Demo {
    child: Child,
    address: SocketAddr,
    directory: PathBuf,
    rest: thread::JoinHandle<String>,
}

impl Demo {
    fn start(arguments: &[&str]) -> Self {
        let mut command = poolscope(&["demo", "--web.listen-address", "127.0.0.1:0"]);
        let mut child = command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let (mut address, mut directory) = (None, None);
        while address.is_none() || directory.is_none() {
            let mut line = String::new();
            assert_ne!(output.read_line(&mut line).unwrap(), 0, "the demo ended before it began");
            if let Some(url) = line.split("http://").nth(1) {
                address = url.split('/').next().and_then(|address| address.parse().ok());
            }
            if let Some(run) = line.split("psql -h ").nth(1).and_then(|rest| rest.split(' ').next()) {
                directory = Path::new(run).parent().map(Path::to_owned);
            }
        }
        let rest = thread::spawn(move || {
            let mut rest = String::new();
            output.read_to_string(&mut rest).unwrap();
            rest
        });
        Self { child, address: address.unwrap(), directory: directory.unwrap(), rest }
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    fn ended(&mut self) -> ExitStatus {
        eventually("the demo ends", || self.child.try_wait().unwrap())
    }

    /// No process has the directory in its command line, and it is not there.
    fn assert_left_nothing(&self) {
        eventually("the directory is gone", || (!self.directory.exists()).then_some(()));
        let directory = self.directory.to_str().unwrap();
        eventually("no process is left", || {
            let mut processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
            let left = processes.any(|process| {
                std::fs::read(process.path().join("cmdline"))
                    .is_ok_and(|line| String::from_utf8_lossy(&line).contains(directory))
            });
            (!left).then_some(())
        });
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // Also when the test failed; the private server goes with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_demo_shows_a_pool_under_load_that_adds_up_at_every_scrape() {
    const OPERATIONS: [&str; 4] = ["get_product", "list_orders", "place_order", "checkout_rush"];
    let mut demo = Demo::start(&[]);
    assert_eq!(get(demo.address, "/-/healthy").unwrap().0, 200);
    eventually("the demo is ready", || (get(demo.address, "/-/ready").ok()?.0 == 200).then_some(()));
    let mut scrapes = 0;
    eventually("several operations, and a rush that reaches into overflow", || {
        let scrape = Scrape::of(demo.address).ok()?;
        scrape.assert_adds_up("shop");
        scrapes += 1;
        let all = OPERATIONS.iter().all(|operation| {
            let label = format!("operation=\"{operation}\"");
            scrape.sum("poolscope_checkouts_started_total", &[&label]) > 0.0
        });
        let created = scrape.sum("poolscope_connections_created_total", &[]);
        (all && scrape.operations().len() >= 6 && created > 5.0).then_some(())
    });
    assert!(scrapes > 10, "{scrapes}");
    demo.signal(Signal::SIGTERM);
    assert_eq!(demo.ended().code(), Some(0));
    demo.assert_left_nothing();
}

#[test]
fn its_output_without_a_terminal_has_no_escapes_and_a_summary() {
    let (code, out, err) = answer(&mut poolscope(&["demo", "--duration", "1s", "--web.listen-address", "127.0.0.1:0"]));
    assert_eq!(code, Some(0), "{err}");
    assert!(!out.contains('\x1b') && !err.contains('\x1b'), "{out}{err}");
    assert!(out.contains("/metrics") && out.contains("checkouts from pool shop"), "{out}");
}

#[test]
fn a_signal_ends_it_in_good_order_and_leaves_nothing() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut demo = Demo::start(&[]);
        demo.signal(signal);
        assert_eq!(demo.ended().code(), Some(0), "{signal}");
        demo.assert_left_nothing();
        let rest = std::mem::replace(&mut demo.rest, thread::spawn(String::new)).join().unwrap();
        assert!(rest.contains("checkouts from pool shop"), "{signal}: {rest}");
    }
}

#[test]
fn even_killed_it_leaves_nothing() {
    let mut demo = Demo::start(&[]);
    demo.signal(Signal::SIGKILL);
    assert_eq!(demo.ended().code(), None);
    demo.assert_left_nothing();
}

#[test]
fn a_reader_that_leaves_ends_it() {
    let mut command = poolscope(&["demo", "--web.listen-address", "127.0.0.1:0"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let status = eventually("the demo ends", || child.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
}

#[test]
fn what_is_wrong_is_said_in_one_line_with_the_exit_code_for_it() {
    let demo = |arguments: &[&str]| poolscope(&[&["demo", "--web.listen-address", "127.0.0.1:0"], arguments].concat());
    let with = |name: &str, value: &str| {
        let mut command = demo(&[]);
        command.env(name, value);
        command
    };
    let cases: Vec<(Command, i32, &[&str])> = vec![
        (demo(&["--database-url", "mysql://u:hunter2@h/d"]), 2, &["--database-url", "postgres://"]),
        (demo(&["--database-url", "postgres://u:hunter2@h/d?pool_sise=3"]), 2, &["pool_sise", "pool_size"]),
        (demo(&["--database-url", "postgres://u:hunter2@127.0.0.1:1/d"]), 1, &["cannot connect", "u:***@127.0.0.1:1"]),
        (with("POOLSCOPE_POOL_SIZE", "0"), 2, &["POOLSCOPE_POOL_SIZE", "\"0\"", "1 to 10000"]),
        (with("POOLSCOPE_POOLSIZE", "3"), 2, &["POOLSCOPE_POOLSIZE", "did you mean `POOLSCOPE_POOL_SIZE`?"]),
        (with("POOLSCOPE_CHECKOUT_TIMEOUT", "30"), 2, &["POOLSCOPE_CHECKOUT_TIMEOUT", "30s"]),
        (with("POOLSCOPE_PG_BIN", "/nonexistent"), 1, &["initdb", "/nonexistent", "apt-get install postgresql"]),
        (with("RUST_LOG", "poolscope=loud"), 2, &["RUST_LOG"]),
        (demo(&["--duration", "30"]), 2, &["--duration", "30s"]),
        (demo(&["--nonsense"]), 2, &["--nonsense"]),
        (poolscope(&["demo", "--web.listen-address", "nonsense"]), 2, &["nonsense", "127.0.0.1:9719"]),
    ];
    for (mut command, code, words) in cases {
        let (answered, out, err) = answer(&mut command);
        assert_eq!(answered, Some(code), "{command:?}: {err}");
        let errors: Vec<_> = err.lines().filter(|line| line.starts_with("error: ")).collect();
        assert_eq!(errors.len(), 1, "{command:?}: {err}");
        for word in words {
            assert!(errors[0].contains(word), "{command:?} should say {word}: {err}");
        }
        assert!(!out.contains("hunter2") && !err.contains("hunter2"), "{out}{err}");
        assert!(!err.contains("panicked"), "{err}");
    }
}

#[test]
fn an_address_in_use_is_a_failure_that_names_it() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, _, err) = answer(&mut poolscope(&["demo", "--web.listen-address", &address]));
    assert_eq!(code, Some(1));
    assert!(err.contains(&address) && err.contains("already in use"), "{err}");
}

#[test]
fn no_log_level_shows_a_password() {
    let mut command = poolscope(&["demo", "--web.listen-address", "127.0.0.1:0"]);
    command.env("RUST_LOG", "trace").env("POOLSCOPE_DATABASE_URL", "postgres://u:hunter2@127.0.0.1:1/d");
    let (code, out, err) = answer(&mut command);
    assert_eq!(code, Some(1));
    assert!(!out.contains("hunter2") && !err.contains("hunter2"), "{out}{err}");
}

#[test]
fn help_and_version_say_what_there_is() {
    let (code, version, _) = answer(&mut poolscope(&["--version"]));
    assert_eq!((code, version.trim()), (Some(0), concat!("poolscope ", env!("CARGO_PKG_VERSION"))));
    let (code, help, _) = answer(&mut poolscope(&["demo", "--help"]));
    assert_eq!(code, Some(0));
    for flag in ["--web.listen-address", "--duration", "--database-url", "POOLSCOPE_MAX_OVERFLOW", "127.0.0.1:9719"] {
        assert!(help.contains(flag), "{flag}: {help}");
    }
    assert_eq!(answer(&mut poolscope(&[])).0, Some(2));
}
