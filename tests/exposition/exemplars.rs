//! Examples name the trace that was sampled, and no other.

use poolscope::exporter::Format;

use super::pages::Family;
use super::world::{Pool, Step, Trace, Writer, block_on, registry};

/// The trace and span of each example of a family, and its value.
fn examples(families: &[Family], name: &str) -> Vec<(String, String, f64)> {
    let family = families.iter().find(|family| family.name == name).unwrap();
    let examples = family.samples.iter().filter_map(|sample| sample.exemplar.as_ref());
    let of = |label: &str, example: &super::pages::lines::Exemplar| example.labels[label].clone();
    examples.map(|example| (of("trace_id", example), of("span_id", example), example.value)).collect()
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
fn the_histograms_of_waits_creations_uses_and_operations_name_the_span_that_was_sampled() {
    block_on(async {
        let (registry, collector) = registry();
        let mut pool = Pool::new("traced", &collector);
        pool.take(&run(0xab, true, 1500)).await;
        let mut writer = Writer::new(&registry);
        let written = writer.ours(Format::OpenMetrics);
        for histogram in HISTOGRAMS {
            let examples = examples(&written, histogram);
            let named: Vec<_> = examples.iter().map(|(trace, span, _)| (trace.as_str(), span.as_str())).collect();
            assert_eq!(named, [("ab".repeat(16).as_str(), "ab".repeat(8).as_str())], "{histogram}");
        }
        assert_eq!(examples(&written, HISTOGRAMS[2])[0].2, 0.0015);
        let family = written.iter().find(|family| family.name == HISTOGRAMS[2]).unwrap();
        let example = family.samples.iter().find_map(|sample| sample.exemplar.as_ref()).unwrap();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        let age = now - example.timestamp.unwrap();
        assert!((-0.1..60.0).contains(&age), "seen {age} s ago");
        assert!(!writer.page(Format::Text).contains("trace_id"));
    });
}

#[test]
fn what_was_not_sampled_is_no_example() {
    block_on(async {
        let (registry, collector) = registry();
        let mut pool = Pool::new("untraced", &collector);
        pool.take(&run(0xab, false, 1500)).await;
        let page = Writer::new(&registry).page(Format::OpenMetrics);
        assert!(!page.contains("trace_id") && !page.contains("abab"), "{page}");
    });
}

#[test]
fn each_bucket_shows_its_latest_example() {
    block_on(async {
        let (registry, collector) = registry();
        let mut pool = Pool::new("traced", &collector);
        let mut writer = Writer::new(&registry);
        for (number, sampled, micros) in [(1, true, 100), (2, true, 200), (3, true, 2000), (4, false, 300)] {
            pool.take(&run(number, sampled, micros)).await;
            // The same tools write all of them.
            writer.ours(Format::OpenMetrics);
        }
        let examples = examples(&writer.ours(Format::OpenMetrics), HISTOGRAMS[2]);
        let found: Vec<_> = examples.iter().map(|(trace, _, value)| (&trace[..2], *value)).collect();
        assert_eq!(found, [("02", 0.0002), ("03", 0.002)]);
    });
}
