//! The standalone exporter with eight servers that misbehave in different ways: memory, descriptors, response times and the
//! log do not grow. `make soak` runs it for an hour.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use poolscope_testing::http;
use poolscope_testing::process::{descriptors, memory_kb, peak_kb, threads};
use poolscope_testing::rogue::Fault;

use crate::rogue::RogueServers;
use crate::run::{Run, poolscope};

/// The variable with the duration, in seconds.
const DURATION_VARIABLE: &str = "POOLSCOPE_SOAK_SECONDS";
const SHORT: Duration = Duration::from_secs(20);

/// From this duration on, response times and the rate of log lines are compared with their limits.
const LONG: Duration = Duration::from_secs(600);

const FAULTS: [Fault; 8] = [
    Fault::Silent,
    Fault::StartImpossible,
    Fault::StartParameters,
    Fault::IdleClose,
    Fault::AnswerRows,
    Fault::AnswerSilent,
    Fault::AnswerCut,
    Fault::AnswerError,
];

/// The growth allowed after the first quarter: of memory in kB, and of descriptors.
const MAX_GROWTH: (u64, usize) = (8_000, 16);
const MAX_MEMORY: u64 = 35_000;
const MAX_SCRAPE_TIME: Duration = Duration::from_millis(10);
const MAX_LINES_PER_MINUTE: f64 = 10.0;

/// The time between two lines of progress.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(60);

/// Returns the median and the maximum of the times.
fn median_and_slowest(times: &[Duration]) -> (Duration, Duration) {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    (sorted[sorted.len() / 2], sorted[sorted.len() - 1])
}

#[test]
fn broken_servers_let_nothing_grow() {
    let seconds = std::env::var(DURATION_VARIABLE).ok().map(|seconds| seconds.parse().expect("a number of seconds"));
    let duration = seconds.map_or(SHORT, Duration::from_secs);
    let rogues = RogueServers::start(&FAULTS);
    let arguments = ["serve", "--config", &rogues.config(), "--web.listen-address", "127.0.0.1:0"];
    let mut run = Run::start(&mut poolscope(&arguments));
    let line = run.line_containing(" serves http://");
    let address = line.split("http://").nth(1).and_then(|rest| rest.split('/').next()).expect("an address");
    let address = address.parse().expect("an address");

    let begun = Instant::now();
    let (mut early, mut peak, mut most_descriptors, mut times) = (None, 0, 0, Vec::new());
    let (mut reported, mut reported_times) = (begun, 0);
    while begun.elapsed() < duration {
        let asked = Instant::now();
        let (status, _) = http::get(address, "/metrics").expect("a response");
        times.push(asked.elapsed());
        assert_eq!(status, 200);
        let memory = memory_kb(run.pid()).expect("a process");
        peak = peak.max(peak_kb(run.pid()).expect("a process"));
        let open = descriptors(run.pid());
        if begun.elapsed() < duration / 4 {
            let (least, most) = early.unwrap_or((memory, open));
            early = Some((memory.max(least), open.max(most)));
        } else {
            most_descriptors = most_descriptors.max(open);
            let (early_memory, _) = early.expect("an early sample");
            assert!(memory <= early_memory + MAX_GROWTH.0, "{memory} kB after {early_memory} kB");
        }
        if reported.elapsed() >= PROGRESS_INTERVAL {
            let (median, slowest) = median_and_slowest(&times[reported_times..]);
            println!(
                "{:5} s: {memory} kB, {open} descriptors, {} threads, /metrics {median:?} (median) to {slowest:?}",
                begun.elapsed().as_secs(),
                threads(run.pid())
            );
            (reported, reported_times) = (Instant::now(), times.len());
        }
        thread::sleep(Duration::from_millis(500));
    }
    let (_, early_descriptors) = early.expect("an early sample");
    assert!(most_descriptors <= early_descriptors + MAX_GROWTH.1, "{most_descriptors} after {early_descriptors}");
    assert!(peak < MAX_MEMORY, "{peak} kB");

    run.signal(Signal::SIGTERM);
    assert_eq!(run.wait().code(), Some(0));
    let err = run.stderr();
    let lines = err.lines().count();
    // By the minute of their time, such as 2026-12-01T12:00.
    let mut by_minute = BTreeMap::new();
    for minute in err.lines().filter_map(|line| line.get(..16)) {
        *by_minute.entry(minute).or_insert(0) += 1;
    }
    println!("log lines of each minute that has any: {:?}", by_minute.values().collect::<Vec<_>>());
    let (median, slowest) = median_and_slowest(&times);
    let per_minute = lines as f64 / duration.as_secs_f64() * 60.0;
    println!(
        "{peak} kB at most, {most_descriptors} descriptors, /metrics {median:?} (median) to {slowest:?}, {per_minute:.1} \
         log lines a minute"
    );
    if duration >= LONG {
        assert!(median < MAX_SCRAPE_TIME, "{median:?}");
        assert!(per_minute < MAX_LINES_PER_MINUTE, "{per_minute}");
    }
    // Each kind of event of each database is logged at once, and again after 1, 2, 4 … seconds.
    assert!(lines < 300, "{lines}");
}
