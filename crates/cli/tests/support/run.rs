//! The binary, and a demo that runs.
#![allow(dead_code, unused_imports, reason = "each test binary needs some of it")]

use std::net::SocketAddr;
use std::process::{Command, Stdio};

use poolscope_testing::http;

pub(crate) use poolscope_testing::run::{Ended, Run, run_to_end, wait, wait_until};

/// The binary with these arguments, and none of our own environment's opinions.
pub(crate) fn poolscope(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_poolscope"));
    command.args(arguments).stdin(Stdio::null());
    let opinions = ["RUST_LOG", "RUST_BACKTRACE", "NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "COLUMNS", "LC_ALL"];
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        let ours = ["POOLSCOPE_", "OTEL_"].iter().any(|prefix| name.starts_with(prefix));
        if opinions.contains(&&*name) || ours && name != "POOLSCOPE_PG_BIN" {
            command.env_remove(&*name);
        }
    }
    command
}

/// `poolscope demo` at free ports.
pub(crate) fn demo(arguments: &[&str]) -> Command {
    let mut command = poolscope(&["demo", "--web.listen-address", "127.0.0.1:0"]);
    command.args(arguments);
    command
}

/// Starts `command`, and waits until it says how to end it: then everything is up.
pub(crate) fn up(command: &mut Command) -> Up {
    let run = Run::start(command);
    let mut seen = Vec::new();
    while !seen.last().is_some_and(|line: &String| line.starts_with("  ends ")) {
        seen.push(run.line());
    }
    let field = |name: &str| {
        let line = seen.iter().find_map(|line| line.strip_prefix(&format!("  {name:<9}")));
        line.unwrap_or_else(|| panic!("no {name} in {seen:?}")).to_owned()
    };
    let address = |name: &str, path: &str| {
        let url = field(name);
        let host = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
        let address = host.and_then(|url| url.strip_suffix(path)).map(str::parse);
        address.expect("a URL").expect("an address")
    };
    let (address, shop) = (address("metrics", "/metrics"), address("shop", "/products/7"));
    Up { address, shop, server: field("server"), seen: seen.join("\n"), run }
}

/// A demo that is up.
pub(crate) struct Up {
    pub(crate) run: Run,
    /// Where the exporter listens.
    pub(crate) address: SocketAddr,
    /// Where the shop does.
    pub(crate) shop: SocketAddr,
    /// How to reach the server.
    pub(crate) server: String,
    /// What was printed so far.
    pub(crate) seen: String,
}

impl Up {
    /// The answer's status and body; `None` if nobody listens any more.
    pub(crate) fn get(&self, path: &str) -> Option<(u16, String)> {
        http::get(self.address, path).ok().filter(|(status, _)| *status > 0)
    }

    /// The directory of the private server's sockets.
    pub(crate) fn sockets(&self) -> &str {
        let words: Vec<_> = self.server.split(' ').collect();
        assert_eq!((words[0], words[1]), ("psql", "-h"), "{}", self.server);
        words[2]
    }
}
