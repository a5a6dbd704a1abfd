//! The table of the most saturated pools.

use std::fmt;

use serde_json::{Value, json};

use crate::monitoring::dashboards::dashboard::Dashboard;
use crate::monitoring::dashboards::layout::Row;
use crate::monitoring::dashboards::panel::{CRITICAL, Description, NEUTRAL, PanelBuilder, WARNING, ref_id};
use crate::monitoring::dashboards::panel_id::PanelId;
use crate::monitoring::dashboards::query::{Series, metric};
use crate::monitoring::dashboards::shared::{cause_column, with_advice};
use crate::monitoring::dashboards::unit::Unit;
use crate::monitoring::names::POOL_LABEL;
use crate::monitoring::recording::{
    BurnWindow, HELD_BY_OPERATION, SATURATED_SHARE, USED_SHARE, WAIT_P99, timeout_share,
};
use crate::monitoring::thresholds::{Threshold, Thresholds};

/// Rows of the table.
const TOP_POOLS: usize = 20;

/// The heading of the operation that holds most of a pool.
const TOP_HOLDER: &str = "Top holder";

/// The heading of the cause that the pool is diagnosed with.
const DIAGNOSIS: &str = "Diagnosis";

/// A column of the table.
#[derive(Debug)]
struct Column {
    heading: &'static str,
    expression: String,
    unit: Unit,
    /// Colors and the values they start at.
    steps: Vec<(&'static str, f64)>,
}

impl Column {
    fn new(heading: &'static str, series: &Series, unit: Unit, thresholds: &[(&'static str, &Threshold)]) -> Self {
        Self {
            heading,
            expression: by_pool(series),
            unit,
            steps: thresholds.iter().map(|(color, threshold)| (*color, threshold.value)).collect(),
        }
    }

    /// Returns the field overrides of the column.
    fn overrides(&self) -> Vec<(&'static str, Value)> {
        let mut overrides = vec![("unit", json!(self.unit.as_str()))];
        if !self.steps.is_empty() {
            let mut steps = vec![json!({ "color": NEUTRAL, "value": null })];
            steps.extend(self.steps.iter().map(|(color, value)| json!({ "color": color, "value": value })));
            overrides.push(("custom.cellOptions", json!({ "type": "color-text" })));
            overrides.push(("thresholds", json!({ "mode": "absolute", "steps": steps })));
        }
        overrides
    }
}

pub(super) fn row(thresholds: &Thresholds) -> Row {
    Row::open("Top pools", vec![causes(), table(thresholds)])
}

/// Selects the causes that are problems.
const PROBLEMS: &str = r#"cause!~"healthy|not_enough_data""#;

fn causes() -> PanelBuilder {
    let description = Description {
        shows: "The causes that pools are diagnosed with: on how many instances, and for how long on the first of them.",
        normal: "No rows. A cause on all instances of a job at once points to what they share: the server, a release, \
                 the load.",
        action: "Follow the advice, and open a pool below for the operation responsible.",
    };
    let by = |of: String| format!("by (job, {POOL_LABEL}, cause) ({of})");
    let diagnosed = by(metric!("poolscope_diagnosis").only(PROBLEMS).to_string());
    let seconds = by(metric!("poolscope_diagnosis_seconds").only(PROBLEMS).to_string());
    let names = json!({
        "cause": "Cause", "job": "Job", POOL_LABEL: "Pool", "advice": "Advice", "Value #A": "Instances", "Value #B": "For",
    });
    let order = json!({ "cause": 0, "Value #A": 1, "Value #B": 2, POOL_LABEL: 3, "job": 4, "advice": 5 });
    PanelBuilder::table(PanelId::FleetCauses, "Diagnosed causes", description)
        .size(24, 5)
        .instant_query(with_advice(&format!("sum {diagnosed} > 0")), "")
        .instant_query(format!("max {seconds}"), "")
        .default("noValue", "none".into())
        .transform("merge", &json!({}))
        .transform(
            "organize",
            &json!({ "excludeByName": { "Time": true }, "indexByName": order, "renameByName": names }),
        )
        .field("Cause", &cause_column())
        .field("Instances", &[("custom.width", json!(100))])
        .field("For", &[("unit", json!(Unit::Seconds.as_str())), ("decimals", json!(0)), ("custom.width", json!(90))])
        .field("Advice", &[("custom.wrapText", json!(true)), ("custom.minWidth", json!(500))])
}

fn table(thresholds: &Thresholds) -> PanelBuilder {
    let description = Description {
        shows: "The twenty worst pools: those with a diagnosed problem first, then those that were exhausted for the \
                largest share of the last five minutes, then by use. Click a pool to open its dashboard.",
        normal: "No colored cell; colors start at the alert thresholds.",
        action: "Open the pool. The top holder is the operation that holds most of its connections, and the first \
                 suspect.",
    };
    // A saturated pool ranks before any pool that is only full.
    let rank = format!("{} + {} / 1000", Series::recorded(SATURATED_SHARE), Series::recorded(USED_SHARE));
    let problem = by_pool(metric!("poolscope_diagnosis").only(PROBLEMS));
    let rank = by_pool(rank);
    // An exporter of an earlier version has no diagnosis.
    let top = format!("and on (job, instance, {POOL_LABEL}) topk({TOP_POOLS}, {rank} + 10 * {problem} or {rank})");
    let mut panel = PanelBuilder::table(PanelId::TopPools, "Top pools", description).size(24, 9);
    let mut names = json!({
        "instance": "Instance", "job": "Job", "operation": TOP_HOLDER, "cause": DIAGNOSIS, POOL_LABEL: "Pool",
    });
    let mut order = json!({ POOL_LABEL: 0, "job": 1, "instance": 2, "cause": 3, "operation": 4 });
    for (index, column) in columns(thresholds).iter().enumerate() {
        let field = format!("Value #{}", ref_id(index));
        names[&field] = json!(column.heading);
        order[&field] = json!(5 + index);
        panel =
            panel.instant_query(format!("{} {top}", column.expression), "").field(column.heading, &column.overrides());
    }
    panel
        .transform("merge", &json!({}))
        .transform(
            "organize",
            &json!({ "excludeByName": { "Time": true }, "indexByName": order, "renameByName": names }),
        )
        .option("sortBy", json!([{ "desc": true, "displayName": "Exhausted" }]))
        .field(DIAGNOSIS, &cause_column())
        .field("Pool", &[("links", json!([{ "targetBlank": false, "title": "Open the pool", "url": pool_url() }]))])
}

/// Returns the columns, starting with the duration of the diagnosis and the number of connections held by the top holder.
fn columns(thresholds: &Thresholds) -> Vec<Column> {
    let held = format!("sum by (job, instance, {POOL_LABEL}, operation) ({})", Series::recorded(HELD_BY_OPERATION));
    let top_holder = Column {
        heading: "Held by it",
        expression: format!("topk by (job, instance, {POOL_LABEL}) (1, {held})"),
        unit: Unit::Count,
        steps: Vec::new(),
    };
    let saturated = [(WARNING, &thresholds.saturated_share), (CRITICAL, &thresholds.exhausted_share)];
    let timeouts = Series::recorded(&timeout_share(BurnWindow::M5));
    let cause = Column {
        heading: "For",
        expression: format!("max by (job, instance, {POOL_LABEL}, cause) ({})", metric!("poolscope_diagnosis_seconds")),
        unit: Unit::Seconds,
        steps: Vec::new(),
    };
    vec![
        cause,
        top_holder,
        Column::new("Maximum", &metric!("db_client_connection_max"), Unit::Count, &[]),
        Column::new("Used", &Series::recorded(USED_SHARE), Unit::Share, &[]),
        Column::new("Exhausted", &Series::recorded(SATURATED_SHARE), Unit::Share, &saturated),
        Column::new("Waiting", &metric!("db_client_connection_pending_requests"), Unit::Count, &[]),
        Column::new(
            "Checkout, p99",
            &Series::recorded(WAIT_P99),
            Unit::Seconds,
            &[(WARNING, &thresholds.wait_p99_seconds)],
        ),
        Column::new("Timed out", &timeouts, Unit::Share, &[(CRITICAL, &thresholds.timeout_objective.complement())]),
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

/// Returns the link to the dashboard of the pool in the clicked row.
fn pool_url() -> String {
    let variables = [("job", "Job"), ("instance", "Instance"), ("pool", "Pool")];
    let variables =
        variables.map(|(variable, column)| format!("&var-{variable}=${{__data.fields.{column}:percentencode}}"));
    format!("/d/{}?${{__url_time_range}}&var-datasource=${{datasource}}{}", Dashboard::Pool.uid(), variables.concat())
}
