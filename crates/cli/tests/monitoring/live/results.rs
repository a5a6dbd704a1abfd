//! Runs all scenarios, several at once, with the healthy one throughout.

use std::collections::{BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::fs;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use poolscope_cli::demo::Scenario;

use super::environment::{Environment, wait_until};
use super::panels;
use super::scenario_run::{ScenarioRun, await_slow_alerts, is_slow_to_resolve, run, start};

/// Concurrent faults. Each demo has its own server, and two cores can run several of them.
const CONCURRENT_FAULTS: usize = 4;

/// Required scrapes of the healthy load, one per second.
const HEALTHY_SCRAPES: f64 = 300.0;

/// Scenarios that start first, and run until their slow alerts have resolved.
const SLOW_SCENARIOS: [&str; 2] = ["self_deadlock", "undersized"];

/// The timeout for all scenarios.
const TIMEOUT: Duration = Duration::from_secs(900);

/// The results of all scenarios.
#[derive(Debug)]
pub(super) struct Results {
    pub(super) runs: Vec<ScenarioRun>,
    /// Successful scrapes of the healthy load.
    pub(super) healthy_scrapes: f64,
    /// Alerts that fired after the process with the healthy load had exited.
    pub(super) fired_after_exit: BTreeSet<String>,
    /// Panels with missing or unexpected data.
    pub(super) panel_failures: Vec<String>,
}

impl Results {
    pub(super) fn run(&self, scenario: &str) -> &ScenarioRun {
        self.runs.iter().find(|run| run.scenario.name() == scenario).expect(scenario)
    }
}

/// Runs all scenarios.
pub(super) fn run_all() -> Results {
    let environment = Environment::start();
    let begin = SystemTime::now();
    let scenario = Scenario::named("healthy").expect("a scenario");
    let healthy = start(&environment, scenario);
    let mut runs = run_faults(&environment);
    let scrapes = "sum(sum_over_time(up{job=\"healthy\"}[15m]))";
    wait_until(TIMEOUT, || environment.query(scrapes) >= HEALTHY_SCRAPES);
    let end = SystemTime::now();
    let healthy_scrapes = environment.query(scrapes);
    drop(healthy);
    let expected = ["PoolscopeMetricsAbsent", "PoolscopeTargetDown"];
    wait_until(Duration::from_secs(60), || {
        expected.iter().all(|name| environment.firing("healthy").contains_key(*name))
    });
    let fired_after_exit = environment.firing("healthy").into_keys().collect();
    runs.push(ScenarioRun {
        scenario,
        start: begin,
        end,
        notices: Default::default(),
        fired: Default::default(),
        notified: Vec::new(),
        unresolved: Vec::new(),
    });
    for run in &mut runs {
        run.fired = environment.fired(run.scenario.name(), run.start, run.end);
    }
    let panel_failures = panels::failures(&environment, &runs, (end, SystemTime::now()));
    let results = Results { runs, healthy_scrapes, fired_after_exit, panel_failures };
    fs::write(REPORT, report(&results)).expect("a report");
    results
}

/// Runs every scenario but the healthy one.
fn run_faults(environment: &Environment) -> Vec<ScenarioRun> {
    let faults = Scenario::all().iter().filter(|scenario| scenario.name() != "healthy");
    let mut queue: Vec<_> = faults.collect();
    queue.sort_by_key(|scenario| !SLOW_SCENARIOS.contains(&scenario.name()));
    let queue = Mutex::new(VecDeque::from(queue));
    let (runs, slow_runs) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..CONCURRENT_FAULTS {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().expect("the queue").pop_front();
                    let Some(scenario) = next else { return };
                    let (result, up) = run(environment, scenario);
                    if SLOW_SCENARIOS.contains(&scenario.name()) {
                        slow_runs.lock().expect("a list").push((result, up, Instant::now()));
                    } else {
                        runs.lock().expect("a list").push(result);
                    }
                }
            });
        }
    });
    let mut runs = runs.into_inner().expect("a list");
    for (mut result, up, over) in slow_runs.into_inner().expect("a list") {
        await_slow_alerts(environment, &mut result, over);
        drop(up);
        runs.push(result);
    }
    runs
}

/// The file with the timeline of all alerts.
const REPORT: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/live.txt");

fn report(results: &Results) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    for run in &results.runs {
        let _ = writeln!(text, "{}:", run.scenario.name());
        let mut notices: Vec<_> = run.notices.iter().collect();
        notices.sort_by_key(|(_, notice)| notice.after);
        for (name, notice) in notices {
            let seconds = |time: Duration| format!("{:.0} s", time.as_secs_f64());
            let resolved = notice.resolved.map_or_else(|| "not awaited".to_owned(), seconds);
            let slow = if is_slow_to_resolve(name) { " (long window)" } else { "" };
            let inhibited = if notice.inhibited { "; inhibited" } else { "" };
            let _ = writeln!(text, "  {name}: after {}{inhibited}; resolved: {resolved}{slow}", seconds(notice.after));
            for description in &notice.descriptions {
                let _ = writeln!(text, "      {description}");
            }
        }
        let _ = writeln!(text, "  fired: {:?}\n  notified: {:?}", run.fired, run.notified);
    }
    text
}
