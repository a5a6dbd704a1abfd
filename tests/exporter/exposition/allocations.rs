//! Writing a page again allocates nothing for pools.

use poolscope::exporter::{Format, Page};

use super::fixtures::{Metrics, Pool, Step, Trace, block_on};

/// Returns the number of allocations for a page that is written again.
fn allocations(metrics: &Metrics, format: Format) -> u64 {
    let (mut exposition, mut page) = (metrics.exposition(), Page::new());
    for _ in 0..2 {
        exposition.write(format, &mut page).unwrap();
    }
    let mut written = Ok(());
    let counted = allocation_counter::measure(|| written = exposition.write(format, &mut page));
    written.unwrap();
    counted.count_total
}

#[test]
fn pools_cost_no_allocation_in_the_steady_state() {
    block_on(async {
        let metrics = Metrics::new();
        let no_pools = Metrics::new();
        let mut pools = Vec::new();
        for number in 0..5 {
            let mut pool = Pool::new(&format!("a \"pool\" {number}"), &metrics.collector);
            // They differ in size: memory must not be released for a smaller one.
            for operation in 0..=20 * number {
                let (operation, trace) = (format!("operation {operation}"), Trace { number: 1, sampled: true });
                pool.apply(&Step::Refuse { operation: operation.clone() }).await;
                pool.apply(&Step::Run { operation, micros: 1500, fails: false, trace }).await;
            }
            pools.push(pool);
        }
        for format in [Format::Text, Format::OpenMetrics] {
            let (with, without) = (allocations(&metrics, format), allocations(&no_pools, format));
            assert_eq!(with, without, "with and without pools, as {format:?}");
            assert!(without > 0, "allocations are not counted");
        }
    });
}
