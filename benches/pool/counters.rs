//! What can be counted rather than timed: instructions, and allocations.

use std::env;
use std::fs;
use std::hint::black_box;
use std::io;
use std::pin::pin;
use std::process::{Command, Stdio};
use std::task::{Context, Poll, Waker};

use tokio::runtime::{Builder, Runtime};

use crate::pools::{Bare, Contestant, NoIo, Ours, Straightforward, fill};
use crate::report::Row;
use crate::{Failure, Scale};

/// The argument by which this program, under callgrind, is told whose checkouts to count.
pub(crate) const COUNT: &str = "--count";

const BARE: &str = "bare";
const UNTIMED: &str = "untimed";
const NAIVE: &str = "naive";
const OURS: &str = "ours";

/// One checkout and its return. Polled by hand: what a runtime does around it is not the pool's.
#[inline(always)]
fn one<C: Contestant<u64>>(pool: &C) -> bool {
    let mut context = Context::from_waker(Waker::noop());
    let checkout = pin!(pool.checkout());
    let Poll::Ready(Ok(guard)) = checkout.poll(&mut context) else { return false };
    black_box(&*guard);
    true
}

/// The function that callgrind is told to look into, by this name.
#[inline(never)]
fn counted_checkout<C: Contestant<u64>>(pool: &C) -> bool {
    one(pool)
}

fn checkouts<C: Contestant<u64>>(runtime: &Runtime, pool: &C, count: u32) -> Result<(), Failure> {
    runtime.block_on(fill(pool))?;
    // deadpool's timeouts look for a runtime.
    let _entered = runtime.enter();
    let warmed_up = (0..100).all(|_| one(pool));
    if warmed_up && (0..count).all(|_| counted_checkout(black_box(pool))) {
        Ok(())
    } else {
        Err("a checkout was not ready at once".into())
    }
}

/// What this program does when callgrind runs it.
pub(crate) fn run_counted(pool: &str, count: &str) -> Result<(), Failure> {
    let count = count.parse()?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    match pool {
        BARE => checkouts(&runtime, &Bare::timed(NoIo)?, count),
        UNTIMED => checkouts(&runtime, &Bare::untimed(NoIo)?, count),
        NAIVE => checkouts(&runtime, &Straightforward::new(NoIo)?, count),
        OURS => checkouts(&runtime, &Ours::new(NoIo)?, count),
        _ => Err(format!("no pool is called {pool}").into()),
    }
}

pub(crate) fn instructions(scale: Scale) -> Result<Vec<Row>, Failure> {
    const KEY: &str = "instructions_over_bare";
    const WHAT: &str = "instructions that a checkout takes more than deadpool's";
    let found = Command::new("valgrind").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    match found {
        Ok(status) if status.success() => {}
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => return Ok(vec![Row::missing(KEY, WHAT, "not counted: valgrind is missing".to_owned())]),
    }
    let count = if scale.is_quick() { 100 } else { 10_000 };
    let bare = callgrind(BARE, count)?;
    let ours = callgrind(OURS, count)?;
    let mut rows = vec![Row::count(KEY, WHAT, ours - bare).at_most(250.0)];
    if !scale.is_quick() {
        let untimed = callgrind(UNTIMED, count)?;
        rows.extend([
            Row::count("instructions_over_bare_untimed", "than those of a deadpool without timeouts", ours - untimed),
            Row::count(
                "instructions_naive_over_bare",
                "the straightforward wrapper's",
                callgrind(NAIVE, count)? - bare,
            ),
            Row::count("instructions_bare", "deadpool's", bare),
        ]);
    }
    Ok(rows)
}

/// Instructions for each of `count` checkouts.
fn callgrind(pool: &str, count: u32) -> Result<f64, Failure> {
    let directory = tempfile::tempdir()?;
    let profile = directory.path().join("callgrind.out");
    let run = Command::new("valgrind")
        .args(["--tool=callgrind", "--toggle-collect=*counted_checkout*"])
        .arg(format!("--callgrind-out-file={}", profile.display()))
        .arg(env::current_exe()?)
        .args([COUNT, pool, &count.to_string()])
        .output()?;
    let said = String::from_utf8_lossy(&run.stderr);
    if !run.status.success() {
        return Err(format!("valgrind failed:\n{said}").into());
    }
    let profile = fs::read_to_string(profile)?;
    let total = profile.lines().find_map(|line| line.strip_prefix("totals: ").or(line.strip_prefix("summary: ")));
    match total.and_then(|total| total.trim().parse::<f64>().ok()) {
        Some(total) if total > 0.0 => Ok(total / f64::from(count)),
        _ => Err(format!("valgrind counted nothing:\n{said}").into()),
    }
}

/// Allocations on the heap in each of many checkouts, by an allocator that counts them.
#[allow(clippy::cast_precision_loss, reason = "a small count")]
pub(crate) fn allocations() -> Result<Vec<Row>, Failure> {
    const COUNT: u32 = 10_000;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let _entered = runtime.enter();
    let count = |checkout: &dyn Fn() -> bool| -> Result<f64, Failure> {
        let mut done = (0..100).all(|_| checkout());
        let counted = allocation_counter::measure(|| done &= (0..COUNT).all(|_| checkout()));
        if !done {
            return Err("a checkout was not ready at once".into());
        }
        Ok(counted.count_total as f64 / f64::from(COUNT))
    };
    let (bare, naive, ours) = (Bare::timed(NoIo)?, Straightforward::new(NoIo)?, Ours::new(NoIo)?);
    runtime.block_on(async {
        fill(&bare).await?;
        fill(&naive).await?;
        fill(&ours).await
    })?;
    Ok(vec![
        Row::count("allocations_per_checkout", "allocations on the heap", count(&|| one(&ours))?)
            .control(count(&|| one(&bare))?)
            .at_most(0.0),
        Row::count("allocations_naive", "the straightforward wrapper's", count(&|| one(&naive))?),
    ])
}
