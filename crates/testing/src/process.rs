//! What Linux tells of a process in `/proc`.

use std::fs;

/// Returns a value in kB of `/proc/<pid>/status`; `None` once the process has ended.
pub fn status_kb(pid: u32, name: &str) -> Option<u64> {
    value_kb(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?, name)
}

/// Returns the resident memory in kB; `None` once the process has ended.
pub fn memory_kb(pid: u32) -> Option<u64> {
    status_kb(pid, "VmRSS")
}

/// Returns the largest memory that a process has had, without the pages of its program's file: those of a build without
/// optimization are several times those of a release. `None` once the process has ended.
pub fn peak_kb(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    Some(value_kb(&status, "VmHWM")?.saturating_sub(value_kb(&status, "RssFile")?))
}

fn value_kb(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

/// Returns the number of open descriptors.
///
/// # Panics
///
/// Panics once the process has ended.
#[must_use]
pub fn descriptors(pid: u32) -> usize {
    entries(pid, "fd")
}

/// Returns the number of threads.
///
/// # Panics
///
/// Panics once the process has ended.
#[must_use]
pub fn threads(pid: u32) -> usize {
    entries(pid, "task")
}

fn entries(pid: u32, directory: &str) -> usize {
    fs::read_dir(format!("/proc/{pid}/{directory}")).expect("a process").count()
}
