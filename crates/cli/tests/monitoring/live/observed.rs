//! All scenarios, played: some side by side, and the healthy one beside them all.

use std::collections::{BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::fs;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use poolscope_cli::demo::Scenario;

use super::panels;
use super::played::{LONG, Played, forget, play, start};
use super::stage::{Stage, comes};

/// How many faults are there at once: each demo has a server of its own, and two cores carry some of them.
const AT_ONCE: usize = 4;

/// How many scrapes of the healthy load there are to be, one a second.
const HEALTHY: f64 = 300.0;

/// Those that are played first, and go on until what they fired is forgotten, for as long as that takes.
const FIRST: [&str; 2] = ["self_deadlock", "undersized"];

/// How long a machine may take for all that is played.
const PATIENCE: Duration = Duration::from_secs(900);

/// What was seen.
#[derive(Debug)]
pub(super) struct Observed {
    pub(super) played: Vec<Played>,
    /// How many scrapes of the healthy load succeeded.
    pub(super) healthy_scrapes: f64,
    /// What fired when the process with the healthy load was gone.
    pub(super) missed: BTreeSet<String>,
    /// What is wrong with the panels' data.
    pub(super) panels: Vec<String>,
}

impl Observed {
    pub(super) fn played(&self, scenario: &str) -> &Played {
        self.played.iter().find(|played| played.scenario.name() == scenario).expect(scenario)
    }
}

/// Plays everything, and ends it.
pub(super) fn observe() -> Observed {
    let stage = Stage::set();
    let begun = SystemTime::now();
    let scenario = Scenario::named("healthy").expect("a scenario");
    let healthy = start(&stage, scenario);
    let mut played = faults(&stage);
    let scrapes = "sum(sum_over_time(up{job=\"healthy\"}[15m]))";
    comes(PATIENCE, || stage.now(scrapes) >= HEALTHY);
    let ended = SystemTime::now();
    let healthy_scrapes = stage.now(scrapes);
    drop(healthy);
    let missed = ["PoolscopeMetricsAbsent", "PoolscopeTargetDown"];
    comes(Duration::from_secs(60), || missed.iter().all(|name| stage.told("healthy").contains_key(*name)));
    let missed = stage.told("healthy").into_keys().collect();
    played.push(Played {
        scenario,
        begun,
        ended,
        notices: Default::default(),
        fired: Default::default(),
        unresolved: Vec::new(),
    });
    for played in &mut played {
        played.fired = stage.fired(played.scenario.name(), played.begun, played.ended);
    }
    let panels = panels::wrong(&stage, &played, (ended, SystemTime::now()));
    let observed = Observed { played, healthy_scrapes, missed, panels };
    fs::write(REPORT, report(&observed)).expect("a report");
    observed
}

/// Plays every scenario but the healthy one.
fn faults(stage: &Stage) -> Vec<Played> {
    let mut queue: Vec<_> = Scenario::all().iter().filter(|scenario| scenario.name() != "healthy").collect();
    queue.sort_by_key(|scenario| !FIRST.contains(&scenario.name()));
    let queue = Mutex::new(VecDeque::from(queue));
    let (played, lasting) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().expect("the queue").pop_front();
                    let Some(scenario) = next else { return };
                    let (done, up) = play(stage, scenario);
                    if FIRST.contains(&scenario.name()) {
                        lasting.lock().expect("a list").push((done, up, Instant::now()));
                    } else {
                        played.lock().expect("a list").push(done);
                    }
                }
            });
        }
    });
    let mut played = played.into_inner().expect("a list");
    for (mut done, up, over) in lasting.into_inner().expect("a list") {
        forget(stage, &mut done, over);
        drop(up);
        played.push(done);
    }
    played
}

/// What happened when, for whoever reads it.
const REPORT: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/live.txt");

fn report(observed: &Observed) -> String {
    let mut text = String::new();
    for played in &observed.played {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{}:", played.scenario.name());
        let mut notices: Vec<_> = played.notices.iter().collect();
        notices.sort_by_key(|(_, notice)| notice.after);
        for (name, notice) in notices {
            let seconds = |time: Duration| format!("{:.0} s", time.as_secs_f64());
            let resolved = notice.resolved.map_or_else(|| "not awaited".to_owned(), seconds);
            let long = if LONG.contains(&&**name) { " (remembers long)" } else { "" };
            let muted = if notice.muted { "; muted" } else { "" };
            let _ = writeln!(text, "  {name}: after {}{muted}; resolved: {resolved}{long}", seconds(notice.after));
            for description in &notice.descriptions {
                let _ = writeln!(text, "      {description}");
            }
        }
        let _ = writeln!(text, "  fired: {:?}", played.fired);
    }
    text
}
