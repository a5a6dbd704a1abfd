//! What a checkout costs, against bare deadpool and against the wrapper that one would write in an hour; what a pool
//! saves; and what a scrape costs, against the `prometheus` crate.
//!
//! ```text
//! cargo bench --bench pool               # some minutes; keep the machine quiet
//! cargo bench --bench pool -- scrapes    # one section, or several; see SECTIONS
//! cargo bench --bench pool -- --quick    # some seconds; tries everything, measures nothing worth quoting
//! ```
//!
//! Every comparison runs its variants in one process, in rounds, in an order that is drawn anew for each round, with
//! bare deadpool in it twice: what the second one differs from the first is noise, and stands in the column `control`.
//! Bare deadpool has timeouts, as a service's has and as ours has; where a key ends in `_untimed` it has none.
//!
//! No subscriber for `tracing` is installed but for what is measured within traces, which flatters the straightforward
//! wrapper: its spans cost next to nothing.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a bench reports where it runs")]

mod affinity;
mod checkout;
mod comparison;
mod connect_per_request;
mod counters;
mod environment;
mod middleware;
mod pools;
#[path = "../../tests/support/proxy.rs"]
mod proxy;
mod queries;
mod report;
mod scrape;
mod spans;
mod wire;
mod wrapper;

use std::env;
use std::process::ExitCode;
use std::time::Instant;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scale {
    Full,
    Quick,
}

impl Scale {
    /// How many rounds, where the full measurement has `full`.
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
        [counters::COUNT, pool, count] => counters::run_counted(pool, count),
        _ => plan(&arguments).and_then(|(scale, sections)| measure(scale, &sections)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            let mut source = error.source();
            while let Some(cause) = source {
                eprintln!("  because: {cause}");
                source = cause.source();
            }
            ExitCode::FAILURE
        }
    }
}

/// What can be measured by itself.
const SECTIONS: [&str; 7] = ["select", "no-io", "instructions", "scrapes", "pooling", "traces", "requests"];

/// How much is measured, and what: everything, unless sections are named.
fn plan<'a>(arguments: &[&'a str]) -> Result<(Scale, Vec<&'a str>), Failure> {
    let (mut scale, mut sections) = (Scale::Full, Vec::new());
    for argument in arguments {
        match *argument {
            // cargo adds it by itself.
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

/// Says on the standard error what is being done now.
fn say(what: &str) {
    eprintln!("bench: {what}");
}

fn measure(scale: Scale, sections: &[&str]) -> Result<(), Failure> {
    let begun = Instant::now();
    let section = |name, what| {
        let is_wanted = sections.contains(&name);
        if is_wanted {
            say(what);
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
    let described = server.as_ref().map(|server| (&*server.version, server.pinned));
    let described = environment::describe(described);
    rows.extend(server.into_iter().flat_map(|server| server.rows));
    if section("requests", "requests") {
        rows.extend(middleware::measure(scale)?);
    }
    if section("pooling", "a pool against a connection for each request") {
        rows.extend(connect_per_request::measure(scale)?);
    }
    if section("traces", "within traces") {
        rows.extend(spans::measure(scale)?);
    }

    println!("{described}");
    println!("\n{}\n", report::table(&rows));
    if scale.is_quick() {
        println!("A quick run: these figures are not to be quoted.");
    }
    let written = report::write(&rows, scale.is_quick())?;
    println!("Took {} s. Also written to {}.", begun.elapsed().as_secs(), written.display());
    Ok(())
}
