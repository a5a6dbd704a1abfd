//! Generates `docs/metrics.md` from the catalogue.

use std::fmt::Write as _;

use super::{METRICS, Metric, POOL_LABEL};
use crate::generated::assert_current;
use crate::labels::{
    Activity, BackendState, CacheError, CacheResult, Cause, CloseReason, Direction, Dirt, GiveUp, Outcome, Phase,
    RequestMethod, RequestWarning, ServerRole,
};
use crate::telemetry::spans::Destination;
use crate::telemetry::{BOUNDS_SECONDS, MAX_OPERATIONS};

/// Returns the content of `docs/metrics.md`.
fn reference() -> String {
    let mut page = String::from(
        "# Metrics\n\n\
         <!-- Generated from src/telemetry/catalogue/table.rs. `POOLSCOPE_BLESS=1 cargo test -p poolscope --lib reference` regenerates it. -->\n\n\
         Durations are in seconds, sizes in connections. The series of a pool start at zero when it is created and end with it.\n\
         Renaming or removing a metric or a label is a breaking change.\n\n\
         ## Pool metrics\n\n",
    );
    let _ = writeln!(page, "All have the label `{POOL_LABEL}`, the pool's name.\n");
    table(&mut page, Metric::has_pool_label);
    let is_unseen = |metric: &&Metric| metric.has_pool_label() && !metric.is_seen_by_proxies();
    let unseen: Vec<_> = METRICS.iter().filter(is_unseen).map(|metric| format!("`{}`", metric.name)).collect();
    let _ = writeln!(
        page,
        "\nThe pools of [`poolscope proxy`](proxy.md) lack what a proxy cannot see: {}.",
        unseen.join(", ")
    );
    page.push_str("\n## Process metrics\n\n");
    table(&mut page, |metric| !metric.has_pool_label());
    page.push_str(
        "\nOn Linux the exporter adds the `process_…` metrics of the `prometheus` crate.\n\n## Label values\n\n",
    );
    label_values(&mut page, "outcome", Outcome::ALL.iter().map(|value| value.as_str()));
    label_values(&mut page, "phase", Phase::ALL.iter().map(|value| value.as_str()));
    label_values(&mut page, "activity", Activity::ALL.iter().map(|value| value.as_str()));
    label_values(&mut page, "direction", Direction::ALL.iter().map(|value| value.as_str()));
    label_values(&mut page, "kind` of `poolscope_dirty_returns_total", Dirt::ALL.iter().map(|value| value.as_str()));
    label_values(
        &mut page,
        "kind` of `poolscope_request_warnings_total",
        RequestWarning::ALL.iter().map(|value| value.as_str()),
    );
    label_values(&mut page, "method", RequestMethod::ALL.iter().map(|value| value.as_str()));
    label_values(
        &mut page,
        "reason` of `poolscope_connections_closed_total",
        CloseReason::ALL.iter().map(|value| value.as_str()),
    );
    label_values(
        &mut page,
        "reason` of `poolscope_retry_exhausted_total",
        GiveUp::ALL.iter().map(|value| value.as_str()),
    );
    label_values(
        &mut page,
        "state` of `poolscope_server_backends",
        BackendState::ALL.iter().map(|value| value.as_str()),
    );
    label_values(&mut page, "cause", Cause::ALL.iter().map(|value| value.as_str()));
    label_values(&mut page, "role", ServerRole::ALL.iter().map(|value| value.as_str()));
    label_values(&mut page, "result", CacheResult::ALL.iter().map(|value| value.as_str()));
    label_values(
        &mut page,
        "kind` of `poolscope_cache_errors_total",
        CacheError::ALL.iter().map(|value| value.as_str()),
    );
    label_values(&mut page, "destination", Destination::ALL.iter().map(|value| value.as_str()));
    let _ = writeln!(
        page,
        "- `operation`: the name passed to `Pool::operation`, or else the method and route of the request that the middleware \
         serves, or else the file and line of the checkout; at most {MAX_OPERATIONS} per pool, further ones are `other`.",
    );
    let _ = writeln!(page, "\n## Buckets\n\nAll histograms have the same upper bounds: {BOUNDS_SECONDS:?} seconds.");
    page.push_str(
        "\n## Exemplars\n\n\
         In OpenMetrics and with the feature `otel`, the buckets of all histograms of pools carry the latest observation made in a\n\
         sampled trace: `trace_id` and `span_id` in hexadecimal, the value, and when it was recorded. The span of\n\
         `db_client_operation_duration_seconds` is that of the query; for other histograms it is the span in which the pool was\n\
         used.\n\n\
         ## Push by OTLP\n\n\
         With the feature `otlp`, `poolscope::otlp::MetricsExport` pushes all of them but those of scrapes to an OpenTelemetry\n\
         collector, over gRPC or HTTP, every `OTEL_METRIC_EXPORT_INTERVAL` (60 s). Metrics and labels that begin with `db_client_`,\n\
         `db_query_` or `error_` have the names of the semantic conventions there, such as `db.client.connection.wait_time` and\n\
         `db.client.connection.pool.name`; the others keep theirs. Sums and histograms are cumulative, with exemplars.\n",
    );
    page
}

fn table(page: &mut String, is_included: impl Fn(&Metric) -> bool) {
    page.push_str("| metric | type | labels | meaning |\n|---|---|---|---|\n");
    for metric in METRICS.iter().filter(|metric| is_included(metric)) {
        let labels: Vec<_> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let _ = writeln!(
            page,
            "| `{}` | {} | {} | {} |",
            metric.name,
            metric.kind.as_str(),
            labels.join(", "),
            metric.help
        );
    }
}

fn label_values<'a>(page: &mut String, label: &str, values: impl Iterator<Item = &'a str>) {
    let values: Vec<_> = values.map(|value| format!("`{value}`")).collect();
    let _ = writeln!(page, "- `{label}`: {}", values.join(", "));
}

#[test]
fn reference_is_current() {
    assert_current("docs/metrics.md", &reference(), "the catalogue");
}

#[test]
fn readme_and_guide_name_only_known_metrics() {
    let reference = reference();
    for page in [include_str!("../../../README.md"), include_str!("../../../docs/migration.md")] {
        let words = page.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        let names: Vec<_> =
            words.filter(|word| word.starts_with("poolscope_") || word.starts_with("db_client_")).collect();
        assert!(names.len() > 5, "{names:?}");
        for name in names {
            // A series of a histogram.
            let name = name.strip_suffix("_bucket").unwrap_or(name);
            // A name that ends with an underscore stands for all metrics with this prefix.
            let known = if name.ends_with('_') { format!("`{name}") } else { format!("`{name}`") };
            assert!(reference.contains(&known), "unknown metric {name}");
        }
    }
}
