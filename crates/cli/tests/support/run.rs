//! Runs the binary, and the demo.
#![allow(dead_code, unused_imports, reason = "each test binary needs some of it")]

use std::net::SocketAddr;
use std::process::{Command, Stdio};

use poolscope_testing::http;

pub(crate) use poolscope_testing::run::{Output, Run, run_to_end, wait, wait_until};

/// Returns a command for the binary, without variables of this process that affect it.
pub(crate) fn poolscope(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_poolscope"));
    command.args(arguments).stdin(Stdio::null());
    let affecting = ["RUST_LOG", "RUST_BACKTRACE", "NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "COLUMNS", "LC_ALL"];
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        let is_own = ["POOLSCOPE_", "OTEL_"].iter().any(|prefix| name.starts_with(prefix));
        if affecting.contains(&&*name) || is_own && !["POOLSCOPE_PG_BIN", "POOLSCOPE_REDIS_SERVER"].contains(&&*name) {
            command.env_remove(&*name);
        }
    }
    command
}

/// Returns a command for `poolscope demo` on free ports.
pub(crate) fn demo(arguments: &[&str]) -> Command {
    let mut command = poolscope(&["demo", "--web.listen-address", "127.0.0.1:0"]);
    command.args(arguments);
    command
}

/// Starts a demo, and waits for the end of its banner, when everything is up.
pub(crate) fn start(command: &mut Command) -> RunningDemo {
    let run = Run::start(command);
    let mut banner = Vec::new();
    while !banner.last().is_some_and(|line: &String| line.starts_with("  stop ")) {
        banner.push(run.line());
    }
    let field = |name: &str| {
        let line = banner.iter().find_map(|line| line.strip_prefix(&format!("  {name:<9}")));
        line.unwrap_or_else(|| panic!("no {name} in {banner:?}")).to_owned()
    };
    let address = |name: &str, path: &str| {
        let url = field(name);
        let host = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
        let address = host.and_then(|url| url.strip_suffix(path)).map(str::parse);
        address.expect("a URL").expect("an address")
    };
    let (address, shop) = (address("metrics", "/metrics"), address("shop", "/products/7"));
    RunningDemo { address, shop, server: field("server"), banner: banner.join("\n"), run }
}

/// A running demo.
pub(crate) struct RunningDemo {
    pub(crate) run: Run,
    /// The address of the exporter.
    pub(crate) address: SocketAddr,
    /// The address of the shop.
    pub(crate) shop: SocketAddr,
    /// The banner's line about the server.
    pub(crate) server: String,
    /// What was printed until everything was up.
    pub(crate) banner: String,
}

impl RunningDemo {
    /// Requests a path of the exporter. Returns the status and body; `None` if it does not listen any more.
    pub(crate) fn get(&self, path: &str) -> Option<(u16, String)> {
        http::get(self.address, path).ok().filter(|(status, _)| *status > 0)
    }

    /// Returns the directory of the private server's sockets.
    pub(crate) fn sockets(&self) -> &str {
        let words: Vec<_> = self.server.split(' ').collect();
        assert_eq!((words[0], words[1]), ("psql", "-h"), "{}", self.server);
        words[2]
    }
}
