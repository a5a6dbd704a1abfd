//! Random faults under load: a real server behind a proxy, two pools (one with TLS), and hundreds of tasks that cancel at
//! random.
//!
//! - `world`: the server, the pools, and what their callers know: who holds which connection, and what was committed;
//! - `load`: the tasks; `money`: the table of accounts that has to balance;
//! - `faults`: faults of the network and of the server;
//! - `observer`: ten scrapes per second, in a thread and a runtime of its own;
//! - `runtimes`: runtimes that end while connections are out;
//! - `soak`: a pool under load in a process of its own, whose memory, descriptors, threads and tasks do not grow.
//!
//! `POOLSCOPE_CHAOS_SECONDS` sets the duration, and `POOLSCOPE_CHAOS_SEED` repeats a run: the same faults in the same order,
//! with the same durations, under the same load. How tasks and processes are scheduled is not repeated.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod faults;
mod load;
mod money;
mod observer;
mod report;
mod runtimes;
mod soak;
mod world;

use std::env;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::load::Load;
use self::observer::Observer;
use self::report::Report;
use self::world::{PROBE_TIMEOUT, World, eventually};

/// The duration in `make test`.
const DEFAULT_SECONDS: u64 = 20;

/// The number of tasks.
const TASKS: usize = 200;

/// The longest time for which a fault lasts, in milliseconds.
const MAX_FAULT_MILLIS: u64 = 400;

fn variable<T: FromStr>(name: &str) -> Option<T> {
    env::var(name).ok()?.parse().ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[allow(clippy::print_stdout, reason = "the result of a run")]
async fn faults_leave_nothing_behind() {
    let seed = variable("POOLSCOPE_CHAOS_SEED").unwrap_or_else(|| fastrand::u64(..));
    let duration = Duration::from_secs(variable("POOLSCOPE_CHAOS_SECONDS").unwrap_or(DEFAULT_SECONDS));
    println!("POOLSCOPE_CHAOS_SEED={seed}");
    let world = Arc::new(World::start(seed).await);
    let load = Load::start(&world, TASKS);
    let observer = Observer::start(&world);
    let mut report = Report::default();
    let mut random = fastrand::Rng::with_seed(seed);

    let started = Instant::now();
    let mut deck = Vec::new();
    while started.elapsed() < duration {
        // Each round has two faults at once, so that all of them occur before any occurs again.
        if deck.len() < 2 {
            deck = faults::available(&world).await;
            random.shuffle(&mut deck);
        }
        let pair = [deck.pop().unwrap(), deck.pop().unwrap()];
        let lengths = pair.map(|_| Duration::from_millis(random.u64(100..=MAX_FAULT_MILLIS)));
        let mut sources = pair.map(|_| fastrand::Rng::with_seed(random.u64(..)));
        let [first, second] = &mut sources;
        tokio::join!(pair[0].occur(&world, lengths[0], first), pair[1].occur(&world, lengths[1], second));
        let healed = Instant::now();
        for target in &world.targets {
            eventually(&format!("{} works after {pair:?}", target.name), PROBE_TIMEOUT, async || target.works().await)
                .await;
        }
        report.recovered(pair, healed.elapsed());
        let agreed = Instant::now();
        eventually(&format!("server and pools agree after {pair:?}"), PROBE_TIMEOUT, async || observer.agrees().await)
            .await;
        report.agreed(agreed.elapsed());
    }

    let done = load.stop().await;
    world.assert_whole().await;
    let observed = observer.stop();
    let drift = world.assert_no_drift();
    world.money.assert_balances(&world).await;
    world.assert_closes_without_a_trace().await;
    println!("{}", report.text(&world, &done, &observed, drift, started.elapsed()));
}
