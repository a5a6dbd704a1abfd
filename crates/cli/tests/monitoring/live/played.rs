//! A scenario that is played before Prometheus: from a calm load through its fault to a calm load again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, SystemTime};

use poolscope_cli::demo::Scenario;
use poolscope_cli::monitoring::rules::alerts::alerts;

use super::stage::{Stage, comes, thresholds};
use crate::run::{Up, demo, up};

/// How long the load is calm before the fault: so that counters are there before they grow.
const CALM: &str = "6s";

/// How long a fault lasts: what waits for longest is a ticket, for its window of 20 s to fill and then for 40 s.
const FAULT: Duration = Duration::from_secs(80);

/// How long after a fault its alerts may take to resolve: 20 s, or 2 minutes, and time for a busy machine.
const RESOLVES: Duration = Duration::from_secs(60);
const RESOLVES_LATE: Duration = Duration::from_secs(240);

/// How long a scenario without a fault is played at least.
const AT_LEAST: Duration = Duration::from_secs(20);

/// What is tried again and succeeds then, which no fault brings: these last.
const RECOVERED: &str = "sum(rate(poolscope_retry_recovered_total{job=\"shop\"}[20s]))";

/// What remembers for longer than the others: 2 minutes at this pace.
pub(super) const LONG: [&str; 3] =
    ["PoolscopeSelfDeadlock", "PoolscopeTimeoutBudgetBurnsFast", "PoolscopeWaitBudgetBurnsFast"];

/// Tickets of an objective look back over 6 hours, which at this pace are 24 minutes: nobody waits for these. That they
/// resolve is tested by promtool.
const LONGEST: [&str; 2] = ["PoolscopeTimeoutBudgetBurns", "PoolscopeWaitBudgetBurns"];

/// What Alertmanager was told of an alert.
#[derive(Debug, Default)]
pub(super) struct Notice {
    /// How long after the fault's beginning.
    pub(super) after: Duration,
    /// What it said, at each time.
    pub(super) descriptions: BTreeSet<String>,
    /// Whether another alert has muted it.
    pub(super) muted: bool,
    /// How long after the fault's end it was resolved.
    pub(super) resolved: Option<Duration>,
}

/// How a scenario went.
#[derive(Debug)]
pub(super) struct Played {
    pub(super) scenario: &'static Scenario,
    /// When it was scraped first, and last.
    pub(super) begun: SystemTime,
    pub(super) ended: SystemTime,
    /// What Alertmanager was told, by the alert's name.
    pub(super) notices: BTreeMap<String, Notice>,
    /// What fired until it ended, as Prometheus knows it.
    pub(super) fired: BTreeSet<String>,
    /// What should have resolved, and did not.
    pub(super) unresolved: Vec<String>,
}

/// Starts a scenario, and has it scraped.
pub(super) fn start(stage: &Stage, scenario: &'static Scenario) -> Up {
    let fault = format!("{}s", FAULT.as_secs());
    let arguments = ["--scenario", scenario.name(), "--scenario-after", CALM, "--scenario-for", &fault];
    let up = up(&mut demo(&arguments));
    stage.scrape(scenario.name(), up.address);
    up
}

/// Plays a scenario until its fault is over, and what does not remember long is resolved. The demo goes on.
pub(super) fn play(stage: &Stage, scenario: &'static Scenario) -> (Played, Up) {
    let begun = SystemTime::now();
    let up = start(stage, scenario);
    let mut notices = BTreeMap::new();
    if scenario.fires().is_none() {
        // What it is played for; and that for some scrapes, since it may come with the first ones.
        let started = Instant::now();
        comes(FAULT, || stage.now(RECOVERED) > 0.0 && started.elapsed() >= AT_LEAST);
        let ended = SystemTime::now();
        return (Played { scenario, begun, ended, notices, fired: BTreeSet::new(), unresolved: Vec::new() }, up);
    }
    up.run.line_containing("the fault begins");
    let fault = Instant::now();
    // Each is noted as long as the fault lasts, also when all that must come has come.
    comes(FAULT, || {
        note(&mut notices, stage, scenario, fault);
        false
    });
    up.run.line_containing("the fault is over");
    let over = Instant::now();
    let soon = |name: &String| !LONG.contains(&&**name) && !LONGEST.contains(&&**name);
    resolve(stage, scenario, &mut notices, over, RESOLVES, soon);
    let unresolved = unresolved(&notices, soon);
    let played = Played { scenario, begun, ended: SystemTime::now(), notices, fired: BTreeSet::new(), unresolved };
    (played, up)
}

/// Waits for what remembers long as well. Only what was told in the fault is asked about.
pub(super) fn forget(stage: &Stage, played: &mut Played, over: Instant) {
    let long = |name: &String| LONG.contains(&&**name);
    resolve(stage, played.scenario, &mut played.notices, over, RESOLVES_LATE, long);
    played.unresolved.extend(unresolved(&played.notices, long));
    played.ended = SystemTime::now();
}

fn unresolved(notices: &BTreeMap<String, Notice>, which: impl Fn(&String) -> bool) -> Vec<String> {
    let left = notices.iter().filter(|(name, notice)| which(name) && notice.resolved.is_none());
    left.map(|(name, _)| name.clone()).collect()
}

fn note(notices: &mut BTreeMap<String, Notice>, stage: &Stage, scenario: &Scenario, fault: Instant) {
    for (name, said) in stage.told(scenario.name()) {
        let fresh = || Notice { after: fault.elapsed(), ..Notice::default() };
        let notice = notices.entry(name).or_insert_with(fresh);
        notice.descriptions.extend(said.descriptions);
        notice.muted |= said.muted;
    }
}

fn resolve(
    stage: &Stage,
    scenario: &Scenario,
    notices: &mut BTreeMap<String, Notice>,
    over: Instant,
    within: Duration,
    which: impl Fn(&String) -> bool,
) {
    comes(within, || {
        let told = stage.told(scenario.name());
        for (name, said) in &told {
            // It may be the last moment of the fault that brought it.
            notices.entry(name.clone()).or_default().descriptions.extend(said.descriptions.iter().cloned());
        }
        for (name, notice) in notices.iter_mut().filter(|(name, _)| which(name)) {
            notice.resolved = if told.contains_key(name) { None } else { notice.resolved.or(Some(over.elapsed())) };
        }
        unresolved(notices, &which).is_empty()
    });
}

/// Holds the lists above to what the rules are.
#[test]
fn what_remembers_longer_than_a_test_waits_is_known() {
    let thresholds = thresholds();
    let known: BTreeSet<_> = alerts(&thresholds).iter().map(|alert| alert.name).collect();
    assert!(LONG.iter().chain(&LONGEST).all(|name| known.contains(name)));
    assert_eq!((thresholds.window.to_string(), thresholds.window_rare.to_string()), ("20s".into(), "2m".into()));
    assert_eq!(thresholds.for_ticket.to_string(), "40s");
}
