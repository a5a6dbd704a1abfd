//! The summary at the end of the demo.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use poolscope::labels::{Activity, CloseReason, Outcome};
use poolscope::telemetry::{BOUNDS_SECONDS, Histogram, OperationTotals, PoolSnapshot};

use super::status::{causes_text, counted, error_causes, errors};

/// Returns the line on a proxied pool, of which checkouts are not seen: its state at the end, and its diagnosis.
pub(in crate::demo) fn proxied_summary(pool: &PoolSnapshot) -> String {
    let cause = pool.diagnosis.as_ref().map_or("not_enough_data", |verdict| verdict.cause.as_str());
    let operation = pool.diagnosis.as_ref().and_then(|verdict| verdict.operation.as_deref());
    format!(
        "pool {}: {} of {} connections in use, {}, diagnosis: {cause}{}\n\n",
        pool.name,
        pool.connections.used,
        pool.limits.max(),
        counted(pool.suspected_leaks as u64, "suspected leak"),
        operation.map(|operation| format!(" by {operation}")).unwrap_or_default(),
    )
}

/// Returns a table of the operations, and the figures of the pool.
pub(in crate::demo) fn summary(pool: &PoolSnapshot, elapsed: Duration) -> String {
    let operations: Vec<_> = pool.operations.iter().filter(|operation| operation.started > 0).collect();
    let checkouts: u64 = operations.iter().map(|operation| operation.started).sum();
    let rate = Duration::from_secs(checkouts).as_secs_f64() / elapsed.as_secs_f64().max(1e-3);

    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = writeln!(
        text,
        "{} from pool {} in {}, {rate:.1} per second (wait and use: means)",
        counted(checkouts, "checkout"),
        pool.name,
        humantime::format_duration(Duration::from_secs(elapsed.as_secs())),
    );
    let name = operations.iter().map(|operation| label(&operation.name).chars().count()).max().unwrap_or(0).max(9);
    let _ = writeln!(
        text,
        "\n  {:name$} {:>9} {:>6} {:>7} {:>9} {:>6} {:>6} {:>6}",
        "operation", "checkouts", "ok", "timeout", "cancelled", "errors", "wait", "use"
    );
    for operation in &operations {
        row(&mut text, operation, name);
    }
    holders(&mut text, &operations, name);
    text.push('\n');
    for (name, times) in [("wait", &pool.wait_time), ("use", &pool.use_time)] {
        if times.count() > 0 {
            let _ = writeln!(
                text,
                "  {name:<12} p50 {}, p95 {}, p99 {}",
                percentile(times, 50),
                percentile(times, 95),
                percentile(times, 99)
            );
        }
    }
    let _ = writeln!(text, "  {:<12} {}", "connections", connections(pool));
    if let Some(causes) = causes_text(&error_causes(pool), MAX_CAUSES) {
        let _ = writeln!(text, "  {:<12} {causes}", "errors");
    }
    if let Some(retries) = retries(pool) {
        let _ = writeln!(text, "  {:<12} {retries}", "retries");
    }
    let saturated = Duration::from_nanos(pool.saturated_nanos);
    let _ =
        writeln!(text, "  {:<12} {} with all connections in use and checkouts waiting", "saturated", short(saturated));
    if let Some(size) = pool.recommended_size {
        let target = humantime::format_duration(pool.limits.wait_target);
        let _ = writeln!(
            text,
            "  {:<12} {size} connections, with which 99 % of checkouts wait for less than {target}",
            "recommended"
        );
    }
    text
}

fn row(text: &mut String, operation: &OperationTotals, name: usize) {
    let outcome = |outcome: Outcome| operation.outcomes[outcome.index()];
    let _ = writeln!(
        text,
        "  {:name$} {:>9} {:>6} {:>7} {:>9} {:>6} {:>6} {:>6}",
        label(&operation.name),
        operation.started,
        outcome(Outcome::Ok),
        outcome(Outcome::Timeout),
        outcome(Outcome::Cancelled),
        errors(operation),
        short(mean(operation.wait_nanos, operation.started)),
        short(mean(operation.use_nanos, operation.returned)),
    );
}

/// How many causes of errors are listed.
const MAX_CAUSES: usize = 5;

/// How many operations the table of holders has.
const MAX_HOLDERS: usize = 5;

/// Appends the operations that held connections longest, with the shares of activities.
fn holders(text: &mut String, operations: &[&OperationTotals], name: usize) {
    let held = |operation: &OperationTotals| operation.activity_nanos.iter().sum::<u64>();
    let mut longest = operations.to_vec();
    longest.sort_by_key(|operation| std::cmp::Reverse(held(operation)));
    let _ = writeln!(
        text,
        "\n  {:name$} {:>9} {:>10} {:>20} {:>6}",
        "holder", "held", "executing", "idle in transaction", "idle"
    );
    for operation in longest.into_iter().take(MAX_HOLDERS) {
        let share = |activity: Activity| match held(operation) {
            0 => "-".to_owned(),
            all => format!("{} %", u128::from(operation.activity_nanos[activity.index()]) * 100 / u128::from(all)),
        };
        let _ = writeln!(
            text,
            "  {:name$} {:>9} {:>10} {:>20} {:>6}",
            label(&operation.name),
            short(Duration::from_nanos(held(operation))),
            share(Activity::Executing),
            share(Activity::IdleInTransaction),
            share(Activity::Idle),
        );
    }
}

/// Returns the name of an operation. Shortens a call site to the file with its directory, to limit the table's width.
fn label(name: &str) -> &str {
    match name.rmatch_indices('/').nth(1) {
        Some((slash, _)) if name.contains(".rs:") => &name[slash + 1..],
        _ => name,
    }
}

/// Returns the number of created connections, and of closed ones by reason.
fn connections(pool: &PoolSnapshot) -> String {
    let closed = CloseReason::ALL.iter().map(|reason| (pool.closed[reason.index()], reason.as_str()));
    let closed: Vec<_> =
        closed.filter(|(count, _)| *count > 0).map(|(count, reason)| format!("{count} {reason}")).collect();
    format!(
        "{} created; closed: {}",
        pool.created,
        if closed.is_empty() { "none".to_owned() } else { closed.join(", ") }
    )
}

/// Returns the number of retries by SQLSTATE, and of operations that succeeded after one; `None` without retries.
fn retries(pool: &PoolSnapshot) -> Option<String> {
    let mut by_code = BTreeMap::new();
    for retries in &pool.retries {
        *by_code.entry(retries.code).or_insert(0) += retries.count;
    }
    let all: u64 = by_code.values().sum();
    let recovered: u64 = pool.operations.iter().map(|operation| operation.recovered).sum();
    let codes: Vec<_> = by_code.iter().map(|(code, count)| format!("{count} for {}", code.as_str())).collect();
    (all > 0).then(|| format!("{all}: {}; {} recovered", codes.join(", "), counted(recovered, "operation")))
}

/// Returns the bucket bound of a percentile.
fn percentile(times: &Histogram, percent: u64) -> String {
    let rank = (times.count() * percent).div_ceil(100);
    let mut seen = 0;
    let bound = BOUNDS_SECONDS.iter().zip(times.buckets).find(|(_, count)| {
        seen += count;
        seen >= rank
    });
    match (bound, BOUNDS_SECONDS.last()) {
        (Some((bound, _)), _) => format!("<= {}", short(Duration::from_secs_f64(*bound))),
        (None, Some(last)) => format!("> {}", short(Duration::from_secs_f64(*last))),
        (None, None) => String::new(),
    }
}

fn mean(nanos: u64, count: u64) -> Duration {
    Duration::from_nanos(nanos.checked_div(count).unwrap_or(0))
}

/// Formats a duration with two significant digits and a suitable unit.
fn short(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    match seconds {
        0.0 => "0".to_owned(),
        ..0.000_95 => format!("{:.0} us", seconds * 1e6),
        ..0.009_5 => format!("{:.1} ms", seconds * 1e3),
        ..0.95 => format!("{:.0} ms", seconds * 1e3),
        ..9.95 => format!("{seconds:.1} s"),
        _ => format!("{seconds:.0} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_suitable_unit() {
        let times = [0, 500, 999_000, 1_500_000, 25_000_000, 999_000_000, 2_500_000_000, 120_000_000_000];
        let formatted = times.map(|nanos| short(Duration::from_nanos(nanos)));
        assert_eq!(formatted, ["0", "0 us", "1.0 ms", "1.5 ms", "25 ms", "1.0 s", "2.5 s", "120 s"]);
    }

    #[test]
    fn call_site_is_shortened() {
        for (name, expected) in [
            ("crates/cli/src/demo/workload/shop.rs:131", "workload/shop.rs:131"),
            ("src/main.rs:1", "src/main.rs:1"),
            ("get_product", "get_product"),
            ("GET /orders/list", "GET /orders/list"),
        ] {
            assert_eq!(label(name), expected);
        }
    }

    #[test]
    fn percentile_is_a_bucket_bound() {
        let mut times = Histogram::default();
        times.buckets[0] = 50;
        times.buckets[2] = 49;
        *times.buckets.last_mut().unwrap() = 1;
        assert_eq!(percentile(&times, 50), "<= 500 us");
        assert_eq!(percentile(&times, 95), "<= 2.5 ms");
        assert_eq!(percentile(&times, 99), "<= 2.5 ms");
        assert_eq!(percentile(&times, 100), "> 30 s");
    }
}
