//! `poolscope healthy`: an exit code and one line, whatever is there to ask.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::{Duration, Instant};

use crate::run::{Ended, demo, poolscope, run_to_end, up};

/// Someone who answers once with this, and then hangs up; or who hangs on without an answer.
fn answering(answer: Option<&'static str>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a socket");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut request = [0; 1024];
        let _ = stream.read(&mut request);
        match answer {
            Some(answer) => stream.write_all(answer.as_bytes()).expect("to answer"),
            None => thread::sleep(Duration::from_secs(60)),
        }
    });
    address
}

/// Holds that it ended with 1 and one line that has this in it.
fn fails(ended: &Ended, part: &str) {
    assert!(ended.code == Some(1) && ended.out.is_empty(), "{}{}", ended.out, ended.err);
    assert!(ended.err.starts_with("error: ") && ended.err.lines().count() == 1, "{}", ended.err);
    assert!(ended.err.contains(part), "{part} is not in {}", ended.err);
}

#[test]
fn a_demo_is_healthy_wherever_it_was_told_to_listen() {
    let up = up(&mut demo(&[]));
    let address = up.address.to_string();
    let by_url = run_to_end(poolscope(&["healthy", &format!("http://{address}")]));
    let mut command = poolscope(&["healthy"]);
    command.env("POOLSCOPE_WEB_LISTEN_ADDRESS", &address);
    let by_environment = run_to_end(command);
    for ended in [by_url, by_environment] {
        assert_eq!((ended.code, &*ended.err), (Some(0), ""));
        assert_eq!(ended.out, format!("http://{address}/-/healthy answers 200: poolscope is healthy.\n"));
    }
    let ready = run_to_end(poolscope(&["healthy", &format!("http://{address}/-/ready")]));
    assert!(ready.code == Some(0) && ready.out.contains("/-/ready answers 200"), "{}", ready.out);
}

#[test]
fn what_is_not_healthy_is_told_in_its_own_words() {
    let address = answering(Some("HTTP/1.1 503 Service Unavailable\r\n\r\nNot ready: starting.\nmore\n"));
    let ended = run_to_end(poolscope(&["healthy", &format!("http://{address}/-/ready")]));
    fails(&ended, &format!("http://{address}/-/ready answers 503: Not ready: starting."));
}

#[test]
fn nobody_there_and_no_answer_are_told_apart_and_take_no_longer_than_they_may() {
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
    fails(&run_to_end(poolscope(&["healthy", &format!("http://{free}")])), "refused");
    let address = answering(None);
    let begun = Instant::now();
    let ended = run_to_end(poolscope(&["healthy", &format!("http://{address}"), "--timeout", "200ms"]));
    fails(&ended, "timed out");
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    let address = answering(Some("SSH-2.0-OpenSSH_9.2\r\n"));
    fails(&run_to_end(poolscope(&["healthy", &format!("http://{address}")])), "no answer of HTTP");
}

#[test]
fn a_url_that_cannot_be_asked_is_a_mistake_and_shows_no_secret() {
    for url in ["https://shop:9719", "http://me:hunter2@shop", "shop/-/ready"] {
        let ended = run_to_end(poolscope(&["healthy", url]));
        assert_eq!(ended.code, Some(2), "{}", ended.err);
        assert!(ended.err.contains("https is not spoken") && !ended.err.contains("hunter2"), "{}", ended.err);
    }
}
