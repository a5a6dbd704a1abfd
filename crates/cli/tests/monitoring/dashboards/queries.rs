//! What the panels ask.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use poolscope::telemetry::catalogue::{METRICS, POOL_LABEL};
use poolscope_cli::monitoring::dashboards::Dashboard;
use serde_json::Value;

use super::promql::{Asked, RATE_INTERVAL, asked, is_counter, labels, parse};
use super::{committed, each_panel, targets, texts};

/// Metrics that neither a dashboard nor a rule asks for, and why.
const UNASKED: &[(&str, &str)] = &[
    ("db_client_connection_idle_min", "it is 0 for every pool, always"),
    (
        "poolscope_server_seen_timestamp_seconds",
        "what is older than its interval is not shown: a look fails within seconds",
    ),
];

/// Calls with each query of each panel and each annotation.
fn each_query(mut check: impl FnMut(&str, &str)) {
    each_panel(|panel, at| targets(panel).iter().for_each(|(query, _)| check(query, at)));
    for dashboard in Dashboard::ALL {
        for annotation in committed(dashboard)["annotations"]["list"].as_array().unwrap() {
            let at = format!("{}, annotation {}", dashboard.file(), annotation["name"]);
            check(annotation["target"]["expr"].as_str().unwrap(), &at);
        }
    }
}

fn each_selector(mut check: impl FnMut(&Asked, &str)) {
    each_query(|query, at| {
        let parsed = parse(query).unwrap_or_else(|error| panic!("{at}: {error} in {query}"));
        asked(&parsed).iter().for_each(|selector| check(selector, at));
    });
}

#[test]
fn every_query_is_promql_and_names_only_metrics_and_labels_that_exist() {
    let mut queries = 0;
    each_query(|query, at| {
        let parsed = parse(query).unwrap_or_else(|error| panic!("{at}: {error} in {query}"));
        // Both panic at what is not there.
        let selectors = asked(&parsed);
        labels(&parsed);
        assert!(!selectors.is_empty() || query.starts_with("vector("), "{at} asks for nothing: {query}");
        queries += 1;
    });
    assert!(queries > 100, "{queries}");
}

#[test]
fn every_label_that_a_legend_names_is_in_the_answer() {
    each_panel(|panel, at| {
        for (query, legend) in targets(panel) {
            let has = labels(&parse(query).unwrap());
            let named: BTreeSet<_> = legend.split("{{").skip(1).map(|rest| rest.split("}}").next().unwrap()).collect();
            let missing: Vec<_> = named.iter().filter(|label| !has.contains(**label)).collect();
            assert!(missing.is_empty(), "{at}: {legend} has {missing:?}, and the answer {has:?}");
            // Two series of one name could not be told apart. (A bar, a number or a cell stands for itself.)
            if panel["type"] == "timeseries" && !query.contains("topk") {
                assert_eq!(named.len(), has.len(), "{at}: {legend} for series by {has:?}");
            }
        }
    });
}

#[test]
fn every_selector_is_filtered_by_the_variables() {
    each_selector(|selector, at| {
        let mut needed = vec![r#"job=~"$job""#.to_owned(), r#"instance=~"$instance""#.to_owned()];
        if selector.known.of_a_pool {
            needed.push(format!(r#"{POOL_LABEL}=~"$pool""#));
        }
        for matcher in needed {
            assert!(selector.matchers.contains(&matcher), "{at}: {selector:?} lacks {matcher}");
        }
    });
}

#[test]
fn counters_are_asked_how_they_grow_within_the_rate_interval_and_nothing_else_is() {
    each_selector(|selector, at| {
        assert!(
            selector.grows() == is_counter(selector) || selector.counted,
            "{at}: {} is {:?}, asked by {:?}",
            selector.name,
            selector.known.kind,
            selector.over
        );
        match &selector.over {
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
fn nothing_is_made_up_where_there_is_no_data() {
    each_query(|query, at| assert!(!query.contains("or vector(") && !query.contains("absent("), "{at}: {query}"));
}

#[test]
fn histograms_are_drawn_with_their_exemplars() {
    let mut with = 0;
    each_panel(|panel, at| {
        for target in panel["targets"].as_array().unwrap() {
            let of_buckets = target["expr"].as_str().unwrap().contains("_bucket{");
            let drawn = of_buckets && panel["type"] == "timeseries";
            assert_eq!(target["exemplar"], Value::Bool(drawn), "{at}");
            with += usize::from(drawn);
        }
    });
    assert!(with >= 10, "{with}");
}

#[test]
fn every_metric_is_on_a_dashboard_or_in_a_rule_or_there_is_a_reason() {
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
        let reason = UNASKED.iter().find(|(name, _)| *name == metric.name);
        assert!(is_used != reason.is_some(), "{}: used {is_used}, {reason:?}", metric.name);
    }
}

#[test]
fn who_is_scraped_for_another_reason_is_left_out() {
    // `up` and the like are of every target that Prometheus has, and by default all jobs are chosen.
    each_query(|query, at| {
        let selectors = asked(&parse(query).unwrap());
        let foreign = selectors.iter().any(|it| it.name == "up" || it.name.starts_with("scrape_"));
        let ours = selectors.iter().any(|it| it.name == "poolscope_build_info");
        assert!(!foreign || ours, "{at}: {query}");
    });
}

#[test]
fn the_alerts_the_restarts_and_the_versions_are_marked() {
    for dashboard in Dashboard::ALL {
        let dashboard = committed(dashboard);
        let list = dashboard["annotations"]["list"].as_array().unwrap();
        let marks: BTreeMap<_, _> =
            list.iter().map(|it| (it["name"].as_str().unwrap(), it["target"]["expr"].as_str().unwrap())).collect();
        assert!(list.iter().all(|mark| mark["enable"] == true));
        assert!(marks["Alerts"].contains(r#"alertstate="firing""#));
        assert!(marks["Restarts"].contains("changes(process_start_time_seconds{"));
        assert!(marks["Versions"].contains("poolscope_build_info{") && marks["Versions"].contains(" unless "));
    }
}

#[test]
fn the_variables_are_chained_and_choose_all() {
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
            assert_eq!(texts(&variable["current"]["value"]), ["$__all"]);
            let query = variable["query"]["query"].as_str().unwrap();
            let (asked_for, label) =
                query.strip_prefix("label_values(").unwrap().strip_suffix(')').unwrap().rsplit_once(", ").unwrap();
            assert_eq!(label, ["job", "instance", POOL_LABEL][index]);
            assert!(labels(&parse(asked_for).unwrap()).contains(label), "{query}");
            for before in &names[1..=index] {
                assert!(asked_for.contains(&format!("=~\"${before}\"")), "{query} is not chained to {before}");
            }
        }
    }
}
