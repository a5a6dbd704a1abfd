//! Which panel has data in which state.

use std::time::{Duration, SystemTime};

use poolscope_cli::monitoring::dashboards::Dashboard;

use super::played::Played;
use super::stage::Stage;
use crate::dashboards::{committed, panels, targets};

/// A query of a panel that is empty where nothing is wrong: the panel's number, the query's place in it, the scenario in which
/// there is data, and why there is none without.
type Empty = (u64, usize, &'static str, &'static str);

/// What has no data under a healthy load. Everything else has.
const EMPTY: &[Empty] = &[
    (8, 0, "undersized", NOTHING_FIRES),
    (106, 0, "undersized", NOTHING_FIRES),
    (101, 0, GONE, "all instances are up"),
    (51, 0, "undersized", "every checkout gets a connection"),
    (140, 0, "undersized", "no checkout times out"),
    (52, 0, "server_down", NO_ERROR),
    (141, 0, "server_full", NO_ERROR),
    (53, 0, "retry_storm", "no query fails"),
    (60, 0, "retry_storm", NO_RETRY),
    (61, 0, "shop", NO_RETRY),
    (61, 1, "retry_storm", NO_RETRY),
    (150, 0, "retry_storm", NO_RETRY),
    (150, 1, "retry_storm", NO_RETRY),
    (70, 0, "dirty", CLEAN),
    (151, 0, "dirty", CLEAN),
    (95, 0, "undersized", "every request succeeds"),
    (98, 1, "retry_storm", NO_RETRY),
    (99, 0, "held_idle", "no request does what it had better not"),
];

/// The state after the end of the process with the healthy load.
const GONE: &str = "gone";

const NOTHING_FIRES: &str = "no alert fires";
const NO_ERROR: &str = "no connection fails";
const NO_RETRY: &str = "nothing has been tried again, and what never happened has no series";
const CLEAN: &str = "every connection comes back clean";

/// What is wrong, a line each. `gone` is when the process with the healthy load was.
pub(super) fn wrong(stage: &Stage, played: &[Played], gone: (SystemTime, SystemTime)) -> Vec<String> {
    let has_data = |query: &str, state: &str| {
        if state == GONE {
            return has_data(stage, query, "healthy", gone);
        }
        let played = played.iter().find(|played| played.scenario.name() == state).expect(state);
        has_data(stage, query, state, (played.begun, played.ended))
    };
    let queries = queries();
    let asked = |empty: &&Empty| queries.iter().any(|query| (query.0, query.1) == (empty.0, empty.1));
    let stale = EMPTY.iter().filter(|empty| !asked(empty));
    let mut wrong: Vec<_> = stale.map(|empty| format!("there is no such query: {empty:?}")).collect();
    for (id, at, query, panel) in &queries {
        let state = EMPTY.iter().find(|empty| (empty.0, empty.1) == (*id, *at)).map(|empty| empty.2);
        if has_data(query, "healthy") == state.is_some() {
            let says = if state.is_some() { "has" } else { "has no" };
            wrong.push(format!("{panel}, {id}: query {at} {says} data under a healthy load: {query}"));
        }
        if let Some(state) = state.filter(|state| !has_data(query, state)) {
            wrong.push(format!("{panel}, {id}: query {at} has no data in the state {state}: {query}"));
        }
    }
    wrong
}

/// Every query of every panel: the panel's number, its place, the query, and the panel's title.
fn queries() -> Vec<(u64, usize, String, String)> {
    let mut queries = Vec::new();
    for dashboard in Dashboard::ALL {
        let committed = committed(dashboard);
        for panel in panels(&committed) {
            let id = panel["id"].as_u64().expect("a number");
            for (at, (query, _)) in targets(panel).into_iter().enumerate() {
                queries.push((id, at, query.to_owned(), format!("{}, {}", dashboard.file(), panel["title"])));
            }
        }
    }
    queries
}

/// Whether a query had an answer in that time, as Grafana would ask it.
fn has_data(stage: &Stage, query: &str, job: &str, (from, to): (SystemTime, SystemTime)) -> bool {
    let query = query
        .replace("$__rate_interval", "20s")
        .replace("$slots", "97")
        .replace("$job", job)
        .replace("$instance", ".+")
        .replace("$pool", ".+");
    // What was before the first scrapes is nobody's.
    let from = from + Duration::from_secs(5);
    let course = stage.course(&query, from, to);
    course.iter().any(|(_, samples)| samples.iter().any(|(_, value)| !value.is_nan()))
}
