//! Output that cannot be written.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::Stdio;
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use poolscope_testing::http;
use poolscope_testing::ports::ReservedPort;

use crate::run::{poolscope, wait, wait_until};

/// Returns a device that accepts nothing.
fn full() -> Stdio {
    File::options().write(true).open("/dev/full").expect("a device").into()
}

fn config() -> tempfile::TempDir {
    let directory = tempfile::tempdir().expect("a directory");
    let text = "[databases.shop]\ndatabase_url = 'postgres://app@127.0.0.1:1/shop'\n";
    std::fs::write(directory.path().join("poolscope.toml"), text).expect("to write");
    directory
}

#[test]
fn output_that_cannot_be_written_is_a_failure() {
    let directory = config();
    let file = directory.path().join("poolscope.toml");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let url = format!("http://{}/-/healthy", listener.local_addr().expect("an address"));
    let pools = format!("http://{}/api/v1/pools", listener.local_addr().expect("an address"));
    thread::spawn(move || {
        while let Ok((mut client, _)) = listener.accept() {
            let mut request = [0; 1024];
            let length = client.read(&mut request).unwrap_or_default();
            let is_health = request[..length].starts_with(b"GET /-/healthy ");
            let body = if is_health { "poolscope is healthy.\n" } else { "{\"pools\":[]}" };
            let _ = write!(client, "HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        }
    });
    let file = file.to_str().expect("a path");
    for arguments in [
        &["--help"][..],
        &["serve", "--help"],
        &["--version"],
        &["rules"],
        &["check", "--config", file],
        &["healthy", &url],
        &["diagnose", &pools],
        &["top", "--batch", "--iterations", "1", &pools],
    ] {
        let output = poolscope(arguments).stdout(full()).stderr(Stdio::piped()).output().expect("the binary");
        let err = String::from_utf8_lossy(&output.stderr);
        // Without its output, it is unknown whether pools are healthy.
        let code = if arguments[0] == "diagnose" { 2 } else { 1 };
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {err}");
        assert!(err.contains("cannot write to standard output: No space left on device"), "{arguments:?}: {err}");
    }
}

#[test]
fn exporter_serves_without_output_and_fails_in_the_end() {
    let directory = config();
    let file = directory.path().join("poolscope.toml");
    let port = ReservedPort::new().expect("a port");
    let address = port.address();
    let arguments = ["serve", "--web.listen-address", &address.to_string(), "--config", file.to_str().expect("a path")];
    let mut child = poolscope(&arguments).stdout(full()).stderr(Stdio::piped()).spawn().expect("the binary");
    wait_until("the exporter", || http::get(address, "/-/ready").is_ok_and(|(status, _)| status == 200));
    kill(Pid::from_raw(child.id().try_into().expect("a pid")), Signal::SIGTERM).expect("a signal");
    let code = wait(&mut child).code();
    let mut err = String::new();
    child.stderr.take().expect("its errors").read_to_string(&mut err).expect("text");
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("error: cannot write to standard output: No space left"), "{err}");
}
