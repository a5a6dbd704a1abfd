//! The common frame of all dashboards: variables, annotations, links and the grid of panels.

use serde_json::{Value, json};

use super::dashboard::Dashboard;
use super::panel::{PanelBuilder, datasource};
use super::query::{START_TIME, Series, metric, sum_by};
use crate::monitoring::names::POOL_LABEL;

/// Columns of Grafana's grid.
const GRID_COLUMNS: u32 = 24;

/// The number of the first row. Rows are panels as well, and are numbered after all others.
const FIRST_ROW_ID: usize = 901;

/// The schema version of Grafana 10.4, which later releases migrate.
const SCHEMA_VERSION: u32 = 39;

/// The tag by which the dashboards link to each other.
const TAG: &str = "poolscope";

/// A titled row of panels.
#[derive(Debug)]
pub(super) struct Row {
    title: &'static str,
    panels: Vec<PanelBuilder>,
    is_collapsed: bool,
}

impl Row {
    pub(super) fn open(title: &'static str, panels: Vec<PanelBuilder>) -> Self {
        Self { title, panels, is_collapsed: false }
    }

    /// Returns the row as one that most readers do not need: it opens with a click, and its queries run only then.
    pub(super) fn collapsed(mut self) -> Self {
        self.is_collapsed = true;
        self
    }
}

/// Returns a dashboard with these rows, and with `variables` after the common ones.
pub(super) fn render(dashboard: Dashboard, rows: Vec<Row>, variables: &[Value]) -> Value {
    // The metric must have a series for each value of the variables.
    let metric = match dashboard {
        Dashboard::Exporter => "poolscope_build_info",
        _ => "db_client_connection_max",
    };
    let (job, instance) = ("job=~\"$job\"", "instance=~\"$instance\"");
    let pools = format!("label_values(db_client_connection_max{{{job},{instance}}}, {POOL_LABEL})");
    let mut all_variables = vec![
        data_source_variable(),
        query_variable("job", "Job", &format!("label_values({metric}, job)")),
        query_variable("instance", "Instance", &format!("label_values({metric}{{{job}}}, instance)")),
        query_variable("pool", "Pool", &pools),
    ];
    all_variables.extend_from_slice(variables);
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
        "panels": arrange(rows),
        "refresh": "30s",
        "schemaVersion": SCHEMA_VERSION,
        "tags": [TAG, "postgresql"],
        "templating": { "list": all_variables },
        "time": { "from": "now-1h", "to": "now" },
        "timezone": "browser",
        "title": dashboard.title(),
        "uid": dashboard.uid(),
        "version": 1,
    })
}

/// Arranges panels from left to right, and rows from top to bottom. A collapsed row contains its panels.
fn arrange(rows: Vec<Row>) -> Vec<Value> {
    let mut panels = Vec::new();
    let mut top = 0;
    for (index, row) in rows.into_iter().enumerate() {
        let row_top = top;
        top += 1;
        let (mut left, mut height) = (0, 0);
        let mut of_row = Vec::new();
        for panel in row.panels {
            if left + panel.width > GRID_COLUMNS {
                top += height;
                (left, height) = (0, 0);
            }
            let width = panel.width;
            height = height.max(panel.height);
            of_row.push(panel.json(left, top));
            left += width;
        }
        top = if row.is_collapsed { row_top + 1 } else { top + height };
        let (within, below) = if row.is_collapsed { (of_row, Vec::new()) } else { (Vec::new(), of_row) };
        panels.push(json!({
            "collapsed": row.is_collapsed,
            "gridPos": { "h": 1, "w": GRID_COLUMNS, "x": 0, "y": row_top },
            "id": FIRST_ROW_ID + index,
            "panels": within,
            "title": row.title,
            "type": "row",
        }));
        panels.extend(below);
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

/// Returns a variable with the values of a query, all of them selected.
fn query_variable(name: &str, label: &str, query: &str) -> Value {
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

/// Returns a text box variable for a number.
pub(super) fn number_variable(name: &str, label: &str, description: &str, default: f64) -> Value {
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
    let alerts = Series::firing_alerts();
    let started = format!("changes({}[$__rate_interval]) > 0", Series::from(START_TIME));
    let builds = sum_by(&["job", "version"], metric!("poolscope_build_info"));
    let before = sum_by(&["job", "version"], format!("{} offset $__rate_interval", metric!("poolscope_build_info")));
    // A job that was not scraped before has no earlier version, and is not a change.
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
