//! Instructions and allocations of a checkout.

use std::env;
use std::fs;
use std::hint::black_box;
use std::io;
use std::pin::pin;
use std::process::{Command, Stdio};
use std::task::{Context, Poll, Waker};

use tokio::runtime::{Builder, Runtime};

use crate::pools::{BareDeadpool, BenchPool, NoIoManager, Poolscope, SimpleWrapper, fill};
use crate::report::Row;
use crate::{BoxError, Scale};

/// The argument that makes this program run checkouts under callgrind.
pub(crate) const COUNT_ARGUMENT: &str = "--count";

const BARE: &str = "bare";
const WITHOUT_TIMEOUTS: &str = "untimed";
const WRAPPER: &str = "naive";
const POOLSCOPE: &str = "ours";

/// Checks out and returns one connection, polled by hand to exclude the runtime.
#[inline(always)]
fn checkout_once<C: BenchPool<u64>>(pool: &C) -> bool {
    let mut context = Context::from_waker(Waker::noop());
    let checkout = pin!(pool.checkout());
    let Poll::Ready(Ok(guard)) = checkout.poll(&mut context) else { return false };
    black_box(&*guard);
    true
}

/// The function whose instructions callgrind counts, by this name.
#[inline(never)]
fn counted_checkout<C: BenchPool<u64>>(pool: &C) -> bool {
    checkout_once(pool)
}

fn checkouts<C: BenchPool<u64>>(runtime: &Runtime, pool: &C, count: u32) -> Result<(), BoxError> {
    runtime.block_on(fill(pool))?;
    // deadpool's timeouts need a runtime.
    let _entered = runtime.enter();
    let warmed_up = (0..100).all(|_| checkout_once(pool));
    if warmed_up && (0..count).all(|_| counted_checkout(black_box(pool))) {
        Ok(())
    } else {
        Err("a checkout was pending".into())
    }
}

/// Runs the checkouts that callgrind counts.
pub(crate) fn run_counted(pool: &str, count: &str) -> Result<(), BoxError> {
    let count = count.parse()?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    match pool {
        BARE => checkouts(&runtime, &BareDeadpool::with_timeouts(NoIoManager)?, count),
        WITHOUT_TIMEOUTS => checkouts(&runtime, &BareDeadpool::without_timeouts(NoIoManager)?, count),
        WRAPPER => checkouts(&runtime, &SimpleWrapper::new(NoIoManager)?, count),
        POOLSCOPE => checkouts(&runtime, &Poolscope::new(NoIoManager)?, count),
        _ => Err(format!("unknown pool {pool}").into()),
    }
}

pub(crate) fn instructions(scale: Scale) -> Result<Vec<Row>, BoxError> {
    const KEY: &str = "instructions_over_bare";
    const WHAT: &str = "instructions per checkout, more than deadpool";
    let found = Command::new("valgrind").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    match found {
        Ok(status) if status.success() => {}
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => return Ok(vec![Row::missing(KEY, WHAT, "not measured: valgrind is not installed".to_owned())]),
    }
    let count = if scale.is_quick() { 100 } else { 10_000 };
    let bare = callgrind(BARE, count)?;
    let ours = callgrind(POOLSCOPE, count)?;
    let mut rows = vec![Row::count(KEY, WHAT, ours - bare).at_most(250.0)];
    if !scale.is_quick() {
        let untimed = callgrind(WITHOUT_TIMEOUTS, count)?;
        rows.extend([
            Row::count(
                "instructions_over_bare_untimed",
                "the same, more than deadpool without timeouts",
                ours - untimed,
            ),
            Row::count(
                "instructions_naive_over_bare",
                "the same for the simple wrapper",
                callgrind(WRAPPER, count)? - bare,
            ),
            Row::count("instructions_bare", "instructions per checkout, deadpool", bare),
        ]);
    }
    Ok(rows)
}

/// Returns the instructions per checkout.
fn callgrind(pool: &str, count: u32) -> Result<f64, BoxError> {
    let directory = tempfile::tempdir()?;
    let profile = directory.path().join("callgrind.out");
    let run = Command::new("valgrind")
        .args(["--tool=callgrind", "--toggle-collect=*counted_checkout*"])
        .arg(format!("--callgrind-out-file={}", profile.display()))
        .arg(env::current_exe()?)
        .args([COUNT_ARGUMENT, pool, &count.to_string()])
        .output()?;
    let stderr = String::from_utf8_lossy(&run.stderr);
    if !run.status.success() {
        return Err(format!("valgrind failed:\n{stderr}").into());
    }
    let profile = fs::read_to_string(profile)?;
    let total = profile.lines().find_map(|line| line.strip_prefix("totals: ").or(line.strip_prefix("summary: ")));
    match total.and_then(|total| total.trim().parse::<f64>().ok()) {
        Some(total) if total > 0.0 => Ok(total / f64::from(count)),
        _ => Err(format!("valgrind counted no instructions:\n{stderr}").into()),
    }
}

/// Counts heap allocations per checkout with a counting allocator.
#[allow(clippy::cast_precision_loss, reason = "a small count")]
pub(crate) fn allocations() -> Result<Vec<Row>, BoxError> {
    const COUNT: u32 = 10_000;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let _entered = runtime.enter();
    let count = |checkout: &dyn Fn() -> bool| -> Result<f64, BoxError> {
        let mut done = (0..100).all(|_| checkout());
        let counted = allocation_counter::measure(|| done &= (0..COUNT).all(|_| checkout()));
        if !done {
            return Err("a checkout was pending".into());
        }
        Ok(counted.count_total as f64 / f64::from(COUNT))
    };
    let (bare, wrapper, ours) =
        (BareDeadpool::with_timeouts(NoIoManager)?, SimpleWrapper::new(NoIoManager)?, Poolscope::new(NoIoManager)?);
    runtime.block_on(async {
        fill(&bare).await?;
        fill(&wrapper).await?;
        fill(&ours).await
    })?;
    Ok(vec![
        Row::count("allocations_per_checkout", "heap allocations per checkout", count(&|| checkout_once(&ours))?)
            .control(count(&|| checkout_once(&bare))?)
            .at_most(0.0),
        Row::count("allocations_naive", "the same for the simple wrapper", count(&|| checkout_once(&wrapper))?),
    ])
}
