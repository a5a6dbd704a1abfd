//! The number of series of a pool, which docs/scale.md uses.

use std::collections::BTreeSet;

use poolscope::exporter::Format;
use poolscope::telemetry::catalogue::{Kind, METRICS};

use super::fixtures::{Metrics, Pool, Step, Trace, Writer, block_on};

/// Returns the number of samples of a pool after these steps.
async fn samples(steps: &[Step]) -> usize {
    lines(steps, "").await
}

/// Returns how many of them have a name with this prefix.
async fn lines(steps: &[Step], name: &str) -> usize {
    let metrics = Metrics::new();
    let mut pool = Pool::new("a pool", &metrics.collector);
    for step in steps {
        pool.apply(step).await;
    }
    let page = Writer::new(&metrics).page(Format::Text);
    let of_the_pool = page.lines().filter(|line| line.contains("db_client_connection_pool_name=\"a pool\""));
    of_the_pool.filter(|line| line.starts_with(name)).count()
}

fn run(operation: &str) -> Step {
    Step::Run { operation: operation.to_owned(), micros: 100, fails: false, trace: Trace::default() }
}

fn serve(route: &str) -> Step {
    Step::Serve { route: route.to_owned(), micros: 100, fails: false }
}

#[test]
fn scale_page_has_the_right_numbers() {
    block_on(async {
        let none = samples(&[]).await;
        let one = samples(&[run("one")]).await;
        let two = samples(&[run("one"), run("two")]).await;
        let three = samples(&[run("one"), run("two"), run("three")]).await;
        assert_eq!(two - one, three - two, "each operation has the same number");
        // Failed operations have a histogram of their own.
        let failed = Step::Run { operation: "one".to_owned(), micros: 100, fails: true, trace: Trace::default() };
        let outcome = samples(&[run("one"), failed]).await - one;
        // A request has an operation, named after its route.
        let route = samples(&[run("one"), serve("/a"), serve("/b")]).await - samples(&[run("one"), serve("/a")]).await;
        let histogram = lines(&[], "db_client_connection_wait_time_seconds_").await;
        assert_eq!(outcome, histogram);
        let operation = two - one;

        let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/scale.md")).unwrap();
        let rows = [
            format!("| each pool | {none} |"),
            format!("| each operation that succeeds | {operation} |"),
            format!("| each further outcome of an operation | {outcome} |"),
            format!("| each route and method | {} |", route - operation),
            format!("| each summary of queries, and each error of one | {histogram} |"),
        ];
        let missing: Vec<_> = rows.iter().filter(|row| !page.contains(*row)).collect();
        assert!(missing.is_empty(), "docs/scale.md lacks {missing:#?}");
    });
}

#[test]
fn scale_page_lists_every_label() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/scale.md")).unwrap();
    let labels: BTreeSet<_> =
        METRICS.iter().filter(|metric| metric.has_pool_label()).flat_map(|metric| metric.labels).collect();
    for label in labels {
        assert!(page.contains(&format!("`{label}`")), "docs/scale.md lacks the number of values of `{label}`");
    }
    assert!(METRICS.iter().any(|metric| metric.kind == Kind::Histogram && metric.labels.contains(&"db_query_summary")));
}
