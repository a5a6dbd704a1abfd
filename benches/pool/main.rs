//! Benchmarks of checkouts against bare deadpool and a simple wrapper with metrics, of pooling itself, and of scrapes
//! against the `prometheus` crate.
//!
//! ```text
//! cargo bench --bench pool               # some minutes; keep the machine quiet
//! cargo bench --bench pool -- scrapes    # one or more sections; see SECTIONS
//! cargo bench --bench pool -- --quick    # some seconds; runs everything, its figures are meaningless
//! ```
//!
//! Every comparison runs its variants in one process, in rounds with a random order. Bare deadpool is measured twice:
//! the ratio of the second to the first is noise, and is printed in the column `control`. Bare deadpool has timeouts,
//! as in a service; where a key ends in `_untimed` it has none.
//!
//! Except in the section `traces`, no `tracing` subscriber is installed, which favours the wrapper: its spans cost next
//! to nothing.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the report goes to the terminal")]

mod affinity;
mod cache;
mod checkout;
mod comparison;
mod connect_per_request;
mod counters;
mod environment;
mod middleware;
mod minimal_layer;
mod minimal_pool;
mod pools;
mod queries;
mod redis;
mod report;
mod sampler;
mod scrape;
mod spans;
mod wire;
mod wrapper;

use std::env;
use std::process::ExitCode;
use std::time::Instant;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The extent of the measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scale {
    Full,
    Quick,
}

impl Scale {
    /// Returns the number of rounds for this scale.
    fn of(self, full: usize) -> usize {
        match self {
            Self::Full => full,
            Self::Quick => full.div_ceil(100),
        }
    }

    fn is_quick(self) -> bool {
        self == Self::Quick
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments[..] {
        [counters::COUNT_ARGUMENT, pool, count] => counters::run_counted(pool, count),
        _ => parse_arguments(&arguments).and_then(|(scale, sections)| measure(scale, &sections)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            let mut source = error.source();
            while let Some(cause) = source {
                eprintln!("  caused by: {cause}");
                source = cause.source();
            }
            ExitCode::FAILURE
        }
    }
}

/// Sections that can be run separately.
const SECTIONS: [&str; 10] =
    ["select", "no-io", "instructions", "scrapes", "sampler", "pooling", "traces", "requests", "redis", "cache"];

/// Parses the scale and the sections; all sections by default.
fn parse_arguments<'a>(arguments: &[&'a str]) -> Result<(Scale, Vec<&'a str>), BoxError> {
    let (mut scale, mut sections) = (Scale::Full, Vec::new());
    for argument in arguments {
        match *argument {
            // Added by cargo.
            "--bench" => {}
            "--quick" => scale = Scale::Quick,
            section if SECTIONS.contains(&section) => sections.push(section),
            _ => return Err(format!("usage: cargo bench --bench pool [-- [--quick] [{}]]", SECTIONS.join("|")).into()),
        }
    }
    if sections.is_empty() {
        sections.extend(SECTIONS);
    }
    Ok((scale, sections))
}

/// Logs the current step to standard error.
fn log_progress(what: &str) {
    eprintln!("bench: {what}");
}

fn measure(scale: Scale, sections: &[&str]) -> Result<(), BoxError> {
    let start = Instant::now();
    let section = |name, what| {
        let is_wanted = sections.contains(&name);
        if is_wanted {
            log_progress(what);
        }
        is_wanted
    };
    let mut rows = Vec::new();
    let server = section("select", "SELECT 1, one task").then(|| queries::measure(scale)).transpose()?;
    if section("no-io", "checkouts without I/O") {
        rows.extend(checkout::measure(scale)?);
    }
    if section("instructions", "instructions and allocations") {
        rows.extend(counters::instructions(scale)?);
        rows.extend(counters::allocations()?);
    }
    if section("scrapes", "scrapes") {
        rows.extend(scrape::measure(scale)?);
    }
    if section("sampler", "the sampler of the diagnosis") {
        rows.extend(sampler::measure(scale)?);
    }
    let described = server.as_ref().map(|server| (&*server.version, server.pinned));
    let described = environment::describe(described);
    rows.extend(server.into_iter().flat_map(|server| server.rows));
    if section("requests", "requests") {
        rows.extend(middleware::measure(scale)?);
    }
    if section("pooling", "a pool against one connection per request") {
        rows.extend(connect_per_request::measure(scale)?);
    }
    if section("traces", "within traces") {
        rows.extend(spans::measure(scale)?);
    }

    if section("redis", "GET on Redis, one task") {
        rows.extend(redis::measure(scale)?);
    }
    if section("cache", "the cache, one task") {
        rows.extend(cache::measure(scale)?);
    }

    println!("{described}");
    println!("\n{}\n", report::table(&rows));
    if scale.is_quick() {
        println!("A quick run: these figures are meaningless.");
    }
    let written = report::write(&rows, scale.is_quick())?;
    println!("Took {} s. Also written to {}.", start.elapsed().as_secs(), written.display());
    Ok(())
}
