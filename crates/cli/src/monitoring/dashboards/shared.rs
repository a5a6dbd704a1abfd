//! Queries and panels of more than one dashboard.

use poolscope::causes::{OPERATION_PLACEHOLDER, descriptions};
use poolscope::labels::Cause;
use serde_json::{Map, Value, json};

use super::panel::{CRITICAL, Description, NEUTRAL, PanelBuilder, WARNING};
use super::panel_id::PanelId;
use super::query::{max, metric, sum, sum_by};
use crate::monitoring::names::POOL_LABEL;
use crate::monitoring::rules::alerts::Severity;
use crate::monitoring::rules::alerts::diagnosed;

/// The colors of quantiles, darker for higher ones.
pub(super) const QUANTILE_COLORS: [(&str, &str); 3] = [("p50", "light-blue"), ("p90", "blue"), ("p99", "purple")];

/// Returns the number of pools whose server does not answer, without a value if no process polls one. A server counts as
/// answering if it answers any instance.
pub(super) fn servers_down() -> String {
    sum(format!("max by (job, {POOL_LABEL}) ({} == bool 0)", metric!("poolscope_server_up")))
}

/// Returns the share of slots taken on the fullest server.
pub(super) fn slots_taken_share() -> String {
    let (left, slots) = (metric!("poolscope_server_slots_left"), metric!("poolscope_server_slots"));
    max(format!("1 - {left} / ({slots} > 0)"))
}

/// Returns the connections by state, stacked, with the maximum as a dashed line.
pub(super) fn connections_by_state(id: PanelId, description: Description) -> PanelBuilder {
    PanelBuilder::lines(id, "Connections by state", description)
        .query(
            sum_by(&["db_client_connection_state"], metric!("db_client_connection_count")),
            "{{db_client_connection_state}}",
        )
        .query(sum(metric!("poolscope_connections_creating")), "creating")
        .query(sum(metric!("poolscope_connections_closing")), "closing")
        .query(sum(metric!("db_client_connection_max")), "maximum")
        .stacked()
        .colors(&[("used", "blue"), ("idle", "#6e7079"), ("creating", "purple"), ("closing", "orange")])
        .limit("maximum", NEUTRAL)
}

/// Returns the color of a diagnosed cause: that of its alert.
pub(super) fn cause_color(cause: Cause) -> &'static str {
    match diagnosed::severity(cause) {
        Some(Severity::Critical) => CRITICAL,
        Some(Severity::Warning) => WARNING,
        None => NEUTRAL,
    }
}

/// Returns the mappings from causes to their colors.
fn cause_mappings() -> Value {
    let options: Map<_, _> = descriptions()
        .map(|description| {
            let cause = description.cause;
            let text = cause.as_str().replace('_', " ");
            (cause.as_str().to_owned(), json!({ "color": cause_color(cause), "text": text }))
        })
        .collect();
    json!([{ "type": "value", "options": options }])
}

/// Adds the label `advice` to series by cause. It is no mapping of values, because tables do not measure mapped texts, and
/// therefore cut them.
pub(super) fn with_advice(series: &str) -> String {
    let labelled = |series: String, advice: &str, cause: &str, pattern: &str| {
        format!(r#"label_replace({series}, "advice", "{advice}", "{cause}", "{pattern}")"#)
    };
    let without = labelled(series.to_owned(), "–", "", "");
    let problems = descriptions().filter(|description| !description.advice.is_empty());
    problems.fold(without, |series, description| {
        let advice = description.advice.replace(&format!("`{OPERATION_PLACEHOLDER}`"), "the operation");
        // A `$` is a reference to a group.
        let advice = advice.replace('\\', r"\\").replace('"', r#"\""#).replace('$', "$$");
        labelled(series, &advice, "cause", description.cause.as_str())
    })
}

/// Returns the properties of a column with a cause.
pub(super) fn cause_column() -> [(&'static str, Value); 3] {
    [
        ("mappings", cause_mappings()),
        ("custom.cellOptions", json!({ "type": "color-text" })),
        ("custom.width", json!(150)),
    ]
}
