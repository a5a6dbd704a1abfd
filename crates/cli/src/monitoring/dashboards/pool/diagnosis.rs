//! The first row: the verdict with its evidence and advice, and the causes over time.

use poolscope::causes::descriptions;
use serde_json::json;

use crate::monitoring::dashboards::layout::Row;
use crate::monitoring::dashboards::panel::{Description, PanelBuilder};
use crate::monitoring::dashboards::panel_id::PanelId;
use crate::monitoring::dashboards::query::metric;
use crate::monitoring::dashboards::shared::{cause_color, cause_column, with_advice};
use crate::monitoring::dashboards::unit::Unit;
use crate::monitoring::names::POOL_LABEL;

pub(super) fn row() -> Row {
    Row::open("Diagnosis", vec![verdict(), evidence(), causes()])
}

fn verdict() -> PanelBuilder {
    let description = Description {
        shows: "The cause of the pool's problem, the operation and the call site responsible, and what to do about it. \
                One row per pool and instance.",
        normal: "Healthy. Not enough data: the pool was sampled for less than 3 s.",
        action: "Follow the advice. `poolscope diagnose` and `/api/v1/pools` on the instance say more, such as who \
                 blocks whom; docs/diagnosis.md has the conditions of each cause.",
    };
    let labels = ["job", "instance", POOL_LABEL, "cause", "operation", "call_site"].join(", ");
    let seconds = format!("max by ({labels}) ({})", metric!("poolscope_diagnosis_seconds"));
    let names = json!({
        "cause": "Cause", "operation": "Operation", "call_site": "Call site", "advice": "Advice", "Value": "For",
        POOL_LABEL: "Pool", "instance": "Instance", "job": "Job",
    });
    let order = json!({
        "cause": 0, "Value": 1, "operation": 2, "call_site": 3, "advice": 4, POOL_LABEL: 5, "instance": 6, "job": 7,
    });
    PanelBuilder::table(PanelId::Verdict, "Verdict", description)
        .size(24, 5)
        .instant_query(with_advice(&seconds), "")
        .transform(
            "organize",
            &json!({ "excludeByName": { "Time": true }, "indexByName": order, "renameByName": names }),
        )
        .field("Cause", &cause_column())
        .field("For", &[("unit", json!(Unit::Seconds.as_str())), ("decimals", json!(0)), ("custom.width", json!(90))])
        .field("Operation", &[("custom.width", json!(170))])
        .field("Call site", &[("custom.width", json!(280))])
        .field("Advice", &[("custom.wrapText", json!(true)), ("custom.minWidth", json!(450))])
}

fn evidence() -> PanelBuilder {
    let description = Description {
        shows: "The measured values that the verdict rests on, and their usual values while the pool was healthy.",
        normal: "For a healthy pool, the checkout time and the rate of checkouts.",
        action: "Compare with the usual value. docs/diagnosis.md explains each measure.",
    };
    let of = |series: String| format!("max by (measure, unit) ({series})");
    let names = json!({ "measure": "Measure", "Value #A": "Value", "Value #B": "Usual", "unit": "Unit" });
    let order = json!({ "measure": 0, "Value #A": 1, "Value #B": 2, "unit": 3 });
    let number = [("decimals", json!(2)), ("custom.width", json!(90))];
    PanelBuilder::table(PanelId::Evidence, "Evidence", description)
        .size(8, 6)
        .instant_query(of(metric!("poolscope_diagnosis_evidence").to_string()), "")
        .instant_query(of(metric!("poolscope_diagnosis_evidence_usual").to_string()), "")
        .transform("merge", &json!({}))
        .transform(
            "organize",
            &json!({ "excludeByName": { "Time": true }, "indexByName": order, "renameByName": names }),
        )
        .field("Value", &number)
        .field("Usual", &number)
        .field("Unit", &[("custom.width", json!(100))])
}

fn causes() -> PanelBuilder {
    let description = Description {
        shows: "The causes over time: a bar where the selected pools were diagnosed with it.",
        normal: "Healthy throughout.",
        action: "Compare the beginning of a cause with the annotations of restarts and versions, and with the graphs \
                 below.",
    };
    let diagnosed = format!("max by (cause) ({}) == 1", metric!("poolscope_diagnosis"));
    let panel =
        PanelBuilder::state_timeline(PanelId::Causes, "Causes", description).size(16, 6).query(diagnosed, "{{cause}}");
    descriptions().fold(panel, |panel, description| {
        let cause = description.cause;
        panel.field(cause.as_str(), &[("color", json!({ "fixedColor": cause_color(cause), "mode": "fixed" }))])
    })
}
