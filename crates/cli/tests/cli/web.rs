//! The web configuration, and socket activation.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use poolscope_testing::http;
use poolscope_testing::ports::ReservedPort;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tempfile::TempDir;

use crate::run::{Output, Run, demo, poolscope, run_to_end, start};

/// Creates a directory with a certificate for localhost, its key, and a web configuration.
fn web_directory(web_yml: &str) -> (TempDir, String) {
    let directory = tempfile::tempdir().expect("a directory");
    let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let write = |name: &str, content: &str| fs::write(directory.path().join(name), content).expect("a file");
    write("server.crt", &signed.cert.pem());
    write("server.key", &signed.signing_key.serialize_pem());
    write("web.yml", web_yml);
    let file = directory.path().join("web.yml").to_str().expect("a path").to_owned();
    (directory, file)
}

/// Sends a request with HTTP/1.0, and returns the whole response.
fn request(stream: &mut (impl Read + Write), path: &str, headers: &str) -> String {
    write!(stream, "GET {path} HTTP/1.0\r\n{headers}\r\n").expect("a request");
    let mut response = String::new();
    stream.read_to_string(&mut response).expect("a response");
    response
}

/// Sends a request over TLS, trusting this certificate.
fn request_tls(address: SocketAddr, certificate: &Path, path: &str) -> String {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificate).expect("a certificate")).expect("one to trust");
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions of TLS")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").expect("a name");
    let session = ClientConnection::new(Arc::new(config), name).expect("a session");
    let stream = TcpStream::connect(address).expect("a connection");
    request(&mut StreamOwned::new(session, stream), path, "")
}

#[test]
fn demo_serves_tls() {
    let (directory, file) = web_directory("tls_server_config: {cert_file: server.crt, key_file: server.key}\n");
    let mut command = demo(&[]);
    let demo = start(command.env("POOLSCOPE_WEB_CONFIG_FILE", &file));
    let port = demo.address.port();
    assert!(demo.banner.contains(&format!("  metrics  https://127.0.0.1:{port}/metrics\n")), "{}", demo.banner);
    let metrics = request_tls(demo.address, &directory.path().join("server.crt"), "/metrics");
    assert!(metrics.starts_with("HTTP/1.0 200 ") && metrics.contains("poolscope_build_info"), "{metrics}");
    // A plain HTTP request has an explanation in its response.
    let ended = run_to_end(poolscope(&["healthy", &format!("http://{}", demo.address)]));
    assert_eq!(ended.code, Some(1));
    assert!(
        ended.err.contains("responded 400: This port serves HTTPS; use https:// instead of http://."),
        "{}",
        ended.err
    );
}

#[test]
fn demo_requires_the_password() {
    let hash = bcrypt::hash("sesame", 4).expect("a hash");
    let (_directory, file) = web_directory(&format!("basic_auth_users: {{alice: '{hash}'}}\n"));
    let mut demo = start(&mut demo(&["--web.config.file", &file]));
    assert_eq!(demo.get("/metrics").expect("a response").0, 401);
    let ended = run_to_end(poolscope(&["healthy", &format!("http://{}", demo.address)]));
    assert!(
        ended.code == Some(1) && ended.err.contains("responded 401: Authentication required: the user name or"),
        "{}",
        ended.err
    );
    let mut stream = TcpStream::connect(demo.address).expect("a connection");
    // `alice:sesame`.
    let metrics = request(&mut stream, "/metrics", "Authorization: Basic YWxpY2U6c2VzYW1l\r\n");
    assert!(metrics.starts_with("HTTP/1.0 200 ") && metrics.contains("poolscope_build_info"), "{metrics}");
    demo.run.signal(Signal::SIGTERM);
    assert_eq!(demo.run.wait().code(), Some(0));
    let output = demo.banner.clone() + &demo.run.remaining_output() + &demo.run.stderr();
    assert!(!output.contains("sesame") && !output.contains(&hash), "{output}");
}

#[test]
fn invalid_web_configuration_is_refused() {
    let refused = |file: &str, part: &str| {
        let ended = run_to_end(demo(&["--web.config.file", file]));
        assert!(ended.code == Some(2) && ended.out.is_empty(), "{}{}", ended.out, ended.err);
        let begin = format!("error: invalid --web.config.file: {file}");
        assert!(ended.err.starts_with(&begin) && ended.err.contains(part), "{part} is not in {}", ended.err);
        assert!(ended.err.lines().count() == 1 && !ended.err.contains("hunter2"), "{}", ended.err);
    };
    refused("/nowhere/web.yml", " cannot be read: No such file");
    for (web_yml, part) in [
        ("basic_auth_user:\n", ", line 1: unknown key `basic_auth_user` in the file; did you mean `basic_auth_users`?"),
        ("basic_auth_users:\n  alice: hunter2\n", ", line 2: invalid bcrypt hash"),
        ("tls_server_config:\n  cert_file: no.crt\n  key_file: server.key\n", ", line 2: cert_file `/"),
        ("tls_server_config: {min_version: TLS10}\n", ", line 1: min_version: TLS10 is insecure"),
    ] {
        let (_directory, file) = web_directory(web_yml);
        refused(&file, part);
    }
    // An empty value counts as unset, so the demo tries to connect.
    let mut command = demo(&["--database-url", "postgres://127.0.0.1:1/shop"]);
    command.env("POOLSCOPE_WEB_CONFIG_FILE", "");
    assert!(run_to_end(command).err.starts_with("error: cannot connect to "));
}

/// Returns `command` with `descriptor` passed `count` times from descriptor 3 on, as systemd does.
fn with_passed(command: &Command, descriptor: impl Into<Stdio>, count: usize, pid: &str) -> Command {
    let numbers: String = (3..3 + count).map(|number| format!(" {number}<&0")).collect();
    let script = format!("exec{numbers} 0</dev/null; LISTEN_PID={pid} LISTEN_FDS={count} exec \"$@\"");
    let mut shell = Command::new("sh");
    shell.args(["-c", &script, "sh"]).arg(command.get_program()).args(command.get_args()).stdin(descriptor);
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell
}

fn socket() -> (OwnedFd, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a socket");
    let address = listener.local_addr().expect("an address");
    (listener.into(), address)
}

#[cfg(target_os = "linux")]
#[test]
fn passed_socket_is_served_and_not_inherited() {
    let (socket, address) = socket();
    let command = demo(&["--web.systemd-socket"]);
    let mut demo = start(&mut with_passed(&command, socket, 1, "$$"));
    assert_eq!(demo.address, address);
    assert_eq!(demo.get("/-/ready").expect("a response").0, 200);
    let socket = fs::read_link(format!("/proc/{}/fd/3", demo.run.pid())).expect("the socket");
    let mut descendants = children(demo.run.pid());
    assert!(!descendants.is_empty(), "no private server");
    while let Some(process) = descendants.pop() {
        let descriptors = fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten();
        let descriptors: Vec<_> = descriptors.filter_map(|fd| fs::read_link(fd.path()).ok()).collect();
        assert!(!descriptors.contains(&socket), "{process} inherited the socket");
        descendants.extend(children(process));
    }
    demo.run.signal(Signal::SIGTERM);
    assert_eq!(demo.run.wait().code(), Some(0));
}

/// Returns the child processes of a process.
#[cfg(target_os = "linux")]
fn children(of: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{of}/task")).into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect()
}

#[test]
fn systemd_socket_activate_starts_the_demo() {
    if Command::new("systemd-socket-activate").arg("--version").output().is_err() {
        // Not a system with systemd.
        return;
    }
    let port = ReservedPort::new().expect("a port");
    let address = port.address();
    let program = demo(&["--web.systemd-socket", "--duration", "60s"]);
    let mut command = Command::new("systemd-socket-activate");
    command.args(["--listen", &address.to_string()]).arg(program.get_program()).args(program.get_args());
    let run = Run::start(&mut command);
    // The socket accepts connections before the demo has started.
    let response = (0..600).find_map(|_| match http::get(address, "/-/healthy") {
        Ok((200, body)) => Some(body),
        _ => {
            std::thread::sleep(std::time::Duration::from_millis(100));
            None
        }
    });
    assert_eq!(response.as_deref(), Some("poolscope is healthy.\n"));
    run.line_containing(&format!("http://{address}/metrics"));
    run.signal(Signal::SIGTERM);
}

/// Checks that the exit code is 1, and the error one line that contains `part`.
#[track_caller]
fn assert_failed(ended: &Output, part: &str) {
    assert!(ended.code == Some(1) && ended.out.is_empty(), "{}{}", ended.out, ended.err);
    let begin = "error: --web.systemd-socket: ";
    assert!(ended.err.starts_with(begin) && ended.err.lines().count() == 1, "{}", ended.err);
    assert!(ended.err.contains(part), "{part} is not in {}", ended.err);
}

#[test]
fn other_than_one_listening_socket_is_an_error() {
    let command = demo(&["--web.systemd-socket"]);
    assert_failed(&run_to_end(demo(&["--web.systemd-socket"])), "systemd passed no socket");
    let (listens, address) = socket();
    assert_failed(&run_to_end(with_passed(&command, listens, 1, "1")), "none for this process");
    let (listens, _) = socket();
    assert_failed(&run_to_end(with_passed(&command, listens, 2, "$$")), "systemd passed 2 sockets, expected one");
    let listener = TcpListener::bind((address.ip(), 0)).expect("a socket");
    // As with Accept=yes.
    let connection =
        OwnedFd::from(TcpStream::connect(listener.local_addr().expect("its address")).expect("a connection"));
    let udp = OwnedFd::from(UdpSocket::bind("127.0.0.1:0").expect("a socket"));
    let file = OwnedFd::from(fs::File::open("/dev/null").expect("a file"));
    for descriptor in [connection, udp, file] {
        assert_failed(
            &run_to_end(with_passed(&command, descriptor, 1, "$$")),
            "systemd passed no listening TCP socket",
        );
    }
}

/// The limits of the exporter hold in each command that has one.
#[test]
fn silent_connections_shut_nobody_out() {
    let hash = bcrypt::hash("sesame", 4).expect("a hash");
    let (directory, file) = web_directory(&format!("basic_auth_users: {{alice: '{hash}'}}\n"));
    let config = directory.path().join("poolscope.toml");
    fs::write(&config, "[databases.gone]\ndatabase_url = 'postgres://app@127.0.0.1:1/shop'\n").expect("a file");
    let demo = start(&mut demo(&["--web.config.file", &file]));
    let mut serve = poolscope(&["serve", "--web.listen-address", "127.0.0.1:0", "--web.config.file", &file]);
    let serve = Run::start(serve.arg("--config").arg(&config));
    let line = serve.line_containing(" serves http://");
    let address = line.split("http://").nth(1).and_then(|rest| rest.split('/').next()).expect("an address");
    for address in [demo.address, address.parse().expect("an address")] {
        let _silent: Vec<_> = (0..200).map(|_| TcpStream::connect(address).expect("a connection")).collect();
        // `alice:sesame`. A busy machine may delay some of the attempts.
        for path in ["/-/healthy", "/metrics"] {
            let soonest = (0..5).map(|_| {
                let begun = Instant::now();
                let mut stream = TcpStream::connect(address).expect("a connection");
                let response = request(&mut stream, path, "Authorization: Basic YWxpY2U6c2VzYW1l\r\n");
                assert!(response.starts_with("HTTP/1.0 200 "), "{path}: {response}");
                begun.elapsed()
            });
            let soonest = soonest.min().expect("attempts");
            assert!(soonest < Duration::from_secs(1), "{path}: {soonest:?}");
        }
    }
}
