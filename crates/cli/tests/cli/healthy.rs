//! `poolscope healthy`: its exit code and output.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::{Duration, Instant};

use poolscope_testing::ports::ReservedPort;

use crate::run::{Output, demo, poolscope, run_to_end, start};

/// Starts a server that sends a response to one request, or none.
fn respond_with(response: Option<&'static str>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a socket");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut request = [0; 1024];
        let _ = stream.read(&mut request);
        match response {
            Some(response) => stream.write_all(response.as_bytes()).expect("a response"),
            None => thread::sleep(Duration::from_secs(60)),
        }
    });
    address
}

/// Checks that the exit code is 1, and the error one line that contains `part`.
#[track_caller]
fn assert_failed(ended: &Output, part: &str) {
    assert!(ended.code == Some(1) && ended.out.is_empty(), "{}{}", ended.out, ended.err);
    assert!(ended.err.starts_with("error: ") && ended.err.lines().count() == 1, "{}", ended.err);
    assert!(ended.err.contains(part), "{part} is not in {}", ended.err);
}

#[test]
fn healthy_demo_is_found_by_url_and_variable() {
    let demo = start(&mut demo(&[]));
    let address = demo.address.to_string();
    let by_url = run_to_end(poolscope(&["healthy", &format!("http://{address}")]));
    let mut command = poolscope(&["healthy"]);
    command.env("POOLSCOPE_WEB_LISTEN_ADDRESS", &address);
    let by_environment = run_to_end(command);
    for ended in [by_url, by_environment] {
        assert_eq!((ended.code, &*ended.err), (Some(0), ""));
        assert_eq!(ended.out, format!("http://{address}/-/healthy responded 200: poolscope is healthy.\n"));
    }
    let ready = run_to_end(poolscope(&["healthy", &format!("http://{address}/-/ready")]));
    assert!(ready.code == Some(0) && ready.out.contains("/-/ready responded 200"), "{}", ready.out);
}

#[test]
fn unhealthy_response_is_printed() {
    let address = respond_with(Some("HTTP/1.1 503 Service Unavailable\r\n\r\nNot ready: starting.\nmore\n"));
    let ended = run_to_end(poolscope(&["healthy", &format!("http://{address}/-/ready")]));
    assert_failed(&ended, &format!("http://{address}/-/ready responded 503: Not ready: starting."));
}

#[test]
fn connection_failure_timeout_and_garbage_differ() {
    let closed = ReservedPort::new().expect("a port");
    assert_failed(&run_to_end(poolscope(&["healthy", &format!("http://{}", closed.address())])), "refused");
    let address = respond_with(None);
    let started = Instant::now();
    let ended = run_to_end(poolscope(&["healthy", &format!("http://{address}"), "--timeout", "200ms"]));
    assert_failed(&ended, "timed out");
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
    let address = respond_with(Some("SSH-2.0-OpenSSH_9.2\r\n"));
    assert_failed(&run_to_end(poolscope(&["healthy", &format!("http://{address}")])), "invalid HTTP response");
}

#[test]
fn unsupported_url_is_refused_without_its_secret() {
    for url in ["ftp://shop:9719", "http://me:hunter2@shop", "shop/-/ready"] {
        let ended = run_to_end(poolscope(&["healthy", url]));
        assert_eq!(ended.code, Some(2), "{}", ended.err);
        assert!(ended.err.contains("a user name belongs in --user") && !ended.err.contains("hunter2"), "{}", ended.err);
    }
}
