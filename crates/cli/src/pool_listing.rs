//! The response of `/api/v1/pools`, as the commands that query exporters read and word it.
//!
//! Fields are read leniently: an exporter of another version may lack some, and have others.

use std::fmt::Write as _;

use serde_json::Value;

/// The path of the response.
pub(crate) const PATH: &str = "/api/v1/pools";

/// How many bytes of a response are read: enough for fifty pools with as many holders and waiters as are listed.
pub(crate) const MAX_BYTES: usize = 32 * 1024 * 1024;

/// Returns the pools of a response, or what is wrong with it.
pub(crate) fn pools(mut listing: Value) -> Result<Vec<Value>, String> {
    match listing.get_mut("pools").map(Value::take) {
        Some(Value::Array(pools)) => Ok(pools),
        _ => Err("the response has no pools; check the URL".to_owned()),
    }
}

/// Returns a field's text; empty if there is none.
pub(crate) fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// Returns the elements of a list.
pub(crate) fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// Returns the cause of a pool; `unknown` if the exporter does not report one.
pub(crate) fn cause(pool: &Value) -> &str {
    pool["diagnosis"]["cause"].as_str().unwrap_or("unknown")
}

/// Returns what is recommended about the pool's size, if anything.
pub(crate) fn size(pool: &Value) -> String {
    let sizing = &pool["sizing"];
    // A proxy does not see the arrivals that a size is computed from.
    if pool["kind"] == "proxy" {
        return String::new();
    }
    match (sizing["recommended_size"].as_u64(), sizing["withheld_by"].as_str()) {
        (_, Some(cause)) => format!("none is recommended until {cause} is removed"),
        (Some(size), None) => {
            format!("{size} connections suffice for the load; the maximum is {}", pool["state"]["max"])
        }
        (None, None) => String::new(),
    }
}

/// Returns the evidence of a diagnosis on one line, as in `wait_p99 2.5 seconds (usually 0.01)`.
pub(crate) fn evidence(diagnosis: &Value) -> String {
    list(diagnosis, "evidence").iter().map(evidence_entry).collect::<Vec<_>>().join(", ")
}

fn evidence_entry(entry: &Value) -> String {
    let number = |value: f64| format!("{}", (value * 1000.0).round() / 1000.0);
    let mut shown = format!("{} {}", text(entry, "name"), number(entry["value"].as_f64().unwrap_or_default()));
    match text(entry, "unit") {
        "ratio" | "count" => {}
        "per_second" => shown.push_str(" per second"),
        unit => drop(write!(shown, " {unit}")),
    }
    if let Some(usual) = entry["usual"].as_f64() {
        let _ = write!(shown, " (usually {})", number(usual));
    }
    shown
}

/// Returns the consequences of a diagnosis, separated by commas.
pub(crate) fn consequences(diagnosis: &Value) -> String {
    list(diagnosis, "consequences").iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
}
