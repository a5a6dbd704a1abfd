//! How many series a pool has: docs/scale.md reckons with these numbers.

use std::collections::BTreeSet;

use poolscope::exporter::Format;
use poolscope::telemetry::catalogue::{Kind, METRICS};

use super::world::{Pool, Step, Trace, Writer, block_on, registry};

/// The samples of a page whose one pool has gone through this, those of the process left out.
async fn samples(steps: &[Step]) -> usize {
    lines(steps, "").await
}

/// Of those, the ones whose names begin so.
async fn lines(steps: &[Step], name: &str) -> usize {
    let (registry, collector) = registry();
    let mut pool = Pool::new("a pool", &collector);
    for step in steps {
        pool.take(step).await;
    }
    let page = Writer::new(&registry).page(Format::Text);
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
fn the_page_about_scale_reckons_with_the_series_that_there_are() {
    block_on(async {
        let none = samples(&[]).await;
        let one = samples(&[run("one")]).await;
        let two = samples(&[run("one"), run("two")]).await;
        let three = samples(&[run("one"), run("two"), run("three")]).await;
        assert_eq!(two - one, three - two, "each operation has as many as any other");
        // Work that failed is a histogram of its own.
        let failed = Step::Run { operation: "one".to_owned(), micros: 100, fails: true, trace: Trace::default() };
        let outcome = samples(&[run("one"), failed]).await - one;
        // A request that is served is of an operation, which is called after its route.
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
        assert!(missing.is_empty(), "docs/scale.md has not {missing:#?}");
    });
}

#[test]
fn the_page_about_scale_knows_every_label_that_multiplies() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/scale.md")).unwrap();
    let labels: BTreeSet<_> =
        METRICS.iter().filter(|metric| metric.is_of_a_pool()).flat_map(|metric| metric.labels).collect();
    for label in labels {
        assert!(page.contains(&format!("`{label}`")), "docs/scale.md does not say how many values `{label}` has");
    }
    assert!(METRICS.iter().any(|metric| metric.kind == Kind::Histogram && metric.labels.contains(&"db_query_summary")));
}
