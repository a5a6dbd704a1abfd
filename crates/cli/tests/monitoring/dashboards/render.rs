//! Appearance of the dashboards: texts, layout, thresholds and colors.

use std::collections::{BTreeMap, BTreeSet};

use poolscope::labels::{
    Activity, BackendState, CacheError, CacheResult, Cause, CloseReason, Direction, Dirt, GiveUp, Outcome, Phase,
};
use poolscope_cli::monitoring::dashboards::{Dashboard, PanelId};
use poolscope_cli::monitoring::{Threshold, Thresholds};
use serde_json::{Value, json};

use super::{committed, each_panel, panels, targets, text};

/// Panel types that can be rendered with Grafana's libraries outside its server, except for the state timeline.
const PANEL_TYPES: [&str; 5] = ["bargauge", "stat", "state-timeline", "table", "timeseries"];

#[test]
fn panels_have_title_description_and_unit() {
    each_panel(|panel, at| {
        assert!(PANEL_TYPES.contains(&panel["type"].as_str().unwrap()), "{at}");
        assert!(panel["title"].as_str().is_some_and(|title| !title.is_empty()), "{at}");
        let description = panel["description"].as_str().unwrap();
        let parts: Vec<_> = description.split("\n\n").collect();
        assert_eq!(parts.len(), 3, "{at}");
        assert!(parts[1].starts_with("**Normal:** ") && parts[2].starts_with("**Action:** "), "{at}");
        assert!(parts.iter().all(|part| part.len() > 12 && part.ends_with(['.', ')'])), "{at}: {description}");
        assert!(!description.contains("  "), "{at}: {description}");
        assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{at}");
    });
}

#[test]
fn panels_use_the_data_source_variable() {
    each_panel(|panel, at| {
        let datasource = json!({ "type": "prometheus", "uid": "${datasource}" });
        assert_eq!(panel["datasource"], datasource, "{at}");
        for target in panel["targets"].as_array().unwrap() {
            assert_eq!(target["datasource"], datasource, "{at}");
        }
    });
    for dashboard in Dashboard::ALL {
        for annotation in committed(dashboard)["annotations"]["list"].as_array().unwrap() {
            assert_eq!(annotation["datasource"]["uid"], "${datasource}", "{}", annotation["name"]);
        }
    }
}

#[test]
fn files_are_sorted_and_have_fixed_uids() {
    let mut uids = BTreeSet::new();
    for dashboard in Dashboard::ALL {
        let (text, json) = (text(dashboard), committed(dashboard));
        // Maps of serde_json are sorted, so a round trip changes an unsorted file.
        assert!(text == format!("{json:#}\n"), "{}: keys are not sorted", dashboard.file());
        assert!(json.get("id").is_none());
        assert_eq!((&json["graphTooltip"], &json["uid"]), (&json!(1), &json!(dashboard.uid())));
        assert!(json["schemaVersion"].as_u64().is_some_and(|version| version >= 39));
        assert!(uids.insert(dashboard.uid()));
    }
}

#[test]
fn panel_numbers_are_unique_and_stable() {
    for dashboard in Dashboard::ALL {
        let json = committed(dashboard);
        let all = json["panels"].as_array().unwrap();
        let numbers: BTreeSet<_> = all.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
        assert_eq!(numbers.len(), all.len(), "{}", dashboard.file());
    }
    // Links outside the repository use these numbers.
    for (id, number, title) in [
        (PanelId::Saturation, 11, "Time exhausted"),
        (PanelId::Holders, 20, "Connection holders by operation and activity"),
        (PanelId::Waiters, 30, "Waiting checkouts by operation"),
        (PanelId::SuspectedLeaks, 71, "Suspected leaks"),
        (PanelId::ServersDown, 72, "Servers down"),
        (PanelId::ServerSlots, 74, "Connection slots: taken and left"),
        (PanelId::FleetSlots, 111, "Sum of maxima against server slots"),
        (PanelId::FleetUnowned, 114, "Connections that no pool owns"),
        (PanelId::Spans, 220, "Spans by outcome"),
    ] {
        assert_eq!(id.number(), number);
        let json = committed(id.dashboard());
        let panel = panels(&json).find(|panel| panel["id"] == number).unwrap();
        assert_eq!(panel["title"], title);
    }
}

#[test]
fn panels_fill_the_grid_without_overlap() {
    for dashboard in Dashboard::ALL {
        let json = committed(dashboard);
        let mut taken = BTreeMap::new();
        for panel in json["panels"].as_array().unwrap() {
            let [x, y, w, h] = ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().unwrap());
            assert!(x + w <= 24 && h > 0, "{}", panel["title"]);
            for cell in (y..y + h).flat_map(|y| (x..x + w).map(move |x| (x, y))) {
                let other = taken.insert(cell, &panel["title"]);
                assert!(other.is_none(), "{}: {} overlaps {other:?}", dashboard.file(), panel["title"]);
            }
        }
        let height = taken.keys().map(|(_, y)| y + 1).max().unwrap();
        assert_eq!(taken.len() as u64, height * 24, "{} has holes", dashboard.file());
    }
}

/// Returns the expected thresholds of each panel, in order.
fn expected(thresholds: &Thresholds) -> Vec<(PanelId, Vec<f64>)> {
    let of = |panel, thresholds: &[&Threshold]| (panel, thresholds.iter().map(|it| it.value).collect());
    let t = thresholds;
    let exhausted = [&t.saturated_share, &t.exhausted_share];
    let (wait, timeout) = (t.wait_objective.complement(), t.timeout_objective.complement());
    // The share of slots that may be taken before the alert fires.
    let taken = t.slots_left_share.complement();
    assert_eq!((wait.value, timeout.value, taken.value), (0.001, 0.001, 0.9));
    vec![
        (PanelId::Alerts, vec![1.0]),
        (PanelId::FleetAlerts, vec![1.0]),
        (PanelId::FleetInstancesDown, vec![1.0]),
        (PanelId::ServersDown, vec![1.0]),
        (PanelId::FleetServersDown, vec![1.0]),
        of(PanelId::SlotsTaken, &[&taken]),
        of(PanelId::FleetSlotsTaken, &[&taken]),
        of(PanelId::ExhaustedShare, &exhausted),
        of(PanelId::Saturation, &exhausted),
        of(PanelId::FleetSaturation, &exhausted),
        of(PanelId::Waiting, &[&t.waiters]),
        of(PanelId::Waiters, &[&t.waiters]),
        of(PanelId::WaitP99, &[&t.wait_p99_seconds]),
        of(PanelId::WaitTime, &[&t.wait_p99_seconds]),
        of(PanelId::FleetWaitTime, &[&t.wait_p99_seconds]),
        of(PanelId::FailedShare, &[&timeout]),
        of(PanelId::FleetTimeoutShare, &[&timeout]),
        of(PanelId::Objectives, &[&wait]),
        of(PanelId::Leaks, &[&t.suspected_leaks]),
        of(PanelId::SuspectedLeaks, &[&t.suspected_leaks]),
        of(PanelId::QueryTime, &[&t.slow_query_seconds]),
        of(PanelId::ConnectionErrors, &[&t.connect_failures]),
        of(PanelId::CacheHitShare, &[&t.cache_hit_share]),
        of(PanelId::ChurnShare, &[&t.churn_share]),
        of(PanelId::FleetRetries, &[&t.retry_share]),
        of(PanelId::LostSpans, &[&t.span_loss_share]),
    ]
}

#[test]
fn panel_thresholds_equal_alert_thresholds() {
    let thresholds = Thresholds::committed().unwrap();
    let mut expected: BTreeMap<u64, Vec<f64>> =
        expected(&thresholds).into_iter().map(|(panel, steps)| (panel.number().into(), steps)).collect();
    each_panel(|panel, at| {
        let steps = steps(&panel["fieldConfig"]["defaults"]["thresholds"], at);
        let wanted = expected.remove(&panel["id"].as_u64().unwrap()).unwrap_or_default();
        assert_eq!(steps, wanted, "{at}");
        let custom = &panel["fieldConfig"]["defaults"]["custom"];
        if panel["type"] == "timeseries" {
            let drawn = if steps.is_empty() { "off" } else { "dashed" };
            assert_eq!(custom["thresholdsStyle"]["mode"], drawn, "{at}");
        }
    });
    assert!(expected.is_empty(), "missing panels: {expected:?}");
    let fleet = committed(Dashboard::Fleet);
    let table = panels(&fleet).find(|it| it["id"] == PanelId::TopPools.number()).unwrap();
    let t = &thresholds;
    for (column, wanted) in [
        ("Exhausted", vec![t.saturated_share.value, t.exhausted_share.value]),
        ("Checkout, p99", vec![t.wait_p99_seconds.value]),
        ("Timed out", vec![t.timeout_objective.complement().value]),
        ("Leaks", vec![t.suspected_leaks.value]),
    ] {
        assert_eq!(steps(property(table, column, "thresholds").unwrap(), column), wanted, "{column}");
    }
    let slots = &fleet["templating"]["list"][4];
    assert_eq!((&slots["name"], &slots["type"]), (&json!("slots"), &json!("textbox")));
    let number = t.server_connections.value - t.server_reserved.value;
    assert_eq!((&slots["query"], &slots["current"]["value"]), (&json!(number.to_string()), &json!(number.to_string())));
    let line = panels(&fleet).find(|it| it["id"] == PanelId::FleetSlots.number()).unwrap();
    let [.., (slots, "server slots"), (alert, "alert threshold")] = targets(line)[..] else { panic!("{line}") };
    assert_eq!(alert, format!("{slots} * {}", t.server_share));
    let pool = committed(Dashboard::Pool);
    let slots = panels(&pool).find(|it| it["id"] == PanelId::ServerSlots.number()).unwrap();
    let [.., (slots, "server slots"), (alert, "alert threshold")] = targets(slots)[..] else { panic!("{slots}") };
    assert_eq!(alert, format!("{slots} * {}", t.slots_left_share.complement()));
}

/// Returns the values at which a color starts. Lower values must be neutral.
fn steps(thresholds: &Value, at: &str) -> Vec<f64> {
    let steps = thresholds["steps"].as_array().unwrap();
    assert_eq!(steps[0], json!({ "color": "text", "value": null }), "{at}: the base color is not neutral");
    assert!(steps[1..].iter().all(|step| step["color"] == "orange" || step["color"] == "red"), "{at}");
    steps[1..].iter().map(|step| step["value"].as_f64().unwrap()).collect()
}

/// Returns a property that an override sets for a field.
pub(super) fn property<'a>(panel: &'a Value, field: &str, id: &str) -> Option<&'a Value> {
    let overrides = panel["fieldConfig"]["overrides"].as_array().unwrap().iter();
    let properties =
        overrides.filter(|it| it["matcher"]["options"] == field).flat_map(|it| it["properties"].as_array().unwrap());
    properties.filter(|it| it["id"] == id).map(|it| &it["value"]).next_back()
}

#[test]
fn missing_data_is_neutral_and_nothing_is_green() {
    for dashboard in Dashboard::ALL {
        assert!(!text(dashboard).contains("green"), "{}", dashboard.file());
    }
    each_panel(|panel, at| {
        let defaults = &panel["fieldConfig"]["defaults"];
        assert!(defaults["noValue"] == "–" || defaults["noValue"] == "none", "{at}");
        assert!(panel["type"] == "timeseries" || defaults["color"]["mode"] == "thresholds", "{at}");
    });
}

#[test]
fn limits_are_dashed_lines() {
    let mut limits = 0;
    each_panel(|panel, at| {
        for (query, legend) in targets(panel) {
            let limit = ["maximum", "kept idle", "limit", "server slots", "alert threshold"].contains(&legend);
            let dash = property(panel, legend, "custom.lineStyle").map(|style| style["fill"].clone());
            assert_eq!(dash == Some(json!("dash")), limit, "{at}: {query}");
            limits += usize::from(limit);
        }
    });
    assert!(limits >= 9, "{limits}");
    // Holders are stacked below the maximum.
    let pool = committed(Dashboard::Pool);
    let holds = panels(&pool).find(|it| it["id"] == PanelId::Holders.number()).unwrap();
    assert_eq!(holds["fieldConfig"]["defaults"]["custom"]["stacking"]["mode"], "normal");
    assert_eq!(property(holds, "maximum", "custom.stacking").unwrap()["mode"], "none");
    let legends: Vec<_> = targets(holds).iter().map(|(_, legend)| *legend).collect();
    assert_eq!(legends, ["{{operation}} · {{activity}}", "maximum"]);
}

#[test]
fn overrides_match_series_or_columns() {
    each_panel(|panel, at| {
        let mut names: Vec<_> = targets(panel).iter().flat_map(|(_, legend)| series(legend)).collect();
        let transformations = panel["transformations"].as_array().map(Vec::as_slice).unwrap_or_default();
        let columns = transformations.iter().filter_map(|it| it["options"]["renameByName"].as_object());
        names.extend(columns.flat_map(|names| names.values().filter_map(Value::as_str).map(str::to_owned)));
        for over in panel["fieldConfig"]["overrides"].as_array().unwrap() {
            assert_eq!(over["matcher"]["id"], "byName", "{at}");
            let name = over["matcher"]["options"].as_str().unwrap();
            assert!(names.iter().any(|it| it == name), "{at}: {name} is none of {names:?}");
        }
    });
}

/// Returns the possible series names of a legend, if its label has a fixed set of values.
fn series(legend: &str) -> Vec<String> {
    let Some((before, rest)) = legend.split_once("{{") else { return vec![legend.to_owned()] };
    let (label, after) = rest.split_once("}}").unwrap();
    let words: Vec<&str> = match label {
        "cause" => Cause::ALL.iter().map(|word| word.as_str()).collect(),
        "activity" => Activity::ALL.iter().map(|word| word.as_str()).collect(),
        "code" => vec!["200", "499", "500", "503"],
        "db_client_connection_state" => vec!["idle", "used"],
        "destination" => vec!["otlp", "page"],
        "direction" => Direction::ALL.iter().map(|word| word.as_str()).collect(),
        "kind" => {
            let dirt = Dirt::ALL.iter().map(|word| word.as_str());
            dirt.chain(CacheError::ALL.iter().map(|word| word.as_str())).collect()
        }
        "outcome" => Outcome::ALL.iter().map(|word| word.as_str()).collect(),
        "phase" => Phase::ALL.iter().map(|word| word.as_str()).collect(),
        "reason" if before == "given up: " => GiveUp::ALL.iter().map(|word| word.as_str()).collect(),
        "result" => CacheResult::ALL.iter().map(|word| word.as_str()).collect(),
        "state" => BackendState::ALL.iter().map(|word| word.as_str()).collect(),
        "reason" => CloseReason::ALL.iter().map(|word| word.as_str()).collect(),
        _ => Vec::new(),
    };
    words.into_iter().map(|word| format!("{before}{word}{after}")).collect()
}

#[test]
fn reference_page_lists_every_row() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/dashboards.md")).unwrap();
    for dashboard in Dashboard::ALL {
        let (_, part) =
            page.split_once(&format!("](images/{}.png)", dashboard.file().trim_end_matches(".json"))).unwrap();
        let part = part.split("\n## ").next().unwrap();
        for row in committed(dashboard)["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] == "row") {
            assert!(part.contains(&format!("\n| {} | ", row["title"].as_str().unwrap())), "{}", row["title"]);
        }
    }
}

#[test]
fn rows_are_in_order() {
    let rows = |dashboard| {
        let json = committed(dashboard);
        let rows = json["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] == "row");
        rows.map(|row| row["title"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(
        rows(Dashboard::Pool),
        [
            "Diagnosis",
            "Health",
            "Saturation",
            "Holders",
            "Waiters",
            "Latency",
            "Failures",
            "Retries",
            "Dirty returns and leaks",
            "Connection lifecycle",
            "PostgreSQL server",
            "Unpooled connections",
            "Requests",
            "Cache and database",
            "Redis server",
        ]
    );
    assert_eq!(rows(Dashboard::Fleet)[..2], ["Health", "Top pools"]);
    assert_eq!(rows(Dashboard::Exporter)[..2], ["Health", "Scrapes"]);
}
