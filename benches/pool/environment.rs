//! The machine on which the figures were measured.

use std::fs;
use std::process::Command;
use std::thread::available_parallelism;

/// Describes the machine. `server` is PostgreSQL's version and whether its processes were pinned, if a server was used.
pub(crate) fn describe(server: Option<(&str, bool)>) -> String {
    let cores = available_parallelism().map_or(0, usize::from);
    let machine = format!(
        "{}, {cores} cores, {}, {}. Load average {}.",
        processor(),
        output("uname", &["-sr"]),
        output("rustc", &["--version"]),
        load(),
    );
    let Some((version, pinned)) = server else { return machine };
    let pinned = match pinned {
        true if cores > 1 => "server and client pinned to different cores",
        true => "server and client pinned to the only core",
        false => "server and client NOT pinned, expect more noise",
    };
    format!("{machine}\nPostgreSQL {version}; SELECT 1 by one task: {pinned}.")
}

fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    match model {
        Some((_, name)) => name.to_owned(),
        None if cfg!(target_os = "macos") => output("sysctl", &["-n", "machdep.cpu.brand_string"]),
        None => std::env::consts::ARCH.to_owned(),
    }
}

/// Returns the load average over the last minute, this program included.
fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().unwrap_or("unknown").to_owned()
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
    if text.is_empty() { format!("unknown {program}") } else { text }
}
