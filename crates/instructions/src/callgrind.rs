//! Counts what is executed within marked functions, with valgrind's callgrind.

use std::env;
use std::fs;
use std::hint::black_box;
use std::io;
use std::process::{Command, Stdio};

use crate::{BoxError, RUN};

/// The functions whose instructions are counted, by the names in both of rustc's manglings. None calls another.
const COUNTED: [&str; 5] = [
    "*::counted_step*",
    "poolscope::wire::observer::ProtocolObserver::sent*",
    "<poolscope::wire::observer::ProtocolObserver>::sent*",
    "poolscope::wire::observer::ProtocolObserver::received*",
    "<poolscope::wire::observer::ProtocolObserver>::received*",
];
/// The function whose call resets the counts.
const START: &str = "*::start_counting*";

/// `memcpy` and its kin without the instructions that only some processors have.
const GLIBC: &str = "glibc.cpu.hwcaps=-AVX2,-AVX2_Usable,-AVX,-AVX_Usable,-AVX_Fast_Unaligned_Load,-ERMS,-FSRM";

/// Repetitions before the counts begin, in which lazily created state is created.
const WARM_UP: u32 = 200;
const REPETITIONS: u32 = 1_000;

/// Runs `step` some times uncounted, and then a fixed number of times, which it returns. `step` calls [`counted_step`]
/// for what is counted.
pub(crate) fn repeat(mut step: impl FnMut() -> Result<(), BoxError>) -> Result<u32, BoxError> {
    repeat_times(WARM_UP, REPETITIONS, &mut step)
}

/// The same with other numbers.
pub(crate) fn repeat_times(
    warm_up: u32,
    repetitions: u32,
    mut step: impl FnMut() -> Result<(), BoxError>,
) -> Result<u32, BoxError> {
    for _ in 0..warm_up {
        step()?;
    }
    start_counting();
    for _ in 0..repetitions {
        step()?;
    }
    Ok(repetitions)
}

/// Calls `step`, whose instructions are counted.
#[inline(never)]
pub(crate) fn counted_step<T>(step: impl FnOnce() -> T) -> T {
    step()
}

/// Resets the counts, as callgrind does when it is called.
#[inline(never)]
pub(crate) fn start_counting() {
    black_box(());
}

pub(crate) fn is_installed() -> Result<bool, BoxError> {
    let found = Command::new("valgrind").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    match found {
        Ok(status) => Ok(status.success()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Returns the instructions per operation of a path.
pub(crate) fn count(path: &str) -> Result<u64, BoxError> {
    let directory = tempfile::tempdir()?;
    let profile = directory.path().join("callgrind.out");
    let mut command = Command::new("valgrind");
    // The environment is on the stack, where it would move what follows it.
    command.env_clear().env("PATH", env::var_os("PATH").unwrap_or_default()).env("GLIBC_TUNABLES", GLIBC);
    command.arg("--tool=callgrind").arg(format!("--zero-before={START}"));
    command.args(COUNTED.map(|function| format!("--toggle-collect={function}")));
    command.arg(format!("--callgrind-out-file={}", profile.display()));
    let output = command.arg(env::current_exe()?).args([RUN, path]).stdin(Stdio::null()).output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("the path {path} failed under valgrind:\n{stderr}").into());
    }
    let operations: u64 = String::from_utf8_lossy(&output.stdout).trim().parse()?;
    let profile = fs::read_to_string(profile)?;
    let total = profile.lines().find_map(|line| line.strip_prefix("totals: ").or(line.strip_prefix("summary: ")));
    match total.and_then(|total| total.trim().parse::<u64>().ok()) {
        Some(total) if total > 0 && operations > 0 => Ok((total + operations / 2) / operations),
        _ => Err(format!("no instructions of the path {path} were counted:\n{stderr}").into()),
    }
}
