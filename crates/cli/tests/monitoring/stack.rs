//! `make stack`: the demo, Prometheus and Alertmanager together, as somebody starts and ends them.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::run::{Run, demo, wait_until};
use crate::tools::at;
use poolscope_testing::http;

/// A stack that is up.
struct Stack {
    run: Run,
    prometheus: SocketAddr,
    alertmanager: SocketAddr,
}

impl Stack {
    fn up(arguments: &[&str]) -> Self {
        let [prometheus, alertmanager] = free();
        let mut command = Command::new(at("scripts/stack"));
        // The binary, without our own environment's opinions.
        for (name, value) in demo(&[]).get_envs() {
            assert_eq!(value, None);
            command.env_remove(name);
        }
        command.arg(env!("CARGO_BIN_EXE_poolscope")).args(arguments);
        command.env("POOLSCOPE_WEB_LISTEN_ADDRESS", free::<1>()[0].to_string());
        command.env("PROMETHEUS_PORT", prometheus.port().to_string());
        command.env("ALERTMANAGER_PORT", alertmanager.port().to_string());
        let run = Run::start(&mut command);
        for address in [prometheus, alertmanager] {
            run.line_containing(&format!("http://{address}"));
        }
        run.line_starting_with("  ends ");
        Self { run, prometheus, alertmanager }
    }

    fn prometheus_says(&self, path: &str) -> String {
        http::get(self.prometheus, path).expect("an answer").1
    }

    /// The process whose command line has this.
    fn process(&self, part: &str) -> Pid {
        let has_it = |id: &i32| {
            let line = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(part)
        };
        let ids = fs::read_dir("/proc").expect("/proc").flatten();
        let mut ids = ids.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(has_it);
        Pid::from_raw(ids.next().expect(part))
    }
}

/// A test that fails ends it too: to kill the script would leave what it started.
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

/// Addresses that nobody has, at this moment.
fn free<const N: usize>() -> [SocketAddr; N] {
    let listeners = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    listeners.map(|listener| listener.local_addr().expect("an address"))
}

#[test]
fn a_stack_scrapes_by_its_rules_and_ends_together_at_a_signal() {
    let mut stack = Stack::up(&["--scenario", "churn", "--scenario-after", "1s"]);
    wait_until("an alert that is pending or fires", || {
        stack.prometheus_says("/api/v1/alerts").contains("\"alertname\":\"PoolscopeConnectionChurn\"")
    });
    assert!(stack.prometheus_says("/api/v1/status/flags").contains("\"enable-feature\":\"exemplar-storage\""));
    assert!(stack.prometheus_says("/api/v1/alertmanagers").contains(&format!("http://{}/", stack.alertmanager)));
    assert!(http::get(stack.alertmanager, "/api/v2/status").expect("an answer").1.contains("PoolscopePoolExhausted"));
    // As Ctrl-C does. Whoever runs tests in the background may have them ignore that one, and then no shell can trap it.
    stack.run.signal(Signal::SIGTERM);
    assert_eq!(stack.run.wait().code(), Some(0));
    assert!(stack.run.remaining_output().contains("The private server and its directory are gone."));
    assert_eq!(stack.run.stderr(), "");
    stack.run.assert_no_leftovers();
}

#[test]
fn a_stack_of_which_one_dies_ends_and_says_which() {
    let mut stack = Stack::up(&["--scenario", "healthy"]);
    let address = format!("--web.listen-address={}", stack.alertmanager);
    kill(stack.process(&address), Signal::SIGKILL).expect("a signal");
    assert_eq!(stack.run.wait().code(), Some(1));
    assert!(stack.run.remaining_output().contains("The private server and its directory are gone."));
    assert!(stack.run.stderr().contains("stack: alertmanager has ended:"));
    stack.run.assert_no_leftovers();
}

#[test]
fn a_stack_ends_with_its_demo() {
    let mut stack = Stack::up(&["--scenario", "healthy", "--duration", "1s"]);
    assert_eq!(stack.run.wait().code(), Some(0));
    assert_eq!(stack.run.stderr(), "");
    stack.run.assert_no_leftovers();
}
