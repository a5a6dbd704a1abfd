//! Runs a scenario: calm load, fault, calm load.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, SystemTime};

use poolscope_cli::demo::Scenario;
use poolscope_cli::monitoring::rules::alerts::{alerts, diagnosed};

use super::environment::{Environment, thresholds, wait_until};
use crate::run::{RunningDemo, demo, start as start_demo};

/// The calm load before the fault, so that counters exist before they grow.
const CALM_LOAD: &str = "6s";

/// The duration of a fault. The slowest alerts are tickets, with a window of 20 s and a `for` of 40 s.
const FAULT_DURATION: Duration = Duration::from_secs(80);

/// How long alerts may take to resolve after a fault: windows of 20 s or 2 minutes, and time for a busy machine.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(60);
const SLOW_RESOLVE_TIMEOUT: Duration = Duration::from_secs(240);

/// The minimum duration of a scenario without a fault.
const MIN_DURATION: Duration = Duration::from_secs(20);

/// Successful retries, which occur only in the scenario without a fault.
const RECOVERED: &str = "sum(rate(poolscope_retry_recovered_total{job=\"shop\"}[20s]))";

/// Alerts with a window of 2 minutes at this pace, or that are kept firing for as long.
const SLOW_TO_RESOLVE: [&str; 4] = [
    "PoolscopePoolExhausted",
    "PoolscopeSelfDeadlock",
    "PoolscopeTimeoutBudgetBurnsFast",
    "PoolscopeWaitBudgetBurnsFast",
];

/// Returns whether an alert fires for two minutes after its fault at this pace.
pub(super) fn is_slow_to_resolve(name: &str) -> bool {
    SLOW_TO_RESOLVE.contains(&name) || name.starts_with(diagnosed::PREFIX)
}

/// Alerts with a window of 24 minutes at this pace. The tests do not wait for these; promtool checks that they resolve.
const NOT_AWAITED: [&str; 2] = ["PoolscopeTimeoutBudgetBurns", "PoolscopeWaitBudgetBurns"];

/// The notifications of an alert.
#[derive(Debug, Default)]
pub(super) struct Notice {
    /// The time from the start of the fault.
    pub(super) after: Duration,
    /// All descriptions.
    pub(super) descriptions: BTreeSet<String>,
    /// Whether another alert inhibited it.
    pub(super) inhibited: bool,
    /// The time from the end of the fault until it resolved.
    pub(super) resolved: Option<Duration>,
}

/// The result of a scenario.
#[derive(Debug)]
pub(super) struct ScenarioRun {
    pub(super) scenario: &'static Scenario,
    /// The period in which it was scraped.
    pub(super) start: SystemTime,
    pub(super) end: SystemTime,
    /// Notifications by the alert's name.
    pub(super) notices: BTreeMap<String, Notice>,
    /// Alerts that fired, according to Prometheus.
    pub(super) fired: BTreeSet<String>,
    /// The alerts that Alertmanager notified about, in their order.
    pub(super) notified: Vec<String>,
    /// Alerts that did not resolve in time.
    pub(super) unresolved: Vec<String>,
}

/// Starts a demo, and adds it as a target.
pub(super) fn start(environment: &Environment, scenario: &'static Scenario) -> RunningDemo {
    let fault = format!("{}s", FAULT_DURATION.as_secs());
    let arguments = ["--scenario", scenario.name(), "--scenario-after", CALM_LOAD, "--scenario-for", &fault];
    let up = start_demo(&mut demo(&arguments));
    environment.scrape(scenario.name(), up.address);
    up
}

/// Runs a scenario until its fault is over and its alerts have resolved, except for the slow ones. The demo keeps running.
pub(super) fn run(environment: &Environment, scenario: &'static Scenario) -> (ScenarioRun, RunningDemo) {
    let begin = SystemTime::now();
    let up = start(environment, scenario);
    let mut notices = BTreeMap::new();
    if scenario.expected_alerts().is_none() {
        // The purpose of this scenario; for some scrapes at least, since it may occur at once.
        let started = Instant::now();
        wait_until(FAULT_DURATION, || environment.query(RECOVERED) > 0.0 && started.elapsed() >= MIN_DURATION);
        let end = SystemTime::now();
        let run = ScenarioRun {
            scenario,
            start: begin,
            end,
            notices,
            fired: BTreeSet::new(),
            notified: Vec::new(),
            unresolved: Vec::new(),
        };
        return (run, up);
    }
    up.run.line_containing("fault injected");
    let fault = Instant::now();
    // Records alerts during the whole fault, to find unexpected ones.
    wait_until(FAULT_DURATION, || {
        record(&mut notices, environment, scenario, fault);
        false
    });
    up.run.line_containing("fault removed");
    let over = Instant::now();
    let awaited = |name: &String| !is_slow_to_resolve(name) && !NOT_AWAITED.contains(&&**name);
    await_resolved(environment, scenario, &mut notices, over, RESOLVE_TIMEOUT, awaited);
    let unresolved = unresolved(&notices, awaited);
    let end = SystemTime::now();
    let notified = environment.notified(scenario.name());
    (ScenarioRun { scenario, start: begin, end, notices, fired: BTreeSet::new(), notified, unresolved }, up)
}

/// Waits until the slow alerts have resolved as well.
pub(super) fn await_slow_alerts(environment: &Environment, run: &mut ScenarioRun, over: Instant) {
    let slow = |name: &String| is_slow_to_resolve(name);
    await_resolved(environment, run.scenario, &mut run.notices, over, SLOW_RESOLVE_TIMEOUT, slow);
    run.unresolved.extend(unresolved(&run.notices, slow));
    run.end = SystemTime::now();
    run.notified = environment.notified(run.scenario.name());
}

fn unresolved(notices: &BTreeMap<String, Notice>, selected: impl Fn(&String) -> bool) -> Vec<String> {
    let unresolved = notices.iter().filter(|(name, notice)| selected(name) && notice.resolved.is_none());
    unresolved.map(|(name, _)| name.clone()).collect()
}

fn record(notices: &mut BTreeMap<String, Notice>, environment: &Environment, scenario: &Scenario, fault: Instant) {
    for (name, alert) in environment.firing(scenario.name()) {
        let new = || Notice { after: fault.elapsed(), ..Notice::default() };
        let notice = notices.entry(name).or_insert_with(new);
        notice.descriptions.extend(alert.descriptions);
        notice.inhibited |= alert.inhibited;
    }
}

fn await_resolved(
    environment: &Environment,
    scenario: &Scenario,
    notices: &mut BTreeMap<String, Notice>,
    over: Instant,
    timeout: Duration,
    selected: impl Fn(&String) -> bool,
) {
    wait_until(timeout, || {
        let firing = environment.firing(scenario.name());
        for (name, alert) in &firing {
            // An alert may start to fire just after the fault.
            notices.entry(name.clone()).or_default().descriptions.extend(alert.descriptions.iter().cloned());
        }
        for (name, notice) in notices.iter_mut().filter(|(name, _)| selected(name)) {
            notice.resolved = if firing.contains_key(name) { None } else { notice.resolved.or(Some(over.elapsed())) };
        }
        unresolved(notices, &selected).is_empty()
    });
}

#[test]
fn timeouts_match_the_windows_of_the_rules() {
    let thresholds = thresholds();
    let known: BTreeSet<_> = alerts(&thresholds).iter().map(|alert| alert.name).collect();
    assert!(SLOW_TO_RESOLVE.iter().chain(&NOT_AWAITED).all(|name| known.contains(name)));
    assert_eq!((thresholds.window.to_string(), thresholds.window_rare.to_string()), ("20s".into(), "2m".into()));
    assert_eq!((thresholds.for_ticket.to_string(), thresholds.keep_diagnosis.to_string()), ("40s".into(), "2m".into()));
}
