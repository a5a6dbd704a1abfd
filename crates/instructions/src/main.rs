//! Counts the instructions of poolscope's hot paths, and compares them with `counts.toml`.
//!
//! ```text
//! make instructions                                  # fails if a path is more than 2 % dearer than its count
//! make instructions REASON='why the paths changed'   # writes the counts that differ, with the reason
//! ```
//!
//! Each path runs under valgrind's callgrind, in a process of its own with a fixed environment, a fixed number of times,
//! and without a network: only what the path itself executes in this process is counted. The counts do not depend on the
//! load of the machine nor on its processor, since valgrind has a processor of its own; glibc is told to choose the same
//! implementation of `memcpy` everywhere. Repeated counts differ by less than 0.1 %, those of scrapes by 1 %. They do depend on the compiler: with another version than that of the committed
//! counts the tolerance is [`OTHER_COMPILER_PERCENT`], and on another target nothing is compared.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the report goes to the terminal")]

mod callgrind;
mod checkouts;
mod counts;
mod requests;
mod scrapes;
mod server;
mod wire;

use std::env;
use std::process::ExitCode;
use std::thread;

use crate::counts::{Counts, Difference};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The argument that makes this program run a path; callgrind counts it.
const RUN: &str = "--run";
const UPDATE: &str = "--update";

/// By how many percent a path may be dearer than its committed count.
const TOLERANCE_PERCENT: f64 = 2.0;
/// The same, if the compiler has another version than that of the committed counts.
const OTHER_COMPILER_PERCENT: f64 = 15.0;

/// The same for a path that writes durations, some of which have more digits than others.
const DURATIONS_PERCENT: f64 = 5.0;

/// A counted path.
struct Path {
    name: &'static str,
    /// By how many percent it may be dearer at least.
    tolerance_percent: f64,
    /// Runs it, and returns how many operations were counted.
    run: fn() -> Result<u32, BoxError>,
}

const PATHS: [Path; 15] = [
    Path { name: "checkout", tolerance_percent: TOLERANCE_PERCENT, run: checkouts::fast },
    Path { name: "checkout_operation", tolerance_percent: TOLERANCE_PERCENT, run: checkouts::operation },
    Path { name: "checkout_queued", tolerance_percent: TOLERANCE_PERCENT, run: checkouts::queued },
    Path { name: "checkout_cancelled", tolerance_percent: TOLERANCE_PERCENT, run: checkouts::cancelled },
    Path { name: "checkout_unsampled", tolerance_percent: TOLERANCE_PERCENT, run: checkouts::unsampled },
    Path { name: "checkout_sampled", tolerance_percent: TOLERANCE_PERCENT, run: checkouts::sampled },
    Path { name: "wire_simple", tolerance_percent: TOLERANCE_PERCENT, run: wire::simple },
    Path { name: "wire_extended", tolerance_percent: TOLERANCE_PERCENT, run: wire::extended },
    Path { name: "wire_cached", tolerance_percent: TOLERANCE_PERCENT, run: wire::cached },
    Path { name: "wire_cached_sampled", tolerance_percent: TOLERANCE_PERCENT, run: wire::cached_sampled },
    Path { name: "request", tolerance_percent: TOLERANCE_PERCENT, run: requests::without_checkout },
    Path { name: "request_checkout", tolerance_percent: TOLERANCE_PERCENT, run: requests::with_checkout },
    Path { name: "scrape_pool_text", tolerance_percent: DURATIONS_PERCENT, run: scrapes::text },
    Path { name: "scrape_pool_open_metrics", tolerance_percent: DURATIONS_PERCENT, run: scrapes::open_metrics },
    Path { name: "scrape_pool_used", tolerance_percent: DURATIONS_PERCENT, run: scrapes::used_text },
];

/// Returns by how many percent a path may be dearer than its count.
fn tolerance_percent(name: &str, is_same_compiler: bool) -> f64 {
    let own = PATHS.iter().find(|path| path.name == name).map_or(TOLERANCE_PERCENT, |path| path.tolerance_percent);
    if is_same_compiler { own } else { own.max(OTHER_COMPILER_PERCENT) }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments[..] {
        [] => compare(),
        [UPDATE, reason] if !reason.trim().is_empty() => update(reason.trim()),
        [RUN, name] => run(name),
        _ => Err(format!("usage: poolscope-instructions [{UPDATE} REASON]").into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("instructions: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs a path, and prints the number of its operations.
fn run(name: &str) -> Result<(), BoxError> {
    let path = PATHS.iter().find(|path| path.name == name).ok_or_else(|| format!("no path is named {name}"))?;
    println!("{}", (path.run)()?);
    Ok(())
}

/// Counts each path, two at a time. Returns `None` if valgrind is not available.
fn count() -> Result<Option<Vec<(&'static str, u64)>>, BoxError> {
    if !callgrind::is_installed()? {
        return Ok(None);
    }
    let half = PATHS.len() / 2;
    let counted = |paths: &'static [Path]| -> Result<Vec<_>, BoxError> {
        paths.iter().map(|path| Ok((path.name, callgrind::count(path.name)?))).collect()
    };
    let (first, second) = thread::scope(|scope| {
        let first = scope.spawn(|| counted(&PATHS[..half]));
        let second = counted(&PATHS[half..]);
        (first.join(), second)
    });
    let mut counts = first.map_err(|_| "a thread panicked")??;
    counts.extend(second?);
    Ok(Some(counts))
}

fn compare() -> Result<(), BoxError> {
    let committed = Counts::read()?;
    if !committed.is_same_target() {
        println!("instructions: not compared, since the committed counts are those of {}", committed.target());
        return Ok(());
    }
    let Some(counted) = count()? else {
        println!("instructions: not compared, since valgrind is not installed");
        return Ok(());
    };
    if !committed.is_same_compiler() {
        println!(
            "instructions: the committed counts are those of {}; with this compiler a path may be {OTHER_COMPILER_PERCENT} % dearer",
            committed.compiler()
        );
    }
    let differences = committed.compare(&counted);
    println!("{:26} {:>9} {:>9}", "instructions of", "committed", "counted");
    for (name, instructions) in &counted {
        let before = committed.of(name).map_or_else(|| "-".to_owned(), |count| count.to_string());
        println!("{name:26} {before:>9} {instructions:>9}");
    }
    let mut failed = false;
    for difference in &differences {
        println!("instructions: {difference}");
        failed |= !matches!(difference, Difference::Cheaper { .. });
    }
    if failed {
        return Err("paths differ from counts.toml. If that is intended: make instructions REASON='why'".into());
    }
    Ok(())
}

fn update(reason: &str) -> Result<(), BoxError> {
    let committed = Counts::read()?;
    let counted = count()?.ok_or("valgrind is not installed")?;
    let changed = committed.update(&counted, reason)?;
    println!("instructions: {changed} of {} counts written", counted.len());
    Ok(())
}
