//! Shutdown of the demo: nothing remains, however it ends.

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio_postgres::NoTls;

use crate::run::{Run, demo, start, wait, wait_until};

/// Stops a running demo by a signal, and checks that nothing remains.
fn stop_by(signal: Signal) -> (std::process::ExitStatus, String, String) {
    let mut demo = start(&mut demo(&[]));
    let (processes, directories) = demo.run.resources();
    // The demo, the server's main process with its children, and the watchdog's shells.
    assert!(processes > 5, "{processes} processes");
    assert_eq!(directories.len(), 1);
    assert!(demo.sockets().starts_with(&directories[0]), "{} {directories:?}", demo.server);
    demo.run.signal(signal);
    let status = demo.run.wait();
    demo.run.assert_no_leftovers();
    (status, demo.run.remaining_output(), demo.run.stderr())
}

#[test]
fn ctrl_c_stops_gracefully() {
    let (status, out, err) = stop_by(Signal::SIGINT);
    assert_eq!(status.code(), Some(0), "{err}");
    assert!(out.contains("Ctrl-C: completing requests in flight.") && out.contains(" from pool shop in "), "{out}");
    assert_eq!(err, "");
}

#[test]
fn sigterm_stops_gracefully() {
    let (status, out, err) = stop_by(Signal::SIGTERM);
    assert_eq!(status.code(), Some(0), "{err}");
    assert!(out.contains("SIGTERM: completing requests in flight."), "{out}");
}

#[test]
fn killed_demo_leaves_nothing() {
    let (status, ..) = stop_by(Signal::SIGKILL);
    assert_eq!(status.signal(), Some(9));
}

/// The watchdog's process is killed, so that nothing stops the server.
#[test]
fn demo_that_cannot_clean_up_says_what_is_left() {
    let mut demo = start(&mut demo(&[]));
    let (_, directories) = demo.run.resources();
    let [directory] = &directories[..] else { panic!("{directories:?}") };
    let pid = std::fs::read_to_string(format!("{directory}/data/postmaster.pid")).expect("a file");
    let pid: i32 = pid.lines().next().and_then(|pid| pid.parse().ok()).expect("a pid");
    let watchdog = parent(pid).expect("a parent");
    // The watchdog's shell and its subshell, but not the server.
    let processes = std::fs::read_dir("/proc").expect("processes").flatten();
    let ids = processes.filter_map(|process| process.file_name().to_str()?.parse::<i32>().ok());
    let shells = ids.filter(|id| *id != pid && parent(*id) == Some(watchdog)).chain([watchdog]);
    for shell in shells.collect::<Vec<_>>() {
        kill(Pid::from_raw(shell), Signal::SIGKILL).expect("a signal");
    }
    demo.run.signal(Signal::SIGINT);
    let (code, err) = (demo.run.wait().code(), demo.run.stderr());
    kill(Pid::from_raw(pid), Signal::SIGQUIT).expect("a running server");
    wait_until("no server", || kill(Pid::from_raw(pid), None).is_err());
    std::fs::remove_dir_all(directory).expect("to remove");
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("cannot clean up") && err.contains(&format!("{directory} is left")), "{err}");
    assert!(err.contains(&format!("still runs as process {pid}")), "{err}");
}

/// Returns the id of a process's parent.
fn parent(pid: i32) -> Option<i32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

#[test]
fn second_ctrl_c_exits_at_once() {
    let mut demo = start(&mut demo(&[]));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut config = tokio_postgres::Config::new();
    config.host_path(demo.sockets()).user("postgres").dbname("postgres");
    // With the tables locked, requests in flight do not complete.
    let locked = runtime.block_on(async {
        let (client, connection) = config.connect(NoTls).await.expect("a connection");
        tokio::spawn(connection);
        let lock = "BEGIN; LOCK TABLE poolscope_demo.orders, poolscope_demo.products IN ACCESS EXCLUSIVE MODE";
        client.batch_execute(lock).await.expect("a lock");
        client
    });
    wait_until("a blocked request", || {
        let waiting = locked.query_one("SELECT count(*) FROM pg_locks WHERE NOT granted", &[]);
        runtime.block_on(waiting).expect("a count").get::<_, i64>(0) > 0
    });
    demo.run.signal(Signal::SIGINT);
    demo.run.line_starting_with("Ctrl-C: ");
    demo.run.signal(Signal::SIGINT);
    assert_eq!(demo.run.wait().code(), Some(130));
    demo.run.assert_no_leftovers();
}

#[test]
fn signal_during_the_start_stops_the_demo() {
    let mut run = Run::start(&mut demo(&[]));
    run.line_starting_with("Starting a private PostgreSQL");
    run.signal(Signal::SIGTERM);
    assert_eq!(run.wait().code(), Some(0));
    assert_eq!(run.remaining_output(), "Stopped before the start was complete.\n");
    run.assert_no_leftovers();
}

#[test]
fn closed_output_stops_the_demo() {
    for lines in [1, 6] {
        let mut child = demo(&[]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary");
        let mut out = BufReader::new(child.stdout.take().expect("its output"));
        for _ in 0..lines {
            out.read_line(&mut String::new()).expect("a line");
        }
        drop(out);
        assert_eq!(wait(&mut child).code(), Some(0));
        let err = std::io::read_to_string(child.stderr.take().expect("its errors")).expect("text");
        assert_eq!(err, "");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn full_output_is_a_failure() {
    let full = std::fs::File::options().write(true).open("/dev/full").expect("a device");
    let mut child = demo(&[]).stdout(full).stderr(Stdio::piped()).spawn().expect("the binary");
    assert_eq!(wait(&mut child).code(), Some(1));
    let err = std::io::read_to_string(child.stderr.take().expect("its errors")).expect("text");
    assert!(err.starts_with("error: cannot write to standard output: No space left on device"), "{err}");
}
