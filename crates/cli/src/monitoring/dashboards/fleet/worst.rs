//! Which pools are worst off?

use std::fmt;

use serde_json::{Value, json};

use super::super::Dashboard;
use super::super::drawing::{CRITICAL, Drawing, NEUTRAL, Says, WARNING, reference};
use super::super::frame::Row;
use super::super::panels::Panel;
use super::super::query::{Series, metric};
use super::super::unit::Unit;
use crate::monitoring::names::POOL_LABEL;
use crate::monitoring::rules::recording::{
    BurnWindow, HELD_BY_OPERATION, SATURATED_SHARE, USED_SHARE, WAIT_P99, timeout_share,
};
use crate::monitoring::{Threshold, Thresholds};

/// How many pools the table has.
const WORST: usize = 20;

/// The heading over the operation that holds most of a pool.
const HELD_MOST_BY: &str = "Held most by";

/// A column: its heading, what it asks of each pool, its unit, and from where on it has a colour.
#[derive(Debug)]
struct Column {
    heading: &'static str,
    expression: String,
    unit: Unit,
    above: Vec<(&'static str, f64)>,
}

impl Column {
    fn new(heading: &'static str, of: &Series, unit: Unit, above: &[(&'static str, &Threshold)]) -> Self {
        Self {
            heading,
            expression: by_pool(of),
            unit,
            above: above.iter().map(|(color, at)| (*color, at.value)).collect(),
        }
    }

    /// How its cells look.
    fn look(&self) -> Vec<(&'static str, Value)> {
        let mut look = vec![("unit", json!(self.unit.as_str()))];
        if !self.above.is_empty() {
            let mut steps = vec![json!({ "color": NEUTRAL, "value": null })];
            steps.extend(self.above.iter().map(|(color, at)| json!({ "color": color, "value": at })));
            look.push(("custom.cellOptions", json!({ "type": "color-text" })));
            look.push(("thresholds", json!({ "mode": "absolute", "steps": steps })));
        }
        look
    }
}

pub(super) fn row(thresholds: &Thresholds) -> Row {
    Row { title: "Which pools are worst off?", panels: vec![table(thresholds)] }
}

fn table(thresholds: &Thresholds) -> Drawing {
    let says = Says {
        means: "The twenty pools that were exhausted for the largest share of the last five minutes; among equals, those \
                that are fullest. A click on a pool opens its story.",
        bad: "Coloured cells are where alerts begin.",
        cure: "Open the pool. Held most by is the operation that holds most of it, and the first suspect.",
    };
    // A pool for which somebody waits is worse than any that is only full.
    let rank = format!("{} + {} / 1000", Series::recorded(SATURATED_SHARE), Series::recorded(USED_SHARE));
    let worst = format!("and on (job, instance, {POOL_LABEL}) topk({WORST}, {})", by_pool(rank));
    let mut drawing = Drawing::table(Panel::WorstPools, "Worst pools", says).size(24, 9);
    let mut names = json!({ "instance": "Instance", "job": "Job", "operation": HELD_MOST_BY, POOL_LABEL: "Pool" });
    let mut order = json!({ POOL_LABEL: 0, "job": 1, "instance": 2, "operation": 3 });
    for (index, column) in columns(thresholds).iter().enumerate() {
        let field = format!("Value #{}", reference(index));
        names[&field] = json!(column.heading);
        order[&field] = json!(4 + index);
        drawing = drawing.asks_now(format!("{} {worst}", column.expression), "").field(column.heading, &column.look());
    }
    drawing
        .transform("merge", &json!({}))
        .transform(
            "organize",
            &json!({ "excludeByName": { "Time": true }, "indexByName": order, "renameByName": names }),
        )
        .option("sortBy", json!([{ "desc": true, "displayName": "Exhausted" }]))
        .field("Pool", &[("links", json!([{ "targetBlank": false, "title": "Open the pool", "url": pool_url() }]))])
}

/// What is asked of each pool. The first is of whom it says that the operation holds most.
fn columns(thresholds: &Thresholds) -> Vec<Column> {
    let held = format!("sum by (job, instance, {POOL_LABEL}, operation) ({})", Series::recorded(HELD_BY_OPERATION));
    let held_most = Column {
        heading: "it holds",
        expression: format!("topk by (job, instance, {POOL_LABEL}) (1, {held})"),
        unit: Unit::Count,
        above: Vec::new(),
    };
    let saturated = [(WARNING, &thresholds.saturated_share), (CRITICAL, &thresholds.exhausted_share)];
    let timeouts = Series::recorded(&timeout_share(BurnWindow::M5));
    vec![
        held_most,
        Column::new("Maximum", &metric!("db_client_connection_max"), Unit::Count, &[]),
        Column::new("Used", &Series::recorded(USED_SHARE), Unit::Share, &[]),
        Column::new("Exhausted", &Series::recorded(SATURATED_SHARE), Unit::Share, &saturated),
        Column::new("Waiting", &metric!("db_client_connection_pending_requests"), Unit::Count, &[]),
        Column::new(
            "Wait, p99",
            &Series::recorded(WAIT_P99),
            Unit::Seconds,
            &[(WARNING, &thresholds.wait_p99_seconds)],
        ),
        Column::new("Timed out", &timeouts, Unit::Share, &[(CRITICAL, &thresholds.timeout_objective.allowance())]),
        Column::new(
            "Leaks",
            &metric!("poolscope_suspected_leaks"),
            Unit::Count,
            &[(WARNING, &thresholds.suspected_leaks)],
        ),
    ]
}

fn by_pool(of: impl fmt::Display) -> String {
    format!("max by (job, instance, {POOL_LABEL}) ({of})")
}

/// The pool's dashboard, of the pool in the row that is clicked.
fn pool_url() -> String {
    let chosen = [("job", "Job"), ("instance", "Instance"), ("pool", "Pool")];
    let chosen = chosen.map(|(variable, column)| format!("&var-{variable}=${{__data.fields.{column}:percentencode}}"));
    format!("/d/{}?${{__url_time_range}}&var-datasource=${{datasource}}{}", Dashboard::Pool.uid(), chosen.concat())
}
