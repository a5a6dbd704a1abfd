//! Checks that panels have data in the scenario they are for.

use std::time::{Duration, SystemTime};

use poolscope_cli::monitoring::dashboards::Dashboard;

use super::environment::Environment;
use super::scenario_run::ScenarioRun;
use crate::dashboards::{committed, panels, targets};

/// A query that is empty under a healthy load: the panel's number, the index of the query, the scenario with data, and the
/// reason.
type EmptyQuery = (u64, usize, &'static str, &'static str);

/// The queries without data under a healthy load.
const EMPTY_QUERIES: &[EmptyQuery] = &[
    (8, 0, "undersized", NOTHING_FIRES),
    (106, 0, "undersized", NOTHING_FIRES),
    (101, 0, EXITED, "all instances are up"),
    (51, 0, "undersized", "every checkout gets a connection"),
    (140, 0, "undersized", "no checkout times out"),
    (52, 0, "server_down", NO_ERROR),
    (141, 0, "server_full", NO_ERROR),
    (53, 0, "retry_storm", "no query fails"),
    (54, 0, "self_deadlock", "no operation waits for its own task, and the series does not exist"),
    (60, 0, "retry_storm", NO_RETRY),
    (61, 0, "shop", NO_RETRY),
    (61, 1, "retry_storm", NO_RETRY),
    (150, 0, "retry_storm", NO_RETRY),
    (150, 1, "retry_storm", NO_RETRY),
    (70, 0, "dirty", CLEAN),
    (151, 0, "dirty", CLEAN),
    (95, 0, "undersized", "every request succeeds"),
    (98, 1, "retry_storm", NO_RETRY),
    (99, 0, "held_idle", "no request misuses the pool"),
    (109, 0, "undersized", NO_PROBLEM),
    (109, 1, "undersized", NO_PROBLEM),
];

/// The panels of caches and Redis servers, which only the scenarios with a cache have.
const CACHE_PANELS: [u64; 10] = [16, 17, 18, 19, 27, 85, 86, 87, 88, 89];

/// The state after the process with the healthy load has exited.
const EXITED: &str = "exited";

/// A scenario with a cache.
const WITH_CACHE: &str = "cache_down";

const NOTHING_FIRES: &str = "no alert fires";
const NO_PROBLEM: &str = "no problem is diagnosed";
const NO_ERROR: &str = "no connection fails";
const NO_RETRY: &str = "nothing is retried, and the series does not exist";
const CLEAN: &str = "every connection is returned clean";

/// Returns a message for each query with missing or unexpected data. `exited` is the period after the process with the healthy
/// load has exited.
pub(super) fn failures(
    environment: &Environment,
    runs: &[ScenarioRun],
    exited: (SystemTime, SystemTime),
) -> Vec<String> {
    let has_data = |query: &str, state: &str| {
        if state == EXITED {
            return has_data(environment, query, "healthy", exited);
        }
        let run = runs.iter().find(|run| run.scenario.name() == state).expect(state);
        has_data(environment, query, state, (run.start, run.end))
    };
    let queries = queries();
    let exists = |empty: &&EmptyQuery| queries.iter().any(|query| (query.0, query.1) == (empty.0, empty.1));
    let stale = EMPTY_QUERIES.iter().filter(|empty| !exists(empty));
    let mut failures: Vec<_> = stale.map(|empty| format!("unknown query: {empty:?}")).collect();
    for (id, index, query, panel) in &queries {
        let empty = EMPTY_QUERIES.iter().find(|empty| (empty.0, empty.1) == (*id, *index)).map(|empty| empty.2);
        let state = if CACHE_PANELS.contains(id) { Some(WITH_CACHE) } else { empty };
        if has_data(query, "healthy") == state.is_some() {
            let has = if state.is_some() { "has" } else { "has no" };
            failures.push(format!("{panel}, {id}: query {index} {has} data under a healthy load: {query}"));
        }
        if let Some(state) = state.filter(|state| !has_data(query, state)) {
            failures.push(format!("{panel}, {id}: query {index} has no data in the state {state}: {query}"));
        }
    }
    failures
}

/// Returns all queries: the panel's number, the query's index, the query, and the panel's title.
fn queries() -> Vec<(u64, usize, String, String)> {
    let mut queries = Vec::new();
    for dashboard in Dashboard::ALL {
        let committed = committed(dashboard);
        for panel in panels(&committed) {
            let id = panel["id"].as_u64().expect("a number");
            for (index, (query, _)) in targets(panel).into_iter().enumerate() {
                queries.push((id, index, query.to_owned(), format!("{}, {}", dashboard.file(), panel["title"])));
            }
        }
    }
    queries
}

/// Returns whether a query had a result in a period, with values for Grafana's variables.
fn has_data(environment: &Environment, query: &str, job: &str, (from, to): (SystemTime, SystemTime)) -> bool {
    let query = query
        .replace("$__rate_interval", "20s")
        .replace("$slots", "97")
        .replace("$job", job)
        .replace("$instance", ".+")
        .replace("$pool", ".+");
    // Skips the time before the first scrapes.
    let from = from + Duration::from_secs(5);
    let series = environment.query_range(&query, from, to);
    series.iter().any(|(_, samples)| samples.iter().any(|(_, value)| !value.is_nan()))
}
