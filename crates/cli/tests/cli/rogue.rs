//! Servers that misbehave: what the standalone exporter and `check` make of them.

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use poolscope_testing::http;
use poolscope_testing::process::peak_kb;
use poolscope_testing::rogue::{Fault, RogueServer};
use tempfile::TempDir;

use crate::run::{Run, demo, poolscope, wait_until};

/// The memory that the process may use at its peak, in kB; with the file of a release, 50 MB.
const MAX_MEMORY: u64 = 35_000;

/// A server for each fault, and a configuration with all of them.
pub(crate) struct RogueServers {
    pub(crate) servers: Vec<(Fault, RogueServer)>,
    directory: TempDir,
}

impl RogueServers {
    pub(crate) fn start(faults: &[Fault]) -> Self {
        let servers: Vec<_> = faults.iter().map(|fault| (*fault, RogueServer::start(*fault))).collect();
        let mut text = "probe_interval = '1s'\n[defaults]\nconnect_timeout = '2s'\n".to_owned();
        for (fault, server) in &servers {
            text += &format!("[databases.{fault:?}]\ndatabase_url = '{}'\n", server.url());
        }
        let directory = tempfile::tempdir().expect("a directory");
        fs::write(directory.path().join("poolscope.toml"), text).expect("to write");
        Self { servers, directory }
    }

    pub(crate) fn config(&self) -> String {
        self.directory.path().join("poolscope.toml").to_str().expect("a path").to_owned()
    }
}

#[test]
fn memory_of_serve_is_bounded_whatever_servers_send() {
    let rogues = RogueServers::start(&Fault::ALL);
    let arguments = ["serve", "--config", &rogues.config(), "--web.listen-address", "127.0.0.1:0"];
    let mut run = Run::start(&mut poolscope(&arguments));
    let line = run.line_containing(" serves http://");
    let address = line.split("http://").nth(1).and_then(|rest| rest.split('/').next()).expect("an address");
    let address = address.parse().expect("an address");
    // Each server has the client of a probe and that of the server's view, most of them several times.
    wait_until("two clients of each server", || rogues.servers.iter().all(|(_, server)| server.clients() >= 2));
    let end = Instant::now() + Duration::from_secs(10);
    while Instant::now() < end {
        let (status, _) = http::get(address, "/metrics").expect("a response");
        assert_eq!(status, 200);
        std::thread::sleep(Duration::from_millis(200));
    }
    let peak = peak_kb(run.pid()).expect("a process");
    assert!(peak < MAX_MEMORY, "{peak} kB");
    run.signal(Signal::SIGTERM);
    assert_eq!(run.wait().code(), Some(0));
}

#[test]
fn memory_of_check_is_bounded_whatever_servers_send() {
    let rogues = RogueServers::start(&Fault::ALL);
    let mut run = Run::start(&mut poolscope(&["check", "--config", &rogues.config(), "--connect"]));
    let mut peak = 0;
    wait_until("the end", || match peak_kb(run.pid()) {
        Some(now) => {
            peak = peak.max(now);
            false
        }
        None => true,
    });
    assert_eq!(run.wait().code(), Some(1));
    assert!((1..MAX_MEMORY).contains(&peak), "{peak} kB");
    let out = run.remaining_output();
    for part in ["2147483636 bytes, which is not possible", "while the session was starting, expected at most 65536"] {
        assert!(out.contains(part), "{part}: {out}");
    }
}

/// The demo on such a server fails, unless the server only sends what is allowed beside that.
#[test]
fn demo_is_bounded_whatever_servers_send() {
    // In groups, since each is a process.
    for faults in Fault::ALL.chunks(6) {
        let servers: Vec<_> = faults.iter().map(|fault| (fault, RogueServer::start(*fault))).collect();
        let mut runs: Vec<_> = servers
            .iter()
            .map(|(fault, server)| {
                let url = format!("{}?connect_timeout=2s", server.url());
                (fault, Run::start(demo(&["--database-url", &url]).env("RUST_LOG", "trace")), 0)
            })
            .collect();
        wait_until("a client of each server", || servers.iter().all(|(_, server)| server.clients() > 0));
        let end = Instant::now() + Duration::from_secs(5);
        while Instant::now() < end {
            for (_, run, peak) in &mut runs {
                *peak = peak_kb(run.pid()).unwrap_or_default().max(*peak);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        for (fault, mut run, peak) in runs {
            // Without an answer to its first transaction, it waits for its shutdown's timeout, or for a second signal.
            run.signal(Signal::SIGTERM);
            run.signal(Signal::SIGTERM);
            let code = run.wait().code();
            assert!(matches!(code, Some(1 | 0 | 143)), "{fault:?}: {code:?}");
            assert!(peak < 2 * MAX_MEMORY, "{fault:?}: {peak} kB");
            let err = run.stderr();
            assert!(!err.contains("panicked"), "{fault:?}: {err}");
            for line in err.lines() {
                assert_eq!(line.find(|c: char| c.is_control()), None, "{fault:?}: {line:?}");
                assert!(
                    !line.starts_with("2026-12-01T12:00:00Z ERROR forged") && line.len() < 1500,
                    "{fault:?}: {line}"
                );
            }
        }
    }
}
