//! The table of `poolscope diagnose --sizing`.

use std::fmt::Write as _;
use std::time::Duration;

use poolscope::text::printable;
use serde_json::Value;

/// Adds why a size is recommended or not, and how checkouts would wait with other sizes.
pub(super) fn add_sizing(page: &mut String, sizing: &Value) {
    let reason = sizing["reason"].as_str().unwrap_or("the exporter reports no sizing");
    // Writing to a string does not fail.
    let _ = writeln!(page, "  sizing: {}", printable(reason));
    let rows = sizing["table"].as_array().map(Vec::as_slice).unwrap_or_default();
    if rows.is_empty() {
        return;
    }
    let _ = writeln!(
        page,
        "    {:>11} {:>9} {:>9} {:>8} {:>9}",
        "connections", "wait p50", "wait p99", "waiting", "timeouts"
    );
    for row in rows {
        let recommended = row["size"] == sizing["recommended_size"];
        let _ = writeln!(
            page,
            "    {:>11} {:>9} {:>9} {:>8} {:>9}{}",
            row["size"].as_u64().unwrap_or_default(),
            seconds(&row["wait_p50_seconds"]),
            seconds(&row["wait_p99_seconds"]),
            share(&row["waiting_share"]),
            share(&row["timeout_share"]),
            if recommended { "  recommended" } else { "" }
        );
    }
}

/// Returns a time with three digits, as in `1.25ms`.
fn seconds(value: &Value) -> String {
    let time = Duration::try_from_secs_f64(value.as_f64().unwrap_or_default()).unwrap_or_default();
    let nanos = time.as_nanos();
    // Three digits are enough.
    let unit = 10_u128.pow(nanos.max(1).ilog10().saturating_sub(2));
    let time = Duration::from_nanos(u64::try_from(nanos / unit * unit).unwrap_or(u64::MAX));
    if time.is_zero() { "0".to_owned() } else { format!("{time:?}") }
}

fn share(value: &Value) -> String {
    let percent = value.as_f64().unwrap_or_default() * 100.0;
    if percent == 0.0 {
        "0 %".to_owned()
    } else if percent < 0.1 {
        "<0.1 %".to_owned()
    } else {
        format!("{percent:.1} %")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn table_marks_the_recommended_size() {
        let row = |size: u64, p99: f64, waiting: f64, timeouts: f64| {
            json!({"size": size, "wait_p50_seconds": 0.0, "wait_p99_seconds": p99,
                   "waiting_share": waiting, "timeout_share": timeouts})
        };
        let sizing = json!({"recommended_size": 5, "reason": "99 % wait for\nless",
            "table": [row(4, 1.23456, 0.5, 0.0002), row(5, 0.009_87, 0.0831, 0.0)]});
        let mut page = String::new();
        add_sizing(&mut page, &sizing);
        assert_eq!(
            page,
            concat!(
                "  sizing: 99 % wait for\\nless\n",
                "    connections  wait p50  wait p99  waiting  timeouts\n",
                "              4         0     1.23s   50.0 %    <0.1 %\n",
                "              5         0    9.87ms    8.3 %       0 %  recommended\n",
            )
        );
    }

    #[test]
    fn withheld_size_has_a_reason_and_no_table() {
        let mut page = String::new();
        add_sizing(&mut page, &json!({"reason": "no size is recommended until leak ends: …", "withheld_by": "leak"}));
        assert_eq!(page, "  sizing: no size is recommended until leak ends: …\n");
        page.clear();
        add_sizing(&mut page, &Value::Null);
        assert_eq!(page, "  sizing: the exporter reports no sizing\n");
    }
}
