//! `make stack`: start and end of the demo with Prometheus and Alertmanager.

use std::fs;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::run::{Run, demo, wait_until};
use crate::tools::at;
use poolscope_testing::http;
use poolscope_testing::ports::ReservedPort;

/// A running stack.
struct Stack {
    run: Run,
    prometheus: SocketAddr,
    alertmanager: SocketAddr,
    /// Reserves the ports.
    _ports: [ReservedPort; 3],
}

impl Stack {
    fn up(arguments: &[&str]) -> Self {
        let ports = [(); 3].map(|()| ReservedPort::new().expect("a free port"));
        let [exporter, prometheus, alertmanager] = ports.each_ref().map(ReservedPort::address);
        let mut command = Command::new(at("scripts/stack"));
        // Without the settings in this environment.
        for (name, value) in demo(&[]).get_envs() {
            assert_eq!(value, None);
            command.env_remove(name);
        }
        command.arg(env!("CARGO_BIN_EXE_poolscope")).args(arguments);
        command.env("POOLSCOPE_WEB_LISTEN_ADDRESS", exporter.to_string());
        command.env("PROMETHEUS_PORT", prometheus.port().to_string());
        command.env("ALERTMANAGER_PORT", alertmanager.port().to_string());
        let run = Run::start(&mut command);
        for address in [prometheus, alertmanager] {
            run.line_containing(&format!("http://{address}"));
        }
        run.line_starting_with("  stop ");
        Self { run, prometheus, alertmanager, _ports: ports }
    }

    fn query_prometheus(&self, path: &str) -> String {
        http::get(self.prometheus, path).expect("an answer").1
    }

    /// Returns the process whose command line contains `part`.
    fn process(&self, part: &str) -> Pid {
        let matches = |id: &i32| {
            let line = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(part)
        };
        let ids = fs::read_dir("/proc").expect("/proc").flatten();
        let mut ids = ids.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(matches);
        Pid::from_raw(ids.next().expect(part))
    }
}

/// A failing test ends the stack by a signal: killing the script would leave its children running.
impl Drop for Stack {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = catch_unwind(AssertUnwindSafe(|| {
                self.run.signal(Signal::SIGTERM);
                self.run.wait()
            }));
        }
    }
}

#[test]
fn stack_evaluates_rules_and_ends_on_sigterm() {
    let mut stack = Stack::up(&["--scenario", "churn", "--scenario-after", "1s"]);
    wait_until("an alert that is pending or fires", || {
        stack.query_prometheus("/api/v1/alerts").contains("\"alertname\":\"PoolscopeConnectionChurn\"")
    });
    assert!(stack.query_prometheus("/api/v1/status/flags").contains("\"enable-feature\":\"exemplar-storage\""));
    assert!(stack.query_prometheus("/api/v1/alertmanagers").contains(&format!("http://{}/", stack.alertmanager)));
    assert!(http::get(stack.alertmanager, "/api/v2/status").expect("an answer").1.contains("PoolscopePoolExhausted"));
    // SIGTERM rather than SIGINT, which background processes may ignore.
    stack.run.signal(Signal::SIGTERM);
    assert_eq!(stack.run.wait().code(), Some(0));
    assert!(stack.run.remaining_output().contains("The private server was stopped, and its directory removed."));
    assert_eq!(stack.run.stderr(), "");
    stack.run.assert_no_leftovers();
}

#[test]
fn stack_ends_when_a_process_dies() {
    let mut stack = Stack::up(&["--scenario", "healthy"]);
    let address = format!("--web.listen-address={}", stack.alertmanager);
    kill(stack.process(&address), Signal::SIGKILL).expect("a signal");
    assert_eq!(stack.run.wait().code(), Some(1));
    assert!(stack.run.remaining_output().contains("The private server was stopped, and its directory removed."));
    assert!(stack.run.stderr().contains("stack: alertmanager has ended:"));
    stack.run.assert_no_leftovers();
}

#[test]
fn stack_ends_with_its_demo() {
    let mut stack = Stack::up(&["--scenario", "healthy", "--duration", "1s"]);
    assert_eq!(stack.run.wait().code(), Some(0));
    assert_eq!(stack.run.stderr(), "");
    stack.run.assert_no_leftovers();
}
