//! Checkouts without I/O: what the pool itself costs.

use std::cell::Cell;
use std::hint::black_box;
use std::time::Instant;

use tokio::runtime::{Builder, Runtime};

use crate::comparison::{Rounds, median, ratio};
use crate::pools::{Bare, Contestant, NoIo, Ours, Straightforward, fill};
use crate::report::Row;
use crate::{Failure, Scale};

/// Checkouts in a turn: half a millisecond of them, shorter than most of what disturbs a machine.
const TURN: u32 = 2_000;
const TASKS: u32 = 64;
/// Checkouts of each of the tasks in a turn.
const TURN_OF_TASK: u32 = 250;
/// Pools of each variant. Each variant comes by each of its own, for the order of variants is drawn.
const PLACES: usize = 8;

struct Pools {
    bare: Bare<NoIo>,
    control: Bare<NoIo>,
    untimed: Bare<NoIo>,
    naive: Straightforward<NoIo>,
    ours: Ours<NoIo>,
}

impl Pools {
    async fn new() -> Result<Self, Failure> {
        let pools = Self {
            bare: Bare::timed(NoIo)?,
            control: Bare::timed(NoIo)?,
            untimed: Bare::untimed(NoIo)?,
            naive: Straightforward::new(NoIo)?,
            ours: Ours::new(NoIo)?,
        };
        fill(&pools.bare).await?;
        fill(&pools.control).await?;
        fill(&pools.untimed).await?;
        fill(&pools.naive).await?;
        fill(&pools.ours).await?;
        Ok(pools)
    }
}

pub(crate) fn measure(scale: Scale) -> Result<Vec<Row>, Failure> {
    let mut rows = one_task(scale)?;
    rows.extend(many_tasks(scale)?);
    Ok(rows)
}

fn one_task(scale: Scale) -> Result<Vec<Row>, Failure> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let pools = runtime.block_on(Pools::new())?;
    let mut rounds = Rounds::new();
    let bare = rounds.add(|| turn(&pools.bare));
    let control = rounds.add(|| turn(&pools.control));
    let untimed = rounds.add(|| turn(&pools.untimed));
    let naive = rounds.add(|| turn(&pools.naive));
    let ours = rounds.add(|| turn(&pools.ours));
    // A task that is never made to wait is made to yield now and then, which in a loop that does nothing else costs
    // deadpool a system call and ours, which asks the semaphore in another way, nothing. That is no pool's merit.
    let times = runtime.block_on(tokio::task::unconstrained(rounds.run(scale.of(4_000))))?;

    // What each adds to the deadpool that it wraps: the naive one needs deadpool's timeout, ours does not.
    let added = |of: usize, to: usize| median(times[of].iter().zip(&times[to]).map(|(of, to)| of - to).collect());
    let (naive_adds, ours_adds) = (added(naive, bare), added(ours, untimed));
    let control = ratio(&times[control], &times[bare]);
    Ok(vec![
        Row::ratio("checkout_noio_1", "time of a checkout without I/O, one task", ratio(&times[ours], &times[bare]))
            .control(control)
            .at_most(1.15),
        Row::ratio(
            "checkout_noio_1_untimed",
            "the same, over a deadpool without timeouts",
            ratio(&times[ours], &times[untimed]),
        ),
        Row::ratio("checkout_noio_1_naive", "the straightforward wrapper", ratio(&times[naive], &times[bare])),
        Row::count("checkout_noio_1_bare_ns", "nanoseconds, deadpool", median(times[bare].clone())),
        Row::count("checkout_noio_1_ours_ns", "nanoseconds, ours", median(times[ours].clone())),
        Row::count(
            "overhead_ours_ns",
            "nanoseconds that ours adds to the deadpool it wraps, which has no timeouts",
            ours_adds,
        ),
        Row::count("overhead_naive_ns", "nanoseconds that the straightforward wrapper adds to its own", naive_adds),
        Row::ratio("naive_overhead_over_ours", "those two, divided", naive_adds / ours_adds).at_least(10.0),
    ])
}

async fn turn<C: Contestant<u64>>(pool: &C) -> Result<f64, Failure> {
    let begun = Instant::now();
    for _ in 0..TURN {
        let guard = pool.checkout().await.map_err(|error| format!("{error:?}"))?;
        black_box(&*guard);
    }
    Ok(begun.elapsed().as_secs_f64() * 1e9 / f64::from(TURN))
}

fn many_tasks(scale: Scale) -> Result<Vec<Row>, Failure> {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    // Between two threads it matters how a pool happens to lie in memory: several of each, in turn.
    let pools: Vec<Pools> = (0..PLACES).map(|_| runtime.block_on(Pools::new())).collect::<Result<_, _>>()?;
    let turns = Cell::new(0);
    let next = || &pools[turns.replace(turns.get() + 1) % PLACES];
    let mut rounds = Rounds::new();
    let bare = rounds.add(|| tasks(&next().bare, &runtime));
    let control = rounds.add(|| tasks(&next().control, &runtime));
    let untimed = rounds.add(|| tasks(&next().untimed, &runtime));
    let naive = rounds.add(|| tasks(&next().naive, &runtime));
    let ours = rounds.add(|| tasks(&next().ours, &runtime));
    let times = runtime.block_on(rounds.run(scale.of(400)))?;
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
            "the same, over a deadpool without timeouts",
            ratio(&times[ours], &times[untimed]),
        ),
        Row::ratio("checkout_noio_64_naive", "the straightforward wrapper", ratio(&times[naive], &times[bare])),
    ])
}

async fn tasks<C: Contestant<u64>>(pool: &C, runtime: &Runtime) -> Result<f64, Failure> {
    let begun = Instant::now();
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let pool = pool.clone();
            runtime.spawn(async move {
                for _ in 0..TURN_OF_TASK {
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
    Ok(begun.elapsed().as_secs_f64())
}
