//! However the demo ends, nothing of it remains.

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;

use nix::sys::signal::Signal;
use tokio_postgres::NoTls;

use crate::run::{Run, demo, up, wait, wait_until};

/// Ends a demo that is up by a signal, and holds that nothing remains.
fn ended_by(signal: Signal) -> (std::process::ExitStatus, String, String) {
    let mut up = up(&mut demo(&[]));
    let (processes, directories) = up.run.resources();
    // The server's main process, its children, and the two shells that keep them.
    assert!(processes > 5, "{processes} processes");
    assert_eq!(directories.len(), 1);
    assert!(up.sockets().starts_with(&directories[0]), "{} {directories:?}", up.server);
    up.run.signal(signal);
    let status = up.run.wait();
    up.run.assert_no_leftovers();
    (status, up.run.remaining_output(), up.run.stderr())
}

#[test]
fn ctrl_c_ends_the_demo_in_good_order() {
    let (status, out, err) = ended_by(Signal::SIGINT);
    assert_eq!(status.code(), Some(0), "{err}");
    assert!(out.contains("Ctrl-C: what is under way may end.") && out.contains(" from pool shop in "), "{out}");
    assert_eq!(err, "");
}

#[test]
fn sigterm_ends_the_demo_in_good_order() {
    let (status, out, err) = ended_by(Signal::SIGTERM);
    assert_eq!(status.code(), Some(0), "{err}");
    assert!(out.contains("SIGTERM: what is under way may end."), "{out}");
}

#[test]
fn a_killed_demo_leaves_nothing_either() {
    let (status, ..) = ended_by(Signal::SIGKILL);
    assert_eq!(status.signal(), Some(9));
}

#[test]
fn a_second_ctrl_c_does_not_wait_for_what_is_under_way() {
    let mut up = up(&mut demo(&[]));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut config = tokio_postgres::Config::new();
    config.host_path(up.sockets()).user("postgres").dbname("postgres");
    // With the tables locked, requests wait for as long as they are let.
    let locked = runtime.block_on(async {
        let (client, connection) = config.connect(NoTls).await.expect("a connection");
        tokio::spawn(connection);
        let lock = "BEGIN; LOCK TABLE poolscope_demo.orders, poolscope_demo.products IN ACCESS EXCLUSIVE MODE";
        client.batch_execute(lock).await.expect("a lock");
        client
    });
    wait_until("a request that waits", || {
        let waiting = locked.query_one("SELECT count(*) FROM pg_locks WHERE NOT granted", &[]);
        runtime.block_on(waiting).expect("a count").get::<_, i64>(0) > 0
    });
    up.run.signal(Signal::SIGINT);
    up.run.line_starting_with("Ctrl-C: ");
    up.run.signal(Signal::SIGINT);
    assert_eq!(up.run.wait().code(), Some(130));
    up.run.assert_no_leftovers();
}

#[test]
fn a_signal_while_the_server_is_made_ends_the_demo_too() {
    let mut run = Run::start(&mut demo(&[]));
    run.line_starting_with("Starting a private PostgreSQL");
    run.signal(Signal::SIGTERM);
    assert_eq!(run.wait().code(), Some(0));
    assert_eq!(run.remaining_output(), "Ended before it began.\n");
    run.assert_no_leftovers();
}

#[test]
fn a_demo_whose_output_nobody_reads_ends() {
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
fn an_output_that_takes_no_more_is_a_failure() {
    let full = std::fs::File::options().write(true).open("/dev/full").expect("a device");
    let mut child = demo(&[]).stdout(full).stderr(Stdio::piped()).spawn().expect("the binary");
    assert_eq!(wait(&mut child).code(), Some(1));
    let err = std::io::read_to_string(child.stderr.take().expect("its errors")).expect("text");
    assert!(err.starts_with("error: cannot write to standard output: No space left on device"), "{err}");
}
