//! The queries of panels and annotations.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use poolscope::telemetry::catalogue::{METRICS, POOL_LABEL};
use poolscope_cli::monitoring::dashboards::Dashboard;
use serde_json::Value;

use super::promql::{RATE_INTERVAL, Selector, is_counter, labels, parse, selectors};
use super::{committed, each_panel, strings, targets};

/// Metrics that neither dashboards nor rules query, with the reason.
const UNUSED_METRICS: &[(&str, &str)] = &[
    ("db_client_connection_idle_min", "always 0"),
    (
        "poolscope_close_timeouts_total",
        "rises only while queries cannot be cancelled; the panel of states shows those closing",
    ),
    ("poolscope_incident_errors_total", "a failure to write evidence affects nothing else, and is logged"),
    ("poolscope_incident_files_total", "the files themselves, and the log, show when"),
    ("poolscope_log_lines_lost_total", "a gap in the log of the binary, which the log reports itself"),
    ("poolscope_redis_info", "few values, which seldom change"),
    ("poolscope_redis_keyspace_hits_total", "of all clients; the hit ratio of each cache is shown"),
    ("poolscope_redis_keyspace_misses_total", "of all clients; the hit ratio of each cache is shown"),
    ("poolscope_server_seen_timestamp_seconds", "server metrics disappear within seconds after a failed poll"),
];

/// Calls `check` with each query of each panel and annotation.
fn each_query(mut check: impl FnMut(&str, &str)) {
    each_panel(|panel, at| targets(panel).iter().for_each(|(query, _)| check(query, at)));
    for dashboard in Dashboard::ALL {
        for annotation in committed(dashboard)["annotations"]["list"].as_array().unwrap() {
            let at = format!("{}, annotation {}", dashboard.file(), annotation["name"]);
            check(annotation["target"]["expr"].as_str().unwrap(), &at);
        }
    }
}

fn each_selector(mut check: impl FnMut(&Selector, &str)) {
    each_query(|query, at| {
        let parsed = parse(query).unwrap_or_else(|error| panic!("{at}: {error} in {query}"));
        selectors(&parsed).iter().for_each(|selector| check(selector, at));
    });
}

#[test]
fn queries_use_known_series_and_labels() {
    let mut queries = 0;
    each_query(|query, at| {
        let parsed = parse(query).unwrap_or_else(|error| panic!("{at}: {error} in {query}"));
        // Both panic at unknown names.
        let selectors = selectors(&parsed);
        labels(&parsed);
        assert!(!selectors.is_empty() || query.starts_with("vector("), "{at} has no selector: {query}");
        queries += 1;
    });
    assert!(queries > 100, "{queries}");
}

#[test]
fn legends_use_labels_of_the_result() {
    each_panel(|panel, at| {
        for (query, legend) in targets(panel) {
            let has = labels(&parse(query).unwrap());
            let named: BTreeSet<_> = legend.split("{{").skip(1).map(|rest| rest.split("}}").next().unwrap()).collect();
            let missing: Vec<_> = named.iter().filter(|label| !has.contains(**label)).collect();
            assert!(missing.is_empty(), "{at}: {legend} uses {missing:?}, the result has {has:?}");
            // Otherwise two lines would have the same name.
            if panel["type"] == "timeseries" && !query.contains("topk") {
                assert_eq!(named.len(), has.len(), "{at}: {legend} for series by {has:?}");
            }
        }
    });
}

#[test]
fn selectors_filter_by_all_variables() {
    each_selector(|selector, at| {
        // Alerts on a job or on all instances of a pool lack labels.
        let absent = if selector.name == "ALERTS" { "|" } else { "" };
        let mut needed = vec![format!(r#"job=~"$job{absent}""#), format!(r#"instance=~"$instance{absent}""#)];
        if selector.name == "poolscope_server_slots" && selector.matchers.len() == 1 {
            // Another job may poll the server, and the alert considers it as well.
            needed.clear();
        }
        if selector.known.has_pool {
            needed.push(format!(r#"{POOL_LABEL}=~"$pool""#));
        }
        for matcher in needed {
            assert!(selector.matchers.contains(&matcher), "{at}: {selector:?} lacks {matcher}");
        }
    });
}

#[test]
fn counters_have_rates_over_the_rate_interval() {
    each_selector(|selector, at| {
        assert!(
            selector.is_rate() == is_counter(selector) || selector.counted,
            "{at}: {} is {:?}, queried by {:?}",
            selector.name,
            selector.known.kind,
            selector.range_function
        );
        match &selector.range_function {
            Some((function, range)) if function == "last_over_time" => assert_eq!(*range, Duration::from_secs(3600)),
            Some((function, range)) => {
                assert!(["rate", "changes"].contains(&function.as_str()), "{at}: {function}");
                assert_eq!(*range, RATE_INTERVAL, "{at}: {function} of {}", selector.name);
            }
            None => {}
        }
    });
}

#[test]
fn queries_do_not_invent_missing_data() {
    each_query(|query, at| {
        // A variable is the user's value.
        let query = query.replace("or vector($slots)", "");
        assert!(!query.contains("or vector(") && !query.contains("absent("), "{at}: {query}");
    });
}

#[test]
fn histogram_panels_show_exemplars() {
    let mut panels = 0;
    each_panel(|panel, at| {
        for target in panel["targets"].as_array().unwrap() {
            let has_buckets = target["expr"].as_str().unwrap().contains("_bucket{");
            let drawn = has_buckets && panel["type"] == "timeseries";
            assert_eq!(target["exemplar"], Value::Bool(drawn), "{at}");
            panels += usize::from(drawn);
        }
    });
    assert!(panels >= 10, "{panels}");
}

#[test]
fn all_metrics_are_used_or_exempt() {
    let mut used = BTreeSet::new();
    each_selector(|selector, _| {
        used.insert(selector.name.clone());
    });
    for rules in [
        include_str!("../../../../../alerts/recording.rules.yml"),
        include_str!("../../../../../alerts/alerts.rules.yml"),
    ] {
        let words = rules.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        used.extend(words.map(str::to_owned));
    }
    for metric in METRICS {
        let series = ["", "_bucket", "_count"].map(|part| format!("{}{part}", metric.name));
        let is_used = series.iter().any(|name| used.contains(name));
        let reason = UNUSED_METRICS.iter().find(|(name, _)| *name == metric.name);
        assert!(is_used != reason.is_some(), "{}: used {is_used}, {reason:?}", metric.name);
    }
}

#[test]
fn other_targets_are_excluded() {
    // `up` and `scrape_…` exist for every target of Prometheus, and all jobs are selected by default.
    each_query(|query, at| {
        let selectors = selectors(&parse(query).unwrap());
        let external = selectors.iter().any(|it| it.name == "up" || it.name.starts_with("scrape_"));
        let filtered = selectors.iter().any(|it| it.name == "poolscope_build_info");
        assert!(!external || filtered, "{at}: {query}");
    });
}

#[test]
fn annotations_mark_alerts_restarts_and_versions() {
    for dashboard in Dashboard::ALL {
        let dashboard = committed(dashboard);
        let list = dashboard["annotations"]["list"].as_array().unwrap();
        let annotations: BTreeMap<_, _> =
            list.iter().map(|it| (it["name"].as_str().unwrap(), it["target"]["expr"].as_str().unwrap())).collect();
        assert!(list.iter().all(|annotation| annotation["enable"] == true));
        assert!(annotations["Alerts"].contains(r#"alertstate="firing""#));
        assert!(annotations["Restarts"].contains("changes(process_start_time_seconds{"));
        assert!(
            annotations["Versions"].contains("poolscope_build_info{") && annotations["Versions"].contains(" unless ")
        );
    }
}

#[test]
fn variables_are_chained_and_select_all() {
    for dashboard in Dashboard::ALL {
        let dashboard = committed(dashboard);
        let list = dashboard["templating"]["list"].as_array().unwrap();
        let names: Vec<_> = list.iter().map(|it| it["name"].as_str().unwrap()).collect();
        assert_eq!(names[..4], ["datasource", "job", "instance", "pool"]);
        assert_eq!((&list[0]["type"], &list[0]["query"]), (&"datasource".into(), &"prometheus".into()));
        for (index, variable) in list[1..4].iter().enumerate() {
            assert_eq!(variable["type"], "query");
            assert_eq!(variable["datasource"]["uid"], "${datasource}");
            assert_eq!((&variable["multi"], &variable["includeAll"]), (&true.into(), &true.into()));
            assert_eq!((&variable["allValue"], &variable["refresh"]), (&".+".into(), &2.into()));
            assert_eq!(strings(&variable["current"]["value"]), ["$__all"]);
            let query = variable["query"]["query"].as_str().unwrap();
            let (series, label) =
                query.strip_prefix("label_values(").unwrap().strip_suffix(')').unwrap().rsplit_once(", ").unwrap();
            assert_eq!(label, ["job", "instance", POOL_LABEL][index]);
            assert!(labels(&parse(series).unwrap()).contains(label), "{query}");
            for before in &names[1..=index] {
                assert!(series.contains(&format!("=~\"${before}\"")), "{query} is not chained to {before}");
            }
        }
    }
}
