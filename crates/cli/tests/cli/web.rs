//! The exporter as flags want it: by a web configuration, and at a socket that is passed to it.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use nix::sys::signal::Signal;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tempfile::TempDir;

use crate::run::{Ended, Run, demo, poolscope, run_to_end, up};
use poolscope_testing::http;

/// A directory with a certificate for this machine, its key, and this web configuration.
fn site(web_yml: &str) -> (TempDir, String) {
    let directory = tempfile::tempdir().expect("a directory");
    let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let write = |name: &str, content: &str| fs::write(directory.path().join(name), content).expect("a file");
    write("server.crt", &signed.cert.pem());
    write("server.key", &signed.signing_key.serialize_pem());
    write("web.yml", web_yml);
    let file = directory.path().join("web.yml").to_str().expect("a path").to_owned();
    (directory, file)
}

/// The whole answer, by HTTP/1.0.
fn asked(stream: &mut (impl Read + Write), path: &str, headers: &str) -> String {
    write!(stream, "GET {path} HTTP/1.0\r\n{headers}\r\n").expect("to ask");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

/// The same over TLS, trusting this certificate.
fn over_tls(address: SocketAddr, certificate: &Path, path: &str) -> String {
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
    asked(&mut StreamOwned::new(session, stream), path, "")
}

#[test]
fn a_demo_speaks_tls_if_its_web_configuration_wants_that() {
    let (directory, file) = site("tls_server_config: {cert_file: server.crt, key_file: server.key}\n");
    let mut command = demo(&[]);
    let up = up(command.env("POOLSCOPE_WEB_CONFIG_FILE", &file));
    let port = up.address.port();
    assert!(up.seen.contains(&format!("  metrics  https://127.0.0.1:{port}/metrics\n")), "{}", up.seen);
    let metrics = over_tls(up.address, &directory.path().join("server.crt"), "/metrics");
    assert!(metrics.starts_with("HTTP/1.0 200 ") && metrics.contains("poolscope_build_info"), "{metrics}");
    // By HTTP it says what would do, to a health check too.
    let ended = run_to_end(poolscope(&["healthy", &format!("http://{}", up.address)]));
    assert_eq!(ended.code, Some(1));
    assert!(
        ended.err.contains("answers 400: This port serves HTTPS; use https:// instead of http://."),
        "{}",
        ended.err
    );
}

#[test]
fn a_demo_answers_those_with_a_password_only_if_its_web_configuration_wants_that() {
    let hash = bcrypt::hash("sesame", 4).expect("a hash");
    let (_directory, file) = site(&format!("basic_auth_users: {{alice: '{hash}'}}\n"));
    let mut up = up(&mut demo(&["--web.config.file", &file]));
    assert_eq!(up.get("/metrics").expect("an answer").0, 401);
    let ended = run_to_end(poolscope(&["healthy", &format!("http://{}", up.address)]));
    assert!(
        ended.code == Some(1) && ended.err.contains("answers 401: Authentication required: the user name or"),
        "{}",
        ended.err
    );
    let mut stream = TcpStream::connect(up.address).expect("a connection");
    // `alice:sesame`.
    let metrics = asked(&mut stream, "/metrics", "Authorization: Basic YWxpY2U6c2VzYW1l\r\n");
    assert!(metrics.starts_with("HTTP/1.0 200 ") && metrics.contains("poolscope_build_info"), "{metrics}");
    up.run.signal(Signal::SIGTERM);
    assert_eq!(up.run.wait().code(), Some(0));
    let said = up.seen.clone() + &up.run.remaining_output() + &up.run.stderr();
    assert!(!said.contains("sesame") && !said.contains(&hash), "{said}");
}

#[test]
fn a_web_configuration_that_cannot_be_used_is_refused_in_a_line() {
    let refused = |file: &str, part: &str| {
        let ended = run_to_end(demo(&["--web.config.file", file]));
        assert!(ended.code == Some(2) && ended.out.is_empty(), "{}{}", ended.out, ended.err);
        let begin = format!("error: --web.config.file cannot be used: {file}");
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
        let (_directory, file) = site(web_yml);
        refused(&file, part);
    }
    // As for Prometheus' own exporters, no name is no file: it comes as far as to find that there is no database.
    let mut command = demo(&["--database-url", "postgres://127.0.0.1:1/shop"]);
    command.env("POOLSCOPE_WEB_CONFIG_FILE", "");
    assert!(run_to_end(command).err.starts_with("error: cannot connect to "));
}

/// `command` in the place of a shell, with what is passed as so many descriptors from 3 up, and their number as systemd
/// tells it.
fn passed(command: &Command, what: impl Into<Stdio>, times: usize, pid: &str) -> Command {
    let numbers: String = (3..3 + times).map(|number| format!(" {number}<&0")).collect();
    let script = format!("exec{numbers} 0</dev/null; LISTEN_PID={pid} LISTEN_FDS={times} exec \"$@\"");
    let mut shell = Command::new("sh");
    shell.args(["-c", &script, "sh"]).arg(command.get_program()).args(command.get_args()).stdin(what);
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
fn a_demo_serves_at_the_socket_that_is_passed_and_hands_it_on_to_nobody() {
    let (socket, address) = socket();
    let command = demo(&["--web.systemd-socket"]);
    let mut up = up(&mut passed(&command, socket, 1, "$$"));
    assert_eq!(up.address, address);
    assert_eq!(up.get("/-/ready").expect("an answer").0, 200);
    let socket = fs::read_link(format!("/proc/{}/fd/3", up.run.pid())).expect("the socket");
    let mut below = children(up.run.pid());
    assert!(!below.is_empty(), "there is no private server");
    while let Some(process) = below.pop() {
        let open = fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten();
        let open: Vec<_> = open.filter_map(|fd| fs::read_link(fd.path()).ok()).collect();
        assert!(!open.contains(&socket), "{process} has it, too");
        below.extend(children(process));
    }
    up.run.signal(Signal::SIGTERM);
    assert_eq!(up.run.wait().code(), Some(0));
}

/// The processes that a process started.
#[cfg(target_os = "linux")]
fn children(of: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{of}/task")).into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect()
}

#[test]
fn systemds_own_tool_can_start_a_demo_at_the_first_connection() {
    if Command::new("systemd-socket-activate").arg("--version").output().is_err() {
        // Where it is missing there is no systemd either.
        return;
    }
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
    let program = demo(&["--web.systemd-socket", "--duration", "60s"]);
    let mut command = Command::new("systemd-socket-activate");
    command.args(["--listen", &free.to_string()]).arg(program.get_program()).args(program.get_args());
    let run = Run::start(&mut command);
    // It is there before the demo is; whoever asks waits for the answer.
    let answered = (0..600).find_map(|_| match http::get(free, "/-/healthy") {
        Ok((200, body)) => Some(body),
        _ => {
            std::thread::sleep(std::time::Duration::from_millis(100));
            None
        }
    });
    assert_eq!(answered.as_deref(), Some("poolscope is healthy.\n"));
    run.line_containing(&format!("http://{free}/metrics"));
    run.signal(Signal::SIGTERM);
}

/// Holds that it ended with 1 and a line that has this in it.
#[track_caller]
fn fails(ended: &Ended, part: &str) {
    assert!(ended.code == Some(1) && ended.out.is_empty(), "{}{}", ended.out, ended.err);
    let begin = "error: --web.systemd-socket: ";
    assert!(ended.err.starts_with(begin) && ended.err.lines().count() == 1, "{}", ended.err);
    assert!(ended.err.contains(part), "{part} is not in {}", ended.err);
}

#[test]
fn without_one_socket_that_listens_it_says_what_would_do() {
    let command = demo(&["--web.systemd-socket"]);
    fails(&run_to_end(demo(&["--web.systemd-socket"])), "systemd passed no socket");
    let (listens, address) = socket();
    fails(&run_to_end(passed(&command, listens, 1, "1")), "none for this process");
    let (listens, _) = socket();
    fails(&run_to_end(passed(&command, listens, 2, "$$")), "systemd passed 2 sockets, and one is served");
    let listener = TcpListener::bind((address.ip(), 0)).expect("a socket");
    // What Accept=yes passes.
    let connection =
        OwnedFd::from(TcpStream::connect(listener.local_addr().expect("its address")).expect("a connection"));
    let udp = OwnedFd::from(UdpSocket::bind("127.0.0.1:0").expect("a socket"));
    let file = OwnedFd::from(fs::File::open("/dev/null").expect("a file"));
    for what in [connection, udp, file] {
        fails(&run_to_end(passed(&command, what, 1, "$$")), "what systemd passed is no TCP socket that listens");
    }
}
