//! Checks of the committed dashboards. A unit test compares them with the generator's output.

mod evaluation;
mod known_series;
mod links;
mod promql;
mod queries;
mod render;
mod schema;

use poolscope_cli::monitoring::dashboards::Dashboard;
use serde_json::Value;

/// Returns the committed dashboard.
pub(crate) fn committed(dashboard: Dashboard) -> Value {
    serde_json::from_str(&text(dashboard)).unwrap()
}

fn text(dashboard: Dashboard) -> String {
    std::fs::read_to_string(dashboard.path()).unwrap()
}

/// Returns all panels except rows.
pub(crate) fn panels(dashboard: &Value) -> impl Iterator<Item = &Value> {
    fn of(panels: &Value) -> &[Value] {
        panels.as_array().map(Vec::as_slice).unwrap_or_default()
    }
    // Collapsed rows contain their panels.
    let all = of(&dashboard["panels"]).iter().flat_map(|panel| std::iter::once(panel).chain(of(&panel["panels"])));
    all.filter(|panel| panel["type"] != "row")
}

/// Calls `check` with each panel of each dashboard and its location for failure messages.
fn each_panel(mut check: impl FnMut(&Value, &str)) {
    for dashboard in Dashboard::ALL {
        let committed = committed(dashboard);
        for panel in panels(&committed) {
            check(panel, &format!("{}, {}", dashboard.file(), panel["title"]));
        }
    }
}

/// Returns the strings of a JSON array.
fn strings(value: &Value) -> Vec<&str> {
    value.as_array().map(Vec::as_slice).unwrap_or_default().iter().filter_map(Value::as_str).collect()
}

/// Returns the queries of a panel with their legends.
pub(crate) fn targets(panel: &Value) -> Vec<(&str, &str)> {
    let targets = panel["targets"].as_array().unwrap();
    targets.iter().map(|target| (target["expr"].as_str().unwrap(), target["legendFormat"].as_str().unwrap())).collect()
}
