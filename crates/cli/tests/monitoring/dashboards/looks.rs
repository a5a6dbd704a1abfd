//! How the dashboards look, and where they lead.

use std::collections::{BTreeMap, BTreeSet};

use poolscope::labels::{Activity, CloseReason, Direction, Dirt, GiveUp, Outcome, Phase};
use poolscope::telemetry::BackendState;
use poolscope_cli::monitoring::dashboards::{Dashboard, Panel, panel_id};
use poolscope_cli::monitoring::rules::alerts::alerts;
use poolscope_cli::monitoring::rules::{Links, annotations, panel};
use poolscope_cli::monitoring::{Threshold, Thresholds};
use serde_json::{Value, json};

use super::{committed, each_panel, panels, targets, text};

/// What can be drawn with Grafana's own libraries, and so can be looked at.
const TYPES: [&str; 4] = ["bargauge", "stat", "table", "timeseries"];

#[test]
fn every_panel_says_what_it_means_what_bad_looks_like_and_what_to_do() {
    each_panel(|panel, at| {
        assert!(TYPES.contains(&panel["type"].as_str().unwrap()), "{at}");
        assert!(panel["title"].as_str().is_some_and(|title| !title.is_empty()), "{at}");
        let description = panel["description"].as_str().unwrap();
        let parts: Vec<_> = description.split("\n\n").collect();
        assert_eq!(parts.len(), 3, "{at}");
        assert!(parts[1].starts_with("**Bad:** ") && parts[2].starts_with("**Do:** "), "{at}");
        assert!(parts.iter().all(|part| part.len() > 12 && part.ends_with(['.', ')'])), "{at}: {description}");
        assert!(!description.contains("  "), "{at}: {description}");
        assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{at}");
    });
}

#[test]
fn every_panel_and_every_query_goes_to_the_chosen_data_source() {
    each_panel(|panel, at| {
        let chosen = json!({ "type": "prometheus", "uid": "${datasource}" });
        assert_eq!(panel["datasource"], chosen, "{at}");
        for target in panel["targets"].as_array().unwrap() {
            assert_eq!(target["datasource"], chosen, "{at}");
        }
    });
    for dashboard in Dashboard::ALL {
        for mark in committed(dashboard)["annotations"]["list"].as_array().unwrap() {
            assert_eq!(mark["datasource"]["uid"], "${datasource}", "{}", mark["name"]);
        }
    }
}

#[test]
fn the_frame_is_as_grafana_and_reviewers_want_it() {
    let mut uids = BTreeSet::new();
    for dashboard in Dashboard::ALL {
        let (text, json) = (text(dashboard), committed(dashboard));
        // A map of serde_json's is sorted, so what is read and written again would differ if it were not.
        assert!(text == format!("{json:#}\n"), "{}: keys are not sorted", dashboard.file());
        assert!(json.get("id").is_none());
        assert_eq!((&json["graphTooltip"], &json["uid"]), (&json!(1), &json!(dashboard.uid())));
        assert!(json["schemaVersion"].as_u64().is_some_and(|version| version >= 39));
        assert!(uids.insert(dashboard.uid()));
    }
}

#[test]
fn numbers_are_unique_and_those_that_links_are_made_of() {
    for dashboard in Dashboard::ALL {
        let json = committed(dashboard);
        let all = json["panels"].as_array().unwrap();
        let numbers: BTreeSet<_> = all.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
        assert_eq!(numbers.len(), all.len(), "{}", dashboard.file());
    }
    // Links that others keep lead here.
    for (panel, number, title) in [
        (Panel::Saturated, 11, "Time exhausted"),
        (Panel::WhoHolds, 20, "Who holds connections: by operation and activity"),
        (Panel::WhoWaits, 30, "Who waits: by operation"),
        (Panel::SuspectedLeaks, 71, "Suspected leaks"),
        (Panel::ServersDown, 72, "Server down"),
        (Panel::ServerSlots, 74, "Slots: taken and left"),
        (Panel::Slots, 111, "Sum of maxima against the server's slots"),
        (Panel::Spans, 220, "Spans: what became of them"),
    ] {
        assert_eq!(panel_id(panel), number);
        let json = committed(panel.dashboard());
        let found = panels(&json).find(|it| it["id"] == number).unwrap();
        assert_eq!(found["title"], title);
    }
}

#[test]
fn panels_lie_beside_each_other_and_fill_their_rows() {
    for dashboard in Dashboard::ALL {
        let json = committed(dashboard);
        let mut taken = BTreeMap::new();
        for panel in json["panels"].as_array().unwrap() {
            let [x, y, w, h] = ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().unwrap());
            assert!(x + w <= 24 && h > 0, "{}", panel["title"]);
            for cell in (y..y + h).flat_map(|y| (x..x + w).map(move |x| (x, y))) {
                let other = taken.insert(cell, &panel["title"]);
                assert!(other.is_none(), "{}: {} lies on {other:?}", dashboard.file(), panel["title"]);
            }
        }
        let height = taken.keys().map(|(_, y)| y + 1).max().unwrap();
        assert_eq!(taken.len() as u64, height * 24, "{} has holes", dashboard.file());
    }
}

/// Where numbers change their colour, and lines are drawn: of each panel, in order.
fn expected(thresholds: &Thresholds) -> Vec<(Panel, Vec<f64>)> {
    let of = |panel, thresholds: &[&Threshold]| (panel, thresholds.iter().map(|it| it.value).collect());
    let t = thresholds;
    let exhausted = [&t.saturated_share, &t.exhausted_share];
    let (wait, timeout) = (t.wait_objective.allowance(), t.timeout_objective.allowance());
    // What may be taken, of a server of which so much is to be left.
    let taken = t.slots_left_share.allowance();
    assert_eq!((wait.value, timeout.value, taken.value), (0.001, 0.001, 0.9));
    vec![
        (Panel::Alerts, vec![1.0]),
        (Panel::FleetAlerts, vec![1.0]),
        (Panel::FleetUp, vec![1.0]),
        (Panel::ServersDown, vec![1.0]),
        (Panel::FleetServersDown, vec![1.0]),
        of(Panel::SlotsTaken, &[&taken]),
        of(Panel::FleetSlotsTaken, &[&taken]),
        of(Panel::Exhausted, &exhausted),
        of(Panel::Saturated, &exhausted),
        of(Panel::MostSaturated, &exhausted),
        of(Panel::Waiting, &[&t.waiters]),
        of(Panel::WhoWaits, &[&t.waiters]),
        of(Panel::SlowestWaits, &[&t.wait_p99_seconds]),
        of(Panel::WaitTime, &[&t.wait_p99_seconds]),
        of(Panel::FleetWaitTime, &[&t.wait_p99_seconds]),
        of(Panel::Failing, &[&timeout]),
        of(Panel::FleetFailing, &[&timeout]),
        of(Panel::Objective, &[&wait]),
        of(Panel::Leaks, &[&t.suspected_leaks]),
        of(Panel::SuspectedLeaks, &[&t.suspected_leaks]),
        of(Panel::QueryTime, &[&t.slow_query_seconds]),
        of(Panel::ConnectionErrors, &[&t.connect_failures]),
        of(Panel::ChurnShare, &[&t.churn_share]),
        of(Panel::FleetRetries, &[&t.retry_share]),
        of(Panel::LostSpans, &[&t.span_loss_share]),
    ]
}

#[test]
fn lines_and_colours_are_where_the_alerts_thresholds_are() {
    let thresholds = Thresholds::committed().unwrap();
    let mut expected: BTreeMap<u64, Vec<f64>> =
        expected(&thresholds).into_iter().map(|(panel, steps)| (panel_id(panel).into(), steps)).collect();
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
    assert!(expected.is_empty(), "no panel has them: {expected:?}");
    let fleet = committed(Dashboard::Fleet);
    let table = panels(&fleet).find(|it| it["id"] == panel_id(Panel::WorstPools)).unwrap();
    let t = &thresholds;
    for (column, wanted) in [
        ("Exhausted", vec![t.saturated_share.value, t.exhausted_share.value]),
        ("Wait, p99", vec![t.wait_p99_seconds.value]),
        ("Timed out", vec![t.timeout_objective.allowance().value]),
        ("Leaks", vec![t.suspected_leaks.value]),
    ] {
        assert_eq!(steps(property(table, column, "thresholds").unwrap(), column), wanted, "{column}");
    }
    let slots = &fleet["templating"]["list"][4];
    assert_eq!((&slots["name"], &slots["type"]), (&json!("slots"), &json!("textbox")));
    let number = t.server_connections.value - t.server_reserved.value;
    assert_eq!((&slots["query"], &slots["current"]["value"]), (&json!(number.to_string()), &json!(number.to_string())));
    let line = panels(&fleet).find(|it| it["id"] == panel_id(Panel::Slots)).unwrap();
    assert!(targets(line).contains(&(&*format!("vector($slots * {})", t.server_share), "alert")));
    let pool = committed(Dashboard::Pool);
    let slots = panels(&pool).find(|it| it["id"] == panel_id(Panel::ServerSlots)).unwrap();
    let [.., (slots, "slots of the server"), (alert, "alert")] = targets(slots)[..] else { panic!("{slots}") };
    assert_eq!(alert, format!("{slots} * {}", t.slots_left_share.allowance()));
}

/// The values from which on something has a colour. What is below all of them has none of its own.
fn steps(of: &Value, at: &str) -> Vec<f64> {
    let steps = of["steps"].as_array().unwrap();
    assert_eq!(steps[0], json!({ "color": "text", "value": null }), "{at}: what is not bad, or not known, is neutral");
    assert!(steps[1..].iter().all(|step| step["color"] == "orange" || step["color"] == "red"), "{at}");
    steps[1..].iter().map(|step| step["value"].as_f64().unwrap()).collect()
}

/// What an override of a panel says of the field of this name.
fn property<'a>(panel: &'a Value, field: &str, id: &str) -> Option<&'a Value> {
    let overrides = panel["fieldConfig"]["overrides"].as_array().unwrap().iter();
    let properties =
        overrides.filter(|it| it["matcher"]["options"] == field).flat_map(|it| it["properties"].as_array().unwrap());
    properties.filter(|it| it["id"] == id).map(|it| &it["value"]).next_back()
}

#[test]
fn nothing_is_green_and_what_is_not_known_is_said_to_be() {
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
fn limits_are_drawn_as_dashed_lines_beside_what_they_limit() {
    let mut limits = 0;
    each_panel(|panel, at| {
        for (query, legend) in targets(panel) {
            let limit =
                ["maximum", "kept when idle", "limit", "bound", "slots of the server", "alert"].contains(&legend);
            let dash = property(panel, legend, "custom.lineStyle").map(|style| style["fill"].clone());
            assert_eq!(dash == Some(json!("dash")), limit, "{at}: {query}");
            limits += usize::from(limit);
        }
    });
    assert!(limits >= 9, "{limits}");
    // Who holds it is asked under the line of how many there may be.
    let pool = committed(Dashboard::Pool);
    let holds = panels(&pool).find(|it| it["id"] == panel_id(Panel::WhoHolds)).unwrap();
    assert_eq!(holds["fieldConfig"]["defaults"]["custom"]["stacking"]["mode"], "normal");
    assert_eq!(property(holds, "maximum", "custom.stacking").unwrap()["mode"], "none");
    let legends: Vec<_> = targets(holds).iter().map(|(_, legend)| *legend).collect();
    assert_eq!(legends, ["{{operation}} · {{activity}}", "maximum"]);
}

#[test]
fn every_override_is_of_a_series_or_a_column_that_can_be() {
    each_panel(|panel, at| {
        let mut names: Vec<_> = targets(panel).iter().flat_map(|(_, legend)| series(legend)).collect();
        let transformations = panel["transformations"].as_array().map(Vec::as_slice).unwrap_or_default();
        let columns = transformations.iter().filter_map(|it| it["options"]["renameByName"].as_object());
        names.extend(columns.flat_map(|names| names.values().filter_map(Value::as_str).map(str::to_owned)));
        for over in panel["fieldConfig"]["overrides"].as_array().unwrap() {
            assert_eq!(over["matcher"]["id"], "byName", "{at}");
            let name = over["matcher"]["options"].as_str().unwrap();
            assert!(names.iter().any(|it| it == name), "{at}: there is no {name} among {names:?}");
        }
    });
}

/// What a legend's series are called, where its label has a closed set of values.
fn series(legend: &str) -> Vec<String> {
    let Some((before, rest)) = legend.split_once("{{") else { return vec![legend.to_owned()] };
    let (label, after) = rest.split_once("}}").unwrap();
    let words: Vec<&str> = match label {
        "activity" => Activity::ALL.iter().map(|word| word.as_str()).collect(),
        "code" => vec!["200", "499", "500", "503"],
        "db_client_connection_state" => vec!["idle", "used"],
        "destination" => vec!["otlp", "page"],
        "direction" => Direction::ALL.iter().map(|word| word.as_str()).collect(),
        "kind" => Dirt::ALL.iter().map(|word| word.as_str()).collect(),
        "outcome" => Outcome::ALL.iter().map(|word| word.as_str()).collect(),
        "phase" => Phase::ALL.iter().map(|word| word.as_str()).collect(),
        "reason" if before == "given up: " => GiveUp::ALL.iter().map(|word| word.as_str()).collect(),
        "state" => BackendState::ALL.iter().map(|word| word.as_str()).collect(),
        "reason" => CloseReason::ALL.iter().map(|word| word.as_str()).collect(),
        _ => Vec::new(),
    };
    words.into_iter().map(|word| format!("{before}{word}{after}")).collect()
}

#[test]
fn links_lead_to_panels_that_are_there_and_keep_the_time_and_the_choice() {
    let mut led = 0;
    for dashboard in Dashboard::ALL {
        let json = committed(dashboard);
        let links = json["links"].as_array().unwrap();
        assert_eq!(links.len(), 1);
        assert_eq!((&links[0]["type"], &links[0]["keepTime"]), (&json!("dashboards"), &json!(true)));
        assert_eq!(links[0]["includeVars"], true);
        assert!(json["tags"].as_array().unwrap().contains(&links[0]["tags"][0]), "each is found by the others");
    }
    each_panel(|panel, at| {
        let links = panel["fieldConfig"]["defaults"]["links"].as_array().map(Vec::as_slice).unwrap_or_default();
        for link in links {
            let url = link["url"].as_str().unwrap();
            let (path, query) = url.split_once('?').unwrap();
            let uid = path.strip_prefix("/d/").unwrap();
            let target = Dashboard::ALL.into_iter().find(|dashboard| dashboard.uid() == uid).unwrap();
            let number = query.strip_prefix("${__url_time_range}&${__all_variables}&viewPanel=").unwrap();
            let number: u32 = number.parse().unwrap();
            let there = panels(&committed(target)).any(|it| it["id"] == number);
            assert!(there, "{at}: {url}");
            led += 1;
        }
    });
    assert!(led >= 10, "{led}");
    let fleet = committed(Dashboard::Fleet);
    let table = panels(&fleet).find(|it| it["id"] == panel_id(Panel::WorstPools)).unwrap();
    let url = property(table, "Pool", "links").unwrap()[0]["url"].as_str().unwrap();
    assert!(url.starts_with("/d/poolscope-pool?${__url_time_range}&var-datasource=${datasource}&var-job="), "{url}");
    for variable in ["job", "instance", "pool"] {
        assert!(url.contains(&format!("&var-{variable}=${{__data.fields.")), "{url}");
    }
}

#[test]
fn every_alert_leads_to_a_panel_that_is_there() {
    let thresholds = Thresholds::committed().unwrap();
    let all = alerts(&thresholds);
    assert!(all.len() > 20);
    for alert in all {
        let panel = panel(alert.name).unwrap_or_else(|| panic!("{} has no panel", alert.name));
        assert!(panels(&committed(panel.dashboard())).any(|it| it["id"] == panel_id(panel)), "{panel:?}");
        let [.., (_, url)] = annotations(&alert, &Links::default());
        assert!(url.contains(&format!("/d/{}?", panel.dashboard().uid())), "{url}");
        assert!(url.ends_with(&format!("&viewPanel={}", panel_id(panel))), "{url}");
    }
}

#[test]
fn the_page_about_them_has_every_row() {
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
fn the_pools_story_is_told_in_order() {
    let rows = |dashboard| {
        let json = committed(dashboard);
        let rows = json["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] == "row");
        rows.map(|row| row["title"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(
        rows(Dashboard::Pool),
        [
            "Is it healthy?",
            "How full is it?",
            "Who holds it?",
            "Who waits?",
            "How long?",
            "What fails?",
            "What is tried again?",
            "Who leaves it dirty, who forgets it?",
            "How do connections live?",
            "The server's own view",
            "What does not use the pool yet?",
            "Which requests?",
        ]
    );
    assert_eq!(rows(Dashboard::Fleet)[..2], ["Are the pools healthy?", "Which pools are worst off?"]);
    assert_eq!(rows(Dashboard::Exporter)[..2], ["Is it healthy?", "Is it scraped?"]);
}
