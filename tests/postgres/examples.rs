//! The examples, run as their comments describe.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use poolscope_testing::server::Server;
use tokio::runtime::Runtime;

use poolscope_testing::http::get;
use poolscope_testing::run::{Run, wait_until};

/// Returns the path of an example's binary.
fn example(name: &str) -> PathBuf {
    let test_binary = std::env::current_exe().expect("the test binary");
    let path = test_binary.parent().and_then(|deps| deps.parent()).expect("a directory").join("examples").join(name);
    assert!(path.exists(), "`cargo build --examples --all-features` builds {}", path.display());
    path
}

/// Starts an example. Returns the addresses of its service and its metrics.
fn start(name: &str, server: &Server) -> (Run, SocketAddr, SocketAddr) {
    let mut command = Command::new(example(name));
    command.stdin(Stdio::null()).env("POOLSCOPE_DATABASE_URL", server.url());
    command.env("LISTEN", "127.0.0.1:0").env("METRICS", "127.0.0.1:0");
    let run = Run::start(&mut command);
    let address = |line: String, begin: &str, end: &str| {
        let address = line.strip_prefix(begin).and_then(|rest| rest.strip_suffix(end)).expect(&line);
        address.parse().expect(&line)
    };
    let metrics = address(run.line(), "metrics at http://", "/metrics");
    let service = address(run.line(), "listening at http://", "");
    (run, service, metrics)
}

#[test]
fn each_example_serves_and_exposes_its_routes() {
    let runtime = Runtime::new().expect("a runtime");
    let server = runtime.block_on(Server::builder().start()).expect("a server");
    for name in ["axum", "hyper"] {
        let (mut run, service, metrics) = start(name, &server);
        assert_eq!(get(service, "/greetings/world").expect("a response"), (200, "Hello, world!".to_owned()), "{name}");
        assert_eq!(get(service, "/nothing/here").expect("a response").0, 404, "{name}");
        let page = get(metrics, "/metrics").expect("a page").1;
        let count = |route: &str| {
            let labels = format!("db_client_connection_pool_name=\"example\",route=\"{route}\",method=\"GET\"");
            page.lines().any(|line| line == format!("poolscope_request_checkouts_total{{{labels}}} 1"))
        };
        assert!(count("/greetings/{name}"), "{name}: {page}");
        assert!(!page.contains("/nothing/here") && !page.contains("world"), "{name}");
        assert_eq!(get(metrics, "/-/ready").expect("a response").0, 200, "{name}");
        if name == "axum" {
            assert_eq!(get(service, "/letters").expect("a response").0, 202);
            wait_until("the letter's checkout", || {
                let page = get(metrics, "/metrics").expect("a page").1;
                page.lines().any(|line| {
                    line.starts_with("poolscope_request_checkouts_total")
                        && line.contains("route=\"/letters\"")
                        && line.ends_with(" 1")
                })
            });
            run.signal(Signal::SIGINT);
            assert_eq!(run.wait().code(), Some(0));
        }
    }
}
