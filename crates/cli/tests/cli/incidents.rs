//! Incident files of processes that are killed and of those that end, and the commands that read them.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, SystemTime};

use nix::sys::signal::Signal;
use poolscope::labels::Cause;
use poolscope::recording::Recording;
use poolscope_cli::demo::Scenario;
use poolscope_testing::http;

use crate::run::{Run, demo, poolscope, run_to_end, start, wait_until};

/// The scenarios unless `make incidents` runs all.
const SCENARIOS: [&str; 2] = ["leak", "slow_queries"];

/// The scenarios in which nobody holds a connection, or waits for one, for longer than some milliseconds. At the moments
/// of their listings there may be nobody.
const BRIEF: [&str; 2] = ["churn", "retry_storm"];

/// The scenarios that run at once.
const AT_ONCE: usize = 2;

/// A killed process loses at most ten seconds. The rest is for a machine that is busy.
const MAX_MISSING: Duration = Duration::from_secs(20);

fn scenarios() -> Vec<&'static str> {
    // Those whose fault delays checkouts. Dirty returns and misses of a cache are counted, and have no verdict.
    let all = Scenario::all()
        .iter()
        .map(Scenario::name)
        .filter(|name| !["cache_stampede", "dirty", "healthy", "shop"].contains(name));
    if std::env::var_os("POOLSCOPE_ALL_SCENARIOS").is_some() { all.collect() } else { SCENARIOS.to_vec() }
}

/// Returns the files of a directory that end with this.
fn files(directory: &Path, suffix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().map(|entry| entry.expect("an entry").path());
    entries.filter(|path| path.to_string_lossy().ends_with(suffix)).collect()
}

/// Returns the time of the last second and the number of seconds after the beginning of the problem.
fn end(recording: &Recording) -> Option<(SystemTime, f64)> {
    let started = humantime::parse_rfc3339(&recording.header.started).expect("a time");
    let last = recording.seconds.last()?.at_seconds;
    let incident = recording.header.incident.as_ref().expect("an incident");
    Some((started + Duration::from_secs_f64(last), last - incident.at_seconds))
}

#[test]
fn killed_process_leaves_its_evidence() {
    let scenarios = Mutex::new(scenarios().into_iter());
    let next = || scenarios.lock().expect("no panic").next();
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(scenario) = next() {
                    kill(scenario);
                }
            });
        }
    });
}

/// Kills a demo during a scenario, and reads the file that it leaves with each command.
fn kill(scenario: &str) {
    let home = tempfile::tempdir().expect("a directory");
    let directory = home.path().join("incidents");
    let record_dir = directory.to_str().expect("a path");
    let demo = start(&mut demo(&["--scenario", scenario, "--scenario-after", "1s", "--record-dir", record_dir]));
    let latest = || {
        let file = files(&directory, ".jsonl.gz.partial").pop()?;
        end(&Recording::open(file).ok()?).filter(|(_, after)| *after >= 5.0)
    };
    wait_until("seconds of the problem", || latest().is_some());
    let killed = SystemTime::now();
    demo.run.signal(Signal::SIGKILL);
    drop(demo);
    let file = files(&directory, ".jsonl.gz.partial").pop().expect("a file");
    let recording = Recording::open(&file).expect("a recording");
    let (last, _) = end(&recording).expect("seconds");
    let missing = killed.duration_since(last).unwrap_or_default();
    assert!(missing < MAX_MISSING, "{scenario}: {missing:?} are missing");
    assert!(recording.replay().any(|(_, verdict)| verdict.is_problem()), "{scenario}");
    assert_same_verdicts(scenario, &recording);

    let path = file.to_str().expect("a path");
    let ended = run_to_end(poolscope(&["diagnose", path]));
    assert_eq!(ended.code, Some(1), "{scenario}: {}{}", ended.out, ended.err);
    assert!(ended.out.contains("\n  advice: "), "{scenario}: {}", ended.out);
    assert!(ended.err.contains(": the recording is readable for "), "{}", ended.err);
    let json = run_to_end(poolscope(&["diagnose", "--json", path]));
    let json: serde_json::Value = serde_json::from_str(&json.out).expect("JSON");
    assert_eq!(json[0]["pool"], "shop");
    let ended = run_to_end(poolscope(&["top", path]));
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    if !BRIEF.contains(&scenario) {
        assert!(ended.out.contains(" HOLDER\n") || ended.out.contains(" WAITER\n"), "{scenario}: {}", ended.out);
    }

    let replay = Run::start(&mut poolscope(&["replay", path]));
    let line = replay.line_containing("Live page: http://");
    let address = line.split("http://").nth(1).and_then(|rest| rest.split('/').next()).expect("an address");
    let (status, pools) = http::get(address.parse().expect("an address"), "/api/v1/pools").expect("an answer");
    assert_eq!(status, 200, "{scenario}: {pools}");
    let pools: serde_json::Value = serde_json::from_str(&pools).expect("JSON");
    let cause = pools["pools"][0]["diagnosis"]["cause"].as_str().expect("a verdict");
    assert!(!["healthy", "not_enough_data"].contains(&cause), "{scenario}: {cause}");
}

/// The file has almost the pool's whole life, so its replay finds what the process found as soon as there is enough data.
fn assert_same_verdicts(scenario: &str, recording: &Recording) {
    let (mut live, mut compared) = (None, 0);
    for (second, replayed) in recording.replay() {
        // A verdict is recorded when it changes.
        live = second.verdict.as_ref().or(live);
        let Some(live) = live.filter(|_| replayed.cause != Cause::NotEnoughData) else { continue };
        compared += 1;
        assert_eq!(
            (replayed.cause.as_str(), replayed.operation.as_deref(), replayed.call_site.as_deref()),
            (&*live.cause, live.operation.as_deref(), live.call_site.as_deref()),
            "{scenario} at {} s",
            second.at_seconds
        );
    }
    assert!(compared > 5, "{scenario}: {compared} seconds");
}

#[test]
fn signals_begin_and_complete_files() {
    let home = tempfile::tempdir().expect("a directory");
    let record_dir = home.path().to_str().expect("a path");
    let mut demo = start(&mut demo(&["--scenario", "healthy", "--record-dir", record_dir]));
    wait_until("a file", || {
        demo.run.signal(Signal::SIGUSR1);
        std::thread::sleep(Duration::from_millis(50));
        !files(home.path(), "-requested.jsonl.gz.partial").is_empty()
    });
    wait_until("seconds", || {
        let file = files(home.path(), "-requested.jsonl.gz.partial").pop().expect("a file");
        Recording::open(file).is_ok_and(|recording| !recording.seconds.is_empty())
    });
    demo.run.signal(Signal::SIGTERM);
    assert_eq!(demo.run.wait().code(), Some(0));
    let file = files(home.path(), "-requested.jsonl.gz").pop().expect("a complete file");
    assert!(files(home.path(), ".partial").is_empty());
    let recording = Recording::open(&file).expect("a recording");
    assert_eq!(recording.truncation, None);
    assert!(!recording.listings.is_empty());

    let path = file.to_str().expect("a path");
    let ended = run_to_end(poolscope(&["diagnose", path]));
    assert_eq!(ended.err, "");
    assert!(ended.out.starts_with("shop: "), "{}", ended.out);
    let both = run_to_end(poolscope(&["diagnose", path, "http://127.0.0.1:1"]));
    assert!(both.code == Some(2) && both.err.contains("not together with exporters"), "{}", both.err);
    let sizing = run_to_end(poolscope(&["diagnose", "--sizing", path]));
    assert!(sizing.code == Some(2) && sizing.err.contains("a recording has no sizing"), "{}", sizing.err);
    fs::write(home.path().join("text"), "no recording").expect("a file");
    let ended = run_to_end(poolscope(&["top", home.path().join("text").to_str().expect("a path")]));
    assert!(ended.code == Some(1) && ended.err.contains("not a recording"), "{}", ended.err);
}
