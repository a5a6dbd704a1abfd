//! Runs cases, each in a process of its own and several at once.

use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cases::{self, Case, Fault};
use crate::child::{CASE, FAULT_BEGINS, FILE, SHORT};
use crate::clock;
use crate::evaluation::{assess, changes};
use crate::recordings;

/// Selects cases whose name contains one of these words, separated by commas.
const SELECTION: &str = "POOLSCOPE_DIAGNOSE";
/// The number of cases that run at once.
const PARALLEL: &str = "POOLSCOPE_DIAGNOSE_PARALLEL";

/// How much longer than planned a run may take.
const GRACE: Duration = Duration::from_secs(120);

/// Ends the process with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // A stopped process is killed too.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a case and writes its recording. Returns whether it did.
fn run(case: &Case, file: &Path, is_short: bool) -> bool {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["child::runs_one_case", "--exact", "--ignored", "--nocapture"]);
    if is_short {
        command.env(SHORT, "1");
    }
    if matches!(case.fault, Fault::ClockJump { .. }) && !clock::prepare(&mut command, &std::env::temp_dir(), &case.name)
    {
        return false;
    }
    command.env(CASE, &case.name).env(FILE, file).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut process = Process(command.spawn().unwrap());
    let started = Instant::now();
    let deadline = Duration::from_secs(case.before + case.lasts) * 3 + GRACE;
    let mut lines = BufReader::new(process.0.stdout.take().unwrap()).lines();
    let has_begun = lines.any(|line| line.is_ok_and(|line| line.contains(FAULT_BEGINS)));
    if !has_begun {
        return false;
    }
    // The rest of the output must not fill the pipe.
    let rest = thread::spawn(move || lines.count());
    let pid = Pid::from_raw(i32::try_from(process.0.id()).unwrap());
    let signal = |signal: Signal, ms: u64| {
        let _ = kill(pid, signal);
        thread::sleep(Duration::from_millis(ms));
    };
    if let Fault::Suspend { seconds } = case.fault {
        signal(Signal::SIGSTOP, seconds * 1000);
        signal(Signal::SIGCONT, 0);
    }
    let status = loop {
        if let Some(status) = process.0.try_wait().unwrap() {
            break status;
        }
        if started.elapsed() > deadline {
            return false;
        }
        if let Fault::Throttle { run, stop } = case.fault {
            signal(Signal::SIGSTOP, stop);
            signal(Signal::SIGCONT, run);
        } else {
            thread::sleep(Duration::from_millis(50));
        }
    };
    let _ = rest.join();
    status.success() && file.exists()
}

/// Runs cases, `parallel` at once, and writes their recordings into a directory. Returns those that failed to run.
fn run_all(cases: &[Case], parallel: usize, directory: &Path, is_short: bool) -> Vec<String> {
    let queue = Mutex::new(cases.iter().collect::<VecDeque<_>>());
    let failed = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..parallel {
            scope.spawn(|| {
                loop {
                    let Some(case) = queue.lock().unwrap().pop_front() else { return };
                    let file = directory.join(format!("{}.jsonl.gz", case.name));
                    // Once more: the machine may be busy enough for the server's start to fail.
                    if run(case, &file, is_short) || run(case, &file, is_short) {
                        report(case, &file);
                    } else {
                        failed.lock().unwrap().push(case.name.clone());
                    }
                }
            });
        }
    });
    failed.into_inner().unwrap()
}

#[allow(clippy::print_stderr, reason = "the progress of a run of many minutes")]
fn report(case: &Case, file: &Path) {
    let recorded = recordings::read(file);
    let assessment = assess(case, &recorded);
    let sign = if assessment.is_right { "right" } else { "WRONG" };
    eprintln!("{sign} {}: {}; fault at {:.0}", case.name, changes(&recorded.verdicts), recorded.conditions.fault_at);
}

/// Runs all cases, or those that are selected, records them, and prints the matrix.
#[test]
#[ignore = "takes about half an hour: make diagnose"]
#[allow(clippy::print_stdout, reason = "the matrix is what it is for")]
fn full_run() {
    let selection = std::env::var(SELECTION).unwrap_or_default();
    let words: Vec<_> = selection.split(',').filter(|word| !word.is_empty()).collect();
    let is_selected = |case: &Case| words.is_empty() || words.iter().any(|word| case.name.contains(word));
    let cases: Vec<_> = cases::all().into_iter().filter(is_selected).collect();
    let parallel = std::env::var(PARALLEL).ok().and_then(|number| number.parse().ok()).unwrap_or(6);
    let directory = recordings::directory();
    fs::create_dir_all(&directory).unwrap();
    let failed = run_all(&cases, parallel, &directory, false);
    println!("{}", crate::matrix::page(&recordings::read_all()));
    assert!(failed.is_empty(), "these cases did not run: {failed:?}");
}

/// Runs a handful of cases with less time before the fault. A busy machine may delay a verdict or stall the process.
#[test]
fn short_pass() {
    const NAMES: [&str; 6] = [
        "held_idle-small-2",
        "slow_queries-small-2",
        "self_deadlock-small-2",
        "server_down-small-2",
        "runtime_stalled-small-2",
        "healthy_short_transactions-small",
    ];
    let directory: PathBuf = Path::new(env!("CARGO_TARGET_TMPDIR")).join("diagnosis");
    fs::create_dir_all(&directory).unwrap();
    let cases: Vec<_> = cases::all().into_iter().filter(|case| NAMES.contains(&&*case.name)).collect();
    assert_eq!(cases.len(), NAMES.len());
    let failed = run_all(&cases, NAMES.len(), &directory, true);
    assert!(failed.is_empty(), "these cases did not run: {failed:?}");
    for case in &cases {
        let wrong = || {
            let recorded = recordings::read(&directory.join(format!("{}.jsonl.gz", case.name)));
            let assessment = assess(case, &recorded);
            let is_busy = assessment.first == Some("runtime_stalled");
            let is_right =
                if case.cause == "healthy" { assessment.is_right || is_busy } else { assessment.delay.is_some() };
            (!is_right).then(|| changes(&recorded.verdicts))
        };
        // On a busy machine the processes that run at once may stall each other: once more, alone.
        if wrong().is_some() {
            let failed = run_all(std::slice::from_ref(case), 1, &directory, true);
            assert!(failed.is_empty(), "these cases did not run: {failed:?}");
        }
        if let Some(verdicts) = wrong() {
            panic!("{}: {verdicts}", case.name);
        }
    }
}
