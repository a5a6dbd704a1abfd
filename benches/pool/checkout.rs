//! Checkouts without I/O: the overhead of the pool itself.

use std::cell::Cell;
use std::hint::black_box;
use std::time::Instant;

use tokio::runtime::{Builder, Runtime};

use crate::comparison::{Comparison, median, ratio};
use crate::minimal_pool::MinimalPool;
use crate::pools::{BareDeadpool, BenchPool, NoIoManager, Poolscope, SimpleWrapper, fill};
use crate::report::Row;
use crate::{BoxError, Scale};

/// Half a millisecond of checkouts, shorter than most disturbances.
const CHECKOUTS_PER_TURN: u32 = 2_000;
const TASKS: u32 = 64;
/// Checkouts of each task in a turn.
const CHECKOUTS_PER_TASK: u32 = 250;
/// Sets of pools; the variants use them in turn.
const POOL_SETS: usize = 8;

struct Pools {
    bare: BareDeadpool<NoIoManager>,
    control: BareDeadpool<NoIoManager>,
    untimed: BareDeadpool<NoIoManager>,
    wrapper: SimpleWrapper<NoIoManager>,
    ours: Poolscope<NoIoManager>,
    /// Like Poolscope's deadpool, without timeouts.
    minimal: MinimalPool<NoIoManager>,
    minimal_timed: MinimalPool<NoIoManager>,
}

impl Pools {
    async fn new() -> Result<Self, BoxError> {
        let pools = Self {
            bare: BareDeadpool::with_timeouts(NoIoManager)?,
            control: BareDeadpool::with_timeouts(NoIoManager)?,
            untimed: BareDeadpool::without_timeouts(NoIoManager)?,
            wrapper: SimpleWrapper::new(NoIoManager)?,
            ours: Poolscope::new(NoIoManager)?,
            minimal: MinimalPool::without_timeouts(NoIoManager)?,
            minimal_timed: MinimalPool::with_timeouts(NoIoManager)?,
        };
        fill(&pools.bare).await?;
        fill(&pools.control).await?;
        fill(&pools.untimed).await?;
        fill(&pools.wrapper).await?;
        fill(&pools.ours).await?;
        fill(&pools.minimal).await?;
        fill(&pools.minimal_timed).await?;
        Ok(pools)
    }
}

pub(crate) fn measure(scale: Scale) -> Result<Vec<Row>, BoxError> {
    let mut rows = one_task(scale)?;
    rows.extend(many_tasks(scale)?);
    Ok(rows)
}

fn one_task(scale: Scale) -> Result<Vec<Row>, BoxError> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let pools = runtime.block_on(Pools::new())?;
    let mut comparison = Comparison::new();
    let bare = comparison.add(|| turn(&pools.bare));
    let control = comparison.add(|| turn(&pools.control));
    let untimed = comparison.add(|| turn(&pools.untimed));
    let wrapper = comparison.add(|| turn(&pools.wrapper));
    let ours = comparison.add(|| turn(&pools.ours));
    let minimal = comparison.add(|| turn(&pools.minimal));
    // Without tokio's cooperative budget: running out of it costs deadpool a system call, and a pool that polls the
    // semaphore differently nothing. That is no merit of the pool.
    let times = runtime.block_on(tokio::task::unconstrained(comparison.run(scale.of(4_000))))?;

    // The overhead over the deadpool inside: the wrapper needs deadpool's timeouts, Poolscope does not.
    let added = |of: usize, to: usize| median(times[of].iter().zip(&times[to]).map(|(of, to)| of - to).collect());
    let (naive_adds, ours_adds) = (added(wrapper, bare), added(ours, untimed));
    let control = ratio(&times[control], &times[bare]);
    Ok(vec![
        Row::ratio("checkout_noio_1", "time of a checkout without I/O, one task", ratio(&times[ours], &times[bare]))
            .control(control)
            .at_most(1.15),
        Row::ratio(
            "checkout_noio_1_untimed",
            "the same, over deadpool without timeouts",
            ratio(&times[ours], &times[untimed]),
        ),
        Row::ratio("checkout_noio_1_naive", "the same for the simple wrapper", ratio(&times[wrapper], &times[bare])),
        Row::ratio(
            "checkout_noio_1_minimal",
            "the same for the least accounting, in a deadpool without timeouts",
            ratio(&times[minimal], &times[bare]),
        ),
        Row::count("checkout_noio_1_bare_ns", "nanoseconds per checkout, deadpool", median(times[bare].clone())),
        Row::count("checkout_noio_1_ours_ns", "nanoseconds per checkout, Poolscope", median(times[ours].clone())),
        Row::count(
            "overhead_ours_ns",
            "nanoseconds added by Poolscope to its deadpool, which has no timeouts",
            ours_adds,
        ),
        Row::count("overhead_minimal_ns", "nanoseconds added to it by the least accounting", added(minimal, untimed)),
        Row::count("overhead_naive_ns", "nanoseconds added by the simple wrapper to its deadpool", naive_adds),
        Row::ratio("naive_overhead_over_ours", "ratio of these two", naive_adds / ours_adds).at_least(10.0),
    ])
}

async fn turn<C: BenchPool<u64>>(pool: &C) -> Result<f64, BoxError> {
    let start = Instant::now();
    for _ in 0..CHECKOUTS_PER_TURN {
        let guard = pool.checkout().await.map_err(|error| format!("{error:?}"))?;
        black_box(&*guard);
    }
    Ok(start.elapsed().as_secs_f64() * 1e9 / f64::from(CHECKOUTS_PER_TURN))
}

fn many_tasks(scale: Scale) -> Result<Vec<Row>, BoxError> {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    // With two threads the memory layout of a pool matters, so there are several of each, used in turn.
    let pools: Vec<Pools> = (0..POOL_SETS).map(|_| runtime.block_on(Pools::new())).collect::<Result<_, _>>()?;
    let turns = Cell::new(0);
    let next = || &pools[turns.replace(turns.get() + 1) % POOL_SETS];
    let mut comparison = Comparison::new();
    let bare = comparison.add(|| tasks(&next().bare, &runtime));
    let control = comparison.add(|| tasks(&next().control, &runtime));
    let untimed = comparison.add(|| tasks(&next().untimed, &runtime));
    let wrapper = comparison.add(|| tasks(&next().wrapper, &runtime));
    let ours = comparison.add(|| tasks(&next().ours, &runtime));
    let minimal = comparison.add(|| tasks(&next().minimal_timed, &runtime));
    let times = runtime.block_on(comparison.run(scale.of(400)))?;
    Ok(vec![
        Row::ratio(
            "checkout_noio_64",
            "the same, 64 tasks that yield while holding",
            ratio(&times[ours], &times[bare]),
        )
        .control(ratio(&times[control], &times[bare]))
        .at_most(1.12),
        Row::ratio(
            "checkout_noio_64_untimed",
            "the same, over deadpool without timeouts",
            ratio(&times[ours], &times[untimed]),
        ),
        Row::ratio("checkout_noio_64_naive", "the same for the simple wrapper", ratio(&times[wrapper], &times[bare])),
        Row::ratio(
            "checkout_noio_64_minimal",
            "the same for the least accounting, with timeouts",
            ratio(&times[minimal], &times[bare]),
        ),
    ])
}

async fn tasks<C: BenchPool<u64>>(pool: &C, runtime: &Runtime) -> Result<f64, BoxError> {
    let start = Instant::now();
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let pool = pool.clone();
            runtime.spawn(async move {
                for _ in 0..CHECKOUTS_PER_TASK {
                    let Ok(guard) = pool.checkout().await else { return false };
                    tokio::task::yield_now().await;
                    black_box(&*guard);
                }
                true
            })
        })
        .collect();
    for task in tasks {
        if !task.await? {
            return Err("a checkout failed".into());
        }
    }
    Ok(start.elapsed().as_secs_f64())
}
