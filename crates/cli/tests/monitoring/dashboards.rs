//! The committed dashboards: each rule for them is a check here. That they are what is generated is held by a unit test.

mod answers;
mod looks;
mod names;
mod promql;
mod queries;
mod schema;

use poolscope_cli::monitoring::dashboards::Dashboard;
use serde_json::Value;

/// The dashboard as it is committed.
pub(crate) fn committed(dashboard: Dashboard) -> Value {
    serde_json::from_str(&text(dashboard)).unwrap()
}

fn text(dashboard: Dashboard) -> String {
    std::fs::read_to_string(dashboard.path()).unwrap()
}

/// Every panel that draws something.
pub(crate) fn panels(dashboard: &Value) -> impl Iterator<Item = &Value> {
    dashboard["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] != "row")
}

/// Calls with each panel of each dashboard, and with what a failure is to say where it is.
fn each_panel(mut check: impl FnMut(&Value, &str)) {
    for dashboard in Dashboard::ALL {
        let committed = committed(dashboard);
        for panel in panels(&committed) {
            check(panel, &format!("{}, {}", dashboard.file(), panel["title"]));
        }
    }
}

/// The texts of a JSON array.
fn texts(of: &Value) -> Vec<&str> {
    of.as_array().map(Vec::as_slice).unwrap_or_default().iter().filter_map(Value::as_str).collect()
}

/// What a panel asks, with the names of the series.
pub(crate) fn targets(panel: &Value) -> Vec<(&str, &str)> {
    let targets = panel["targets"].as_array().unwrap();
    targets.iter().map(|it| (it["expr"].as_str().unwrap(), it["legendFormat"].as_str().unwrap())).collect()
}
