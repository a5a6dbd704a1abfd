//! The reference of metrics, written from the catalogue.

use std::fmt::Write as _;

use super::{METRICS, Metric, POOL_LABEL};
use crate::labels::{
    Activity, BackendState, CloseReason, Direction, Dirt, GiveUp, Outcome, Phase, RequestMethod, RequestWarning,
    ServerRole,
};
use crate::telemetry::spans::Destination;
use crate::telemetry::{BOUNDS_SECONDS, MAX_OPERATIONS};

/// `docs/metrics.md`.
#[must_use]
pub fn reference() -> String {
    let mut page = String::from(
        "# Metrics\n\n\
         <!-- Generated from src/telemetry/catalogue/table.rs. `POOLSCOPE_BLESS=1 cargo test -p poolscope --lib reference` writes it anew. -->\n\n\
         Durations are in seconds, sizes in connections. Counters start at zero when their pool is made and go away with it.\n\
         A renamed or dropped metric or label is a breaking change.\n\n\
         ## Of each pool\n\n",
    );
    let _ = writeln!(page, "All carry `{POOL_LABEL}`, the pool's name.\n");
    table(&mut page, Metric::is_of_a_pool);
    page.push_str("\n## Of the process\n\n");
    table(&mut page, |metric| !metric.is_of_a_pool());
    page.push_str(
        "\nOn Linux the exporter adds the usual `process_…` metrics of the `prometheus` crate.\n\n## Label values\n\n",
    );
    words(&mut page, "outcome", Outcome::ALL.iter().map(|word| word.as_str()));
    words(&mut page, "phase", Phase::ALL.iter().map(|word| word.as_str()));
    words(&mut page, "activity", Activity::ALL.iter().map(|word| word.as_str()));
    words(&mut page, "direction", Direction::ALL.iter().map(|word| word.as_str()));
    words(&mut page, "kind` of `poolscope_dirty_returns_total", Dirt::ALL.iter().map(|word| word.as_str()));
    words(
        &mut page,
        "kind` of `poolscope_request_warnings_total",
        RequestWarning::ALL.iter().map(|word| word.as_str()),
    );
    words(&mut page, "method", RequestMethod::ALL.iter().map(|word| word.as_str()));
    words(
        &mut page,
        "reason` of `poolscope_connections_closed_total",
        CloseReason::ALL.iter().map(|word| word.as_str()),
    );
    words(&mut page, "reason` of `poolscope_retry_exhausted_total", GiveUp::ALL.iter().map(|word| word.as_str()));
    words(&mut page, "state` of `poolscope_server_backends", BackendState::ALL.iter().map(|word| word.as_str()));
    words(&mut page, "role", ServerRole::ALL.iter().map(|word| word.as_str()));
    words(&mut page, "destination", Destination::ALL.iter().map(|word| word.as_str()));
    let _ = writeln!(
        page,
        "- `operation`: the name given to `Pool::operation`, else the method and route of the request that the middleware \
         serves, else the file and line that asked for the connection; at most {} for each pool, then `other`.",
        MAX_OPERATIONS
    );
    let _ = writeln!(page, "\n## Buckets\n\nAll histograms have the same upper bounds: {BOUNDS_SECONDS:?} seconds.");
    page.push_str(
        "\n## Exemplars\n\n\
         In OpenMetrics, and with the feature `otel`, the buckets of all histograms of pools carry the latest observation that was\n\
         made in a sampled trace: `trace_id` and `span_id` in hexadecimal digits, the value, and when it was counted. The span\n\
         of `db_client_operation_duration_seconds` is the query's own; of the others it is the one in which the pool was asked.\n",
    );
    page
}

fn table(page: &mut String, chosen: impl Fn(&Metric) -> bool) {
    page.push_str("| metric | type | labels | meaning |\n|---|---|---|---|\n");
    for metric in METRICS.iter().filter(|metric| chosen(metric)) {
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

fn words<'a>(page: &mut String, label: &str, words: impl Iterator<Item = &'a str>) {
    let words: Vec<_> = words.map(|word| format!("`{word}`")).collect();
    let _ = writeln!(page, "- `{label}`: {}", words.join(", "));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");
        if std::env::var_os("POOLSCOPE_BLESS").is_some() {
            std::fs::write(path, reference()).unwrap();
        }
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            written == reference(),
            "docs/metrics.md is not what the catalogue says: POOLSCOPE_BLESS=1 writes it anew"
        );
    }

    #[test]
    fn every_metric_that_the_readme_and_the_guide_name_is_in_the_reference() {
        let reference = reference();
        for page in [include_str!("../../../README.md"), include_str!("../../../docs/migration.md")] {
            let words = page.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
            let names: Vec<_> =
                words.filter(|word| word.starts_with("poolscope_") || word.starts_with("db_client_")).collect();
            assert!(names.len() > 5, "{names:?}");
            for name in names {
                // A series of a histogram.
                let name = name.strip_suffix("_bucket").unwrap_or(name);
                // One that ends so is cut short, and stands for all that begin so.
                let known = if name.ends_with('_') { format!("`{name}") } else { format!("`{name}`") };
                assert!(reference.contains(&known), "there is no {name}");
            }
        }
    }
}
