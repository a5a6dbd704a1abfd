//! `poolscope diagnose`: its exit code and output, and the client that it shares with `healthy`.

use std::fs;
use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

use crate::run::{Output, demo, poolscope, run_to_end, start};

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
fn healthy_demo_is_diagnosed_over_tls_with_a_password() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name).to_str().expect("a path").to_owned();
    let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let hash = bcrypt::hash("sesame", 4).expect("a hash");
    let web = format!(
        "tls_server_config: {{cert_file: server.crt, key_file: server.key}}\nbasic_auth_users: {{alice: '{hash}'}}\n"
    );
    for (name, content) in [
        ("server.crt", signed.cert.pem()),
        ("server.key", signed.signing_key.serialize_pem()),
        ("web.yml", web),
        ("password", "sesame\n".to_owned()),
        ("wrong", "open\n".to_owned()),
    ] {
        fs::write(path(name), content).expect("a file");
    }
    let demo = start(&mut demo(&["--scenario", "healthy", "--web.config.file", &path("web.yml")]));
    let url = format!("https://localhost:{}", demo.address.port());
    let (certificate, password) = (path("server.crt"), path("password"));
    let client = ["--cacert", &certificate, "--user", "alice", "--password-file", &password];

    let ended = run_until(0, ": healthy for ", &[&["diagnose", &url], &client[..]].concat());
    assert!(ended.out.contains("evidence: wait_p99 "), "{}", ended.out);
    let json = run_to_end(poolscope(&[&["diagnose", &url, "--json"], &client[..]].concat()));
    let json: serde_json::Value = serde_json::from_str(&json.out).expect("JSON");
    assert_eq!(
        (&json[0]["error"], &json[0]["pools"][0]["diagnosis"]["cause"]),
        (&serde_json::Value::Null, &"healthy".into())
    );

    let healthy = run_to_end(poolscope(&[&["healthy", &url], &client[..]].concat()));
    assert_eq!((healthy.code, &*healthy.err), (Some(0), ""));

    // Without its certificate, and with the wrong password.
    let ended = run_to_end(poolscope(&["diagnose", &url]));
    assert!(ended.code == Some(2) && ended.out.contains("unknown, invalid peer certificate"), "{}", ended.out);
    let wrong = path("wrong");
    let ended = run_to_end(poolscope(&[
        "diagnose",
        &url,
        "--cacert",
        &certificate,
        "--user",
        "alice",
        "--password-file",
        &wrong,
    ]));
    assert!(ended.code == Some(2) && ended.out.contains("it responded 401"), "{}", ended.out);
}

#[test]
fn unreachable_exporter_is_unknown() {
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
    let ended = run_to_end(poolscope(&["diagnose", &format!("http://{free}")]));
    assert!(ended.code == Some(2) && ended.out.contains(": unknown, "), "{}{}", ended.out, ended.err);
    let ended = run_to_end(poolscope(&["diagnose", "--user", "alice", &format!("http://{free}")]));
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
    // Until leak_threshold has passed, the connections are held idle.
    let ended = run_until(1, ": leak for ", &["diagnose", &format!("http://{}", demo.address)]);
    assert!(ended.out.contains("`GET /customers/count` does not return its connections"), "{}", ended.out);
    assert!(ended.out.contains("size: none is recommended until leak is removed"), "{}", ended.out);
}
