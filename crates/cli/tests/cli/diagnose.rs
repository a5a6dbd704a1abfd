//! `poolscope diagnose`: its exit code and output, and the client that it shares with `healthy`.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use poolscope_testing::ports::ReservedPort;

use crate::certificates::certificates;
use crate::run::{Output, Run, demo, poolscope, run_to_end, start};

/// Runs `arguments` until the exit code is `code` and the output contains `part`, for at most 30 s.
fn run_until(code: i32, part: &str, arguments: &[&str]) -> Output {
    let begun = Instant::now();
    loop {
        let ended = run_to_end(poolscope(arguments));
        if ended.code == Some(code) && ended.out.contains(part) {
            return ended;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "{}{}", ended.out, ended.err);
        thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn healthy_demo_is_diagnosed_with_password_and_certificate() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name).to_str().expect("a path").to_owned();
    certificates(directory.path(), &["alice"]);
    let hash = bcrypt::hash("sesame", 4).expect("a hash");
    let web = format!(
        "tls_server_config:
  cert_file: localhost.crt
  key_file: localhost.key
  client_auth_type: RequireAndVerifyClientCert
  client_ca_file: ca.crt
basic_auth_users: {{alice: '{hash}'}}
"
    );
    for (name, content) in [("web.yml", &*web), ("password", "sesame\n"), ("wrong", "open\n")] {
        fs::write(path(name), content).expect("a file");
    }
    let demo = start(&mut demo(&["--scenario", "healthy", "--web.config.file", &path("web.yml")]));
    let url = format!("https://localhost:{}", demo.address.port());
    let (authority, certificate, key) = (path("ca.crt"), path("alice.crt"), path("alice.key"));
    let (trust, identity) = (["--cacert", &authority], ["--cert", &certificate, "--key", &key]);
    let (password, wrong) = (path("password"), path("wrong"));
    let user = |password| ["--user", "alice", "--password-file", password];
    let client = [&trust[..], &identity, &user(&password)].concat();

    let ended = run_until(0, ": healthy for ", &[&["diagnose", &url], &client[..]].concat());
    assert!(ended.out.contains("evidence: wait_p99 "), "{}", ended.out);
    let json = run_to_end(poolscope(&[&["diagnose", &url, "--json"], &client[..]].concat()));
    let json: serde_json::Value = serde_json::from_str(&json.out).expect("JSON");
    assert_eq!(
        (&json[0]["error"], &json[0]["pools"][0]["diagnosis"]["cause"]),
        (&serde_json::Value::Null, &"healthy".into())
    );

    let top = run_to_end(poolscope(&[&["top", &url], &client[..]].concat()));
    assert!(top.code == Some(0) && top.out.contains("\nshop healthy "), "{}{}", top.out, top.err);

    let healthy = run_to_end(poolscope(&[&["healthy", &url], &client[..]].concat()));
    assert_eq!((healthy.code, &*healthy.err), (Some(0), ""));

    // Without the authority, without the client's certificate, and with the wrong password.
    for (arguments, problem) in [
        (vec![], "unknown, invalid peer certificate: UnknownIssuer"),
        (trust.to_vec(), "unknown, received fatal alert: CertificateRequired"),
        ([&trust[..], &identity, &user(&wrong)].concat(), "unknown, it responded 401: "),
    ] {
        let ended = run_to_end(poolscope(&[&["diagnose", &url], &*arguments].concat()));
        assert!(ended.code == Some(2) && ended.out.contains(problem), "{}{}", ended.out, ended.err);
    }
}

#[test]
fn unreachable_exporter_is_unknown() {
    let closed = ReservedPort::new().expect("a port");
    let ended = run_to_end(poolscope(&["diagnose", &format!("http://{}", closed.address())]));
    assert!(ended.code == Some(2) && ended.out.contains(": unknown, "), "{}{}", ended.out, ended.err);
    let ended = run_to_end(poolscope(&["diagnose", "--user", "alice", &format!("http://{}", closed.address())]));
    assert!(ended.code == Some(2) && ended.err.contains("--user is given without a password"), "{}", ended.err);
    let mut command = poolscope(&["diagnose", "--user", "alice", "http://192.0.2.1:9719"]);
    command.env("POOLSCOPE_WEB_PASSWORD", "hunter2");
    let ended = run_to_end(command);
    assert!(ended.code == Some(2) && ended.out.contains("not sent over plain HTTP"), "{}", ended.out);
    assert!(!ended.out.contains("hunter2") && !ended.err.contains("hunter2"));
}

#[test]
fn leak_of_the_demo_is_named() {
    let scenario = ["--scenario", "leak", "--scenario-after", "1s"];
    let demo = start(&mut demo(&scenario));
    let url = format!("http://{}", demo.address);
    let watch = Run::start(&mut poolscope(&["diagnose", "--watch", "--json", &url]));
    // Until leak_threshold has passed, the connections are held idle.
    let ended = run_until(1, ": leak for ", &["diagnose", &url]);
    assert!(ended.out.contains("`GET /customers/count` does not return its connections"), "{}", ended.out);
    assert!(ended.out.contains("size: none is recommended until leak is removed"), "{}", ended.out);

    // `--watch` prints a line for each change, and goes on.
    let mut causes = Vec::new();
    while causes.last().is_none_or(|cause| cause != "leak") {
        let line: serde_json::Value = serde_json::from_str(&watch.line()).expect("JSON");
        causes.push(line[0]["pools"][0]["diagnosis"]["cause"].clone());
    }
    assert!(causes.len() > 1 && causes.windows(2).all(|pair| pair[0] != pair[1]), "{causes:?}");
}
