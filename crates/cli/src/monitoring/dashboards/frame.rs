//! What every dashboard has around its panels: variables, annotations, links, and where the panels lie.

use serde_json::{Value, json};

use super::Dashboard;
use super::drawing::{Drawing, datasource};
use super::query::{ALERTS, STARTED, Series, metric, sum_by};
use crate::monitoring::names::POOL_LABEL;

/// Columns of Grafana's grid.
const COLUMNS: u32 = 24;

/// Rows are panels too, and have numbers; they are after all others.
const FIRST_ROW_ID: usize = 901;

/// What Grafana's releases since 10.4 read as it is, and later ones bring up to date.
const SCHEMA_VERSION: u32 = 39;

/// By this each of the dashboards finds the others.
const TAG: &str = "poolscope";

/// Panels that answer one question.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) title: &'static str,
    pub(super) panels: Vec<Drawing>,
}

/// A dashboard of these rows. Further variables come after the common ones.
pub(super) fn frame(dashboard: Dashboard, rows: Vec<Row>, further: &[Value]) -> Value {
    let mut variables = vec![data_source_variable()];
    // What is asked for the choices has to have a series for each of them.
    let asked = match dashboard {
        Dashboard::Exporter => "poolscope_build_info",
        _ => "db_client_connection_max",
    };
    let chosen = "job=~\"$job\"";
    variables.push(choice("job", "Job", &format!("label_values({asked}, job)")));
    variables.push(choice("instance", "Instance", &format!("label_values({asked}{{{chosen}}}, instance)")));
    let chosen = format!("{chosen},instance=~\"$instance\"");
    let pools = format!("label_values(db_client_connection_max{{{chosen}}}, {POOL_LABEL})");
    variables.push(choice("pool", "Pool", &pools));
    variables.extend_from_slice(further);
    json!({
        "annotations": { "list": annotations() },
        "description": dashboard.description(),
        "editable": true,
        "graphTooltip": 1,
        "links": [{
            "asDropdown": false,
            "icon": "external link",
            "includeVars": true,
            "keepTime": true,
            "tags": [TAG],
            "targetBlank": false,
            "title": "",
            "tooltip": "",
            "type": "dashboards",
        }],
        "panels": lay(rows),
        "refresh": "30s",
        "schemaVersion": SCHEMA_VERSION,
        "tags": [TAG, "postgresql"],
        "templating": { "list": variables },
        "time": { "from": "now-1h", "to": "now" },
        "timezone": "browser",
        "title": dashboard.title(),
        "uid": dashboard.uid(),
        "version": 1,
    })
}

/// Panels from left to right, each row below the one before.
fn lay(rows: Vec<Row>) -> Vec<Value> {
    let mut panels = Vec::new();
    let mut top = 0;
    for (index, row) in rows.into_iter().enumerate() {
        panels.push(json!({
            "collapsed": false,
            "gridPos": { "h": 1, "w": COLUMNS, "x": 0, "y": top },
            "id": FIRST_ROW_ID + index,
            "panels": [],
            "title": row.title,
            "type": "row",
        }));
        top += 1;
        let (mut left, mut height) = (0, 0);
        for panel in row.panels {
            if left + panel.width > COLUMNS {
                top += height;
                (left, height) = (0, 0);
            }
            let width = panel.width;
            height = height.max(panel.height);
            panels.push(panel.json(left, top));
            left += width;
        }
        top += height;
    }
    panels
}

fn data_source_variable() -> Value {
    json!({
        "current": { "selected": true, "text": "default", "value": "default" },
        "hide": 0,
        "includeAll": false,
        "label": "Data source",
        "multi": false,
        "name": "datasource",
        "options": [],
        "query": "prometheus",
        "refresh": 1,
        "regex": "",
        "skipUrlSync": false,
        "type": "datasource",
    })
}

/// A variable whose choices Prometheus is asked for; by default all of them.
fn choice(name: &str, label: &str, query: &str) -> Value {
    json!({
        "allValue": ".+",
        "current": { "selected": true, "text": ["All"], "value": ["$__all"] },
        "datasource": datasource(),
        "hide": 0,
        "includeAll": true,
        "label": label,
        "multi": true,
        "name": name,
        "options": [],
        "query": { "query": query, "refId": format!("choices-of-{name}") },
        "refresh": 2,
        "regex": "",
        "skipUrlSync": false,
        "sort": 1,
        "type": "query",
    })
}

/// A variable that a person may write a number into.
pub(super) fn number(name: &str, label: &str, description: &str, default: f64) -> Value {
    let default = default.to_string();
    let option = json!({ "selected": true, "text": default, "value": default });
    json!({
        "current": option,
        "description": description,
        "hide": 0,
        "label": label,
        "name": name,
        "options": [option],
        "query": default,
        "skipUrlSync": false,
        "type": "textbox",
    })
}

fn annotations() -> Vec<Value> {
    let alerts = Series::from(ALERTS).only(r#"alertname=~"Poolscope.+",alertstate="firing""#);
    let started = format!("changes({}[$__rate_interval]) > 0", Series::from(STARTED));
    let builds = sum_by(&["job", "version"], metric!("poolscope_build_info"));
    let before = sum_by(&["job", "version"], format!("{} offset $__rate_interval", metric!("poolscope_build_info")));
    // Who has just begun to be scraped has no version before that, which is no change.
    let known = format!("sum by (job) ({} offset $__rate_interval)", metric!("poolscope_build_info"));
    vec![
        annotation("Alerts", "red", &alerts.to_string(), "{{alertname}}", "{{job}} {{instance}}", "severity"),
        annotation("Restarts", "blue", &sum_by(&["job", "instance"], started), "Restart", "{{job}} {{instance}}", ""),
        annotation(
            "Versions",
            "purple",
            &format!("{builds} unless {before} and on (job) {known}"),
            "Version {{version}}",
            "{{job}}",
            "",
        ),
    ]
}

fn annotation(name: &str, color: &str, expression: &str, title: &str, text: &str, tags: &str) -> Value {
    json!({
        "datasource": datasource(),
        "enable": true,
        "hide": false,
        "iconColor": color,
        "name": name,
        "tagKeys": tags,
        "target": { "expr": expression, "refId": "Anno" },
        "textFormat": text,
        "titleFormat": title,
        "useValueForTime": false,
    })
}
