//! What was written once is written again without anything new.

use poolscope::exporter::{Exposition, Format, Page};
use prometheus::Registry;

use super::world::{Pool, Step, Trace, block_on, registry};

/// Allocations of a page, when a page like it was written before.
fn allocations(registry: &Registry, format: Format) -> u64 {
    let (mut exposition, mut page) = (Exposition::new(registry.clone()), Page::new());
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
        let (registry, collector) = registry();
        let (nothing, _) = super::world::registry();
        let mut pools = Vec::new();
        for number in 0..5 {
            let mut pool = Pool::new(&format!("a \"pool\" {number}"), &collector);
            // Not all are alike: what one needs is not to be given back for the next.
            for operation in 0..=20 * number {
                let (operation, trace) = (format!("operation {operation}"), Trace { number: 1, sampled: true });
                pool.take(&Step::Refuse { operation: operation.clone() }).await;
                pool.take(&Step::Run { operation, micros: 1500, fails: false, trace }).await;
            }
            pools.push(pool);
        }
        for format in [Format::Text, Format::OpenMetrics] {
            let (with, without) = (allocations(&registry, format), allocations(&nothing, format));
            assert_eq!(with, without, "allocations of {format:?}, and of what else is in the registry");
            assert!(without > 0, "nothing is counted");
        }
    });
}
