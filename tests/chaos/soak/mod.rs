//! A pool under load in a process of its own: memory, descriptors, threads, tasks, the page and the time of a scrape do not
//! grow, while the server is restarted, and a hundred thousand names and call sites are used.
//!
//! - `child`: the process that is measured; it ends with the one that started it;
//! - `load`: its tasks; `hostile`: the names and texts that they use;
//! - `scraper`: what a scrape shows, and what has to hold in each;
//! - `samples`: the figures of each second, their limits and their file; `plot`: their picture.
//!
//! `POOLSCOPE_SOAK_SECONDS` sets the duration. The results are in `target/soak`.

#[path = "../../support/pages/mod.rs"]
mod pages;

mod child;
mod hostile;
mod load;
mod plot;
mod samples;
mod scraper;

use std::env;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use poolscope_call_sites::CALL_SITES;
use poolscope_testing::run::Run;
use poolscope_testing::server::{Server, Shutdown};
use tokio::task::{JoinHandle, block_in_place};
use tokio::time::MissedTickBehavior;

use self::samples::{Record, Sample};
use self::scraper::Scraper;

/// The pool's name.
const POOL: &str = "soak";

/// Begins the line with the address of the exporter.
const READY: &str = "serves ";

/// The duration in `make test`.
const DEFAULT_SECONDS: u64 = 30;

/// The time between two restarts of the server, unless the run is shorter.
const RESTART_INTERVAL: Duration = Duration::from_secs(300);

/// Each second, as a scrape interval that is shorter than any in use.
const SCRAPE_INTERVAL: Duration = Duration::from_secs(1);

/// How long the load may take to end, on a busy machine; only a failing run waits for it.
const MAX_END: Duration = Duration::from_secs(300);

/// The pool works again this long after the server does.
const MAX_RECOVERY: Duration = Duration::from_secs(10);

fn run_time() -> Duration {
    Duration::from_secs(super::variable("POOLSCOPE_SOAK_SECONDS").unwrap_or(DEFAULT_SECONDS))
}

/// Settings of glibc's allocator. By default each thread has an arena, which keeps the memory of the pages that were written
/// in it: that grows for a while, and is not what the process uses.
const ALLOCATOR: [(&str, &str); 2] = [("MALLOC_ARENA_MAX", "1"), ("MALLOC_MMAP_THRESHOLD_", "262144")];

/// Starts the process that is measured.
fn start(server: &Server) -> Run {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["soak::child::serves_under_load", "--exact", "--ignored", "--nocapture"]);
    // The end of this process ends it.
    Run::start(command.env(child::URL, server.url()).envs(ALLOCATOR).stdin(Stdio::piped()))
}

/// Restarts the server, and tells the process when it accepts connections again.
fn restart(server: &Arc<Server>, run: &Run) -> JoinHandle<()> {
    let (server, process) = (Arc::clone(server), Pid::from_raw(run.pid().try_into().unwrap()));
    tokio::spawn(async move {
        server.restart(Shutdown::Fast).await.unwrap();
        kill(process, Signal::SIGUSR1).unwrap();
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[allow(clippy::print_stdout, reason = "the result of a run")]
async fn load_lets_nothing_grow() {
    let duration = run_time();
    let server = Arc::new(Server::builder().setting("log_min_messages", "fatal").start().await.unwrap());
    let (client, connection) =
        poolscope::tokio_postgres::connect(&server.url(), poolscope::tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute("CREATE TABLE soak (n int)").await.unwrap();
    let mut run = start(&server);
    let address = run.line_starting_with(READY)[READY.len()..].parse().unwrap();

    let begun = Instant::now();
    let mut scraper = Scraper::new(address);
    let mut record = Record::default();
    let mut next_restart = RESTART_INTERVAL.min(duration / 2);
    let mut restarting = None;
    let mut ticks = tokio::time::interval(SCRAPE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut is_ending = false;
    // The last names and call sites may be used after the time is over.
    loop {
        ticks.tick().await;
        let seen = block_in_place(|| scraper.scrape());
        record.add(Sample::of(run.pid(), begun.elapsed(), &seen));
        if seen.is_quiet {
            break;
        }
        assert!(begun.elapsed() < duration + MAX_END, "the load does not end: {seen:?}");
        // One that came last would not be over at the end.
        if begun.elapsed() > next_restart && duration > next_restart + Duration::from_secs(10) {
            next_restart += RESTART_INTERVAL;
            record.restarted(begun.elapsed());
            restarting = Some(restart(&server, &run));
        }
        if begun.elapsed() > duration && seen.recoveries >= record.restarts() && !is_ending {
            is_ending = true;
            run.signal(Signal::SIGTERM);
        }
    }
    if let Some(restarting) = restarting {
        restarting.await.unwrap();
    }
    let (last, pages) = block_in_place(|| scraper.finish());
    run.signal(Signal::SIGTERM);
    let status = run.wait();
    assert!(status.success(), "{}{}", run.remaining_output(), run.stderr());

    println!("{}; {pages} pages checked\n{last:?}", record.summary());
    assert_eq!((last.handed_out, last.used), (last.ok, 0), "handed out");
    assert_eq!(last.returned, last.ok, "handed out and returned");
    assert!(last.walked >= CALL_SITES as u64, "{} names and call sites", last.walked);
    assert_eq!(last.wires_lost, 0, "connections whose protocol was not understood");
    record.assert_flat(duration);
}
