//! Clients of `poolscope proxy` in Python and JavaScript, and the diagnosis of their pools.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use poolscope_testing::http;
use poolscope_testing::scrape::Scrape;

use super::proxy::Environment;
use crate::run::{Output, demo, run_to_end, start as start_demo};

/// Returns a program in Python; `None` without the clients, which `scripts/setup test` installs.
fn python(script: &str, port: u16) -> Option<Command> {
    let mut command = Command::new(interpreter()?);
    let script = format!("{}/tests/clients/{script}", env!("CARGO_MANIFEST_DIR"));
    command.arg(script).args(["127.0.0.1", &port.to_string()]);
    Some(command)
}

/// Returns the interpreter that has the clients' packages; `None` without them.
fn interpreter() -> Option<PathBuf> {
    let python = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/clients/bin/python"));
    python.exists().then_some(python)
}

#[test]
fn python_clients_print_the_same() {
    let environment = Environment::new("");
    let run = |port| {
        let Output { code, out, err } = run_to_end(python("session.py", port)?);
        assert_eq!(code, Some(0), "{err}");
        Some(out)
    };
    let Some(direct) = run(environment.server.port()) else { return };
    assert!(direct.contains("4950") && direct.contains("57014"), "{direct}");
    assert_eq!(run(environment.proxy.port()), Some(direct));
    for application in ["psycopg", "asyncpg", "sqlalchemy"] {
        assert!(environment.await_end(application) > 0.5, "{application}");
    }
}

#[test]
fn node_postgres_prints_the_same() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let modules = format!("{root}/target/clients-node/node_modules");
    if !fs::exists(format!("{modules}/pg")).is_ok_and(|exists| exists) {
        return;
    }
    let environment = Environment::new("");
    let run = |port: u16| {
        let mut command = Command::new("node");
        command.arg(format!("{root}/crates/cli/tests/clients/session.js")).args(["127.0.0.1", &port.to_string()]);
        let Output { code, out, err } = run_to_end({
            command.env("NODE_PATH", &modules);
            command
        });
        assert_eq!(code, Some(0), "{err}");
        out
    };
    let direct = run(environment.server.port());
    assert!(direct.contains("node_postgres payload") && direct.contains("42703"), "{direct}");
    assert_eq!(run(environment.proxy.port()), direct);
    assert!(environment.await_end("node-postgres") > 2.5);
}

/// A client that exhausts its pool until this is dropped.
struct Exhausting(std::process::Child);

impl Drop for Exhausting {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until something holds, for minutes in all.
fn wait_longer(what: &str, began: Instant, mut holds: impl FnMut() -> bool) {
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(300), "still waiting for: {what}");
        thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn exhausted_pools_of_sqlalchemy_are_diagnosed() {
    let environment = Environment::new("leak_threshold = '8s'");
    let ways =
        [("leak", "leak"), ("idle", "idle_in_transaction"), ("held", "idle_in_transaction"), ("slow", "slow_queries")];
    let mut clients = Vec::new();
    for (way, _) in ways {
        let Some(mut command) = python("exhaust.py", environment.proxy.port()) else { return };
        let client = command.arg(way).stdin(Stdio::piped()).stderr(Stdio::null()).spawn();
        clients.push(Exhausting(client.expect("a client")));
    }
    let began = Instant::now();
    for (way, cause) in ways {
        let mut seen = String::new();
        // Python takes long to start on a busy machine, and a cause has to hold for some seconds.
        let is_diagnosed = || {
            let Ok((200, body)) = http::get(environment.exporter, "/api/v1/pools") else { return false };
            let pools: serde_json::Value = serde_json::from_str(&body).expect("JSON");
            let pools = pools["pools"].as_array().expect("pools");
            let Some(pool) = pools.iter().find(|pool| pool["name"] == format!("{way} postgres@postgres")) else {
                return false;
            };
            let diagnosis = &pool["diagnosis"];
            seen = diagnosis.to_string();
            assert_eq!(pool["kind"], "proxy");
            diagnosis["cause"] == cause && diagnosis["operation"] == format!("/{way}")
        };
        wait_longer(&format!("{cause} of {way}"), began, is_diagnosed);
        assert!(!seen.contains("wait"), "a proxy does not see waits: {seen}");
    }
}

#[test]
fn python_client_of_the_demo_is_diagnosed() {
    let Some(interpreter) = interpreter() else { return };
    // What is held while another service is called is in SQLAlchemy's transaction.
    let faults = [("held_idle", "idle_in_transaction", "/orders"), ("leak", "leak", "/customers/count")];
    let demos = faults.map(|(scenario, ..)| {
        let mut command = demo(&["--client", "python", "--scenario", scenario, "--scenario-after", "500ms"]);
        start_demo(command.env("POOLSCOPE_PYTHON", &interpreter).env("POOLSCOPE_LEAK_THRESHOLD", "3s"))
    });
    let pool = "shop-python postgres@postgres";
    let began = Instant::now();
    for ((scenario, cause, route), mut demo) in faults.into_iter().zip(demos) {
        let is_diagnosed = || {
            let (_, body) = demo.get("/api/v1/pools").expect("pools");
            let pools: serde_json::Value = serde_json::from_str(&body).expect("JSON");
            let pools = pools["pools"].as_array().expect("pools");
            assert!(pools.iter().any(|other| other["name"] == "shop" && other["kind"] == "pool"), "{body}");
            let Some(found) = pools.iter().find(|other| other["name"] == pool) else { return false };
            assert_eq!(found["kind"], "proxy");
            let scrape = Scrape::parse(&demo.get("/metrics").expect("a page").1);
            let pool = ("db_client_connection_pool_name", pool);
            assert_eq!(scrape.sum("db_client_connection_max", &[pool]), 10.0);
            found["diagnosis"]["cause"] == cause
                && found["diagnosis"]["operation"] == route
                && scrape.sum("poolscope_diagnosis", &[pool, ("cause", cause)]) > 0.5
        };
        wait_longer(&format!("{cause} of {scenario}"), began, is_diagnosed);
        // As the client itself sees it.
        demo.run.line_containing("requests failed: QueuePool limit of size 5 overflow 5 reached");
        demo.run.signal(Signal::SIGTERM);
        let line = demo.run.line_containing(&format!("pool {pool}: "));
        assert!(line.contains(" of 10 connections in use, ") && line.contains(cause), "{line}");
        assert_eq!(demo.run.wait().code(), Some(0), "{}", demo.run.stderr());
        demo.run.assert_no_leftovers();
    }
}
