//! Exemplars are of sampled traces.

use poolscope::exporter::Format;

use super::fixtures::{Metrics, Pool, Step, Trace, Writer, block_on};
use super::pages::Family;

/// Returns trace, span and value of the exemplars of a family.
fn exemplars(families: &[Family], name: &str) -> Vec<(String, String, f64)> {
    let family = families.iter().find(|family| family.name == name).unwrap();
    let exemplars = family.samples.iter().filter_map(|sample| sample.exemplar.as_ref());
    let of = |label: &str, exemplar: &super::pages::lines::Exemplar| exemplar.labels[label].clone();
    exemplars.map(|exemplar| (of("trace_id", exemplar), of("span_id", exemplar), exemplar.value)).collect()
}

fn run(number: u8, sampled: bool, micros: u32) -> Step {
    Step::Run { operation: "work".to_owned(), micros, fails: false, trace: Trace { number, sampled } }
}

const HISTOGRAMS: [&str; 4] = [
    "db_client_connection_create_time_seconds",
    "db_client_connection_wait_time_seconds",
    "db_client_connection_use_time_seconds",
    "poolscope_operation_duration_seconds",
];

#[test]
fn histograms_have_exemplars_of_the_sampled_span() {
    block_on(async {
        let metrics = Metrics::new();
        let mut pool = Pool::new("traced", &metrics.collector);
        pool.apply(&run(0xab, true, 1500)).await;
        let mut writer = Writer::new(&metrics);
        let written = writer.ours(Format::OpenMetrics);
        for histogram in HISTOGRAMS {
            let exemplars = exemplars(&written, histogram);
            let named: Vec<_> = exemplars.iter().map(|(trace, span, _)| (trace.as_str(), span.as_str())).collect();
            assert_eq!(named, [("ab".repeat(16).as_str(), "ab".repeat(8).as_str())], "{histogram}");
        }
        assert_eq!(exemplars(&written, HISTOGRAMS[2])[0].2, 0.0015);
        let family = written.iter().find(|family| family.name == HISTOGRAMS[2]).unwrap();
        let exemplar = family.samples.iter().find_map(|sample| sample.exemplar.as_ref()).unwrap();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        let age = now - exemplar.timestamp.unwrap();
        assert!((-0.1..60.0).contains(&age), "seen {age} s ago");
        assert!(!writer.page(Format::Text).contains("trace_id"));
    });
}

#[test]
fn unsampled_traces_are_no_exemplars() {
    block_on(async {
        let metrics = Metrics::new();
        let mut pool = Pool::new("untraced", &metrics.collector);
        pool.apply(&run(0xab, false, 1500)).await;
        let page = Writer::new(&metrics).page(Format::OpenMetrics);
        assert!(!page.contains("trace_id") && !page.contains("abab"), "{page}");
    });
}

#[test]
fn each_bucket_has_its_latest_exemplar() {
    block_on(async {
        let metrics = Metrics::new();
        let mut pool = Pool::new("traced", &metrics.collector);
        let mut writer = Writer::new(&metrics);
        for (number, sampled, micros) in [(1, true, 100), (2, true, 200), (3, true, 2000), (4, false, 300)] {
            pool.apply(&run(number, sampled, micros)).await;
            // All with the same exposition.
            writer.ours(Format::OpenMetrics);
        }
        let exemplars = exemplars(&writer.ours(Format::OpenMetrics), HISTOGRAMS[2]);
        let found: Vec<_> = exemplars.iter().map(|(trace, _, value)| (&trace[..2], *value)).collect();
        assert_eq!(found, [("02", 0.0002), ("03", 0.002)]);
    });
}
