//! Text that is prepared for one line is not used for another: lines come in between, and pools change places.

use std::sync::{Arc, Mutex};

use poolscope::Collector;
use poolscope::exporter::Format;
use prometheus::core::Collector as _;

use super::neighbours::register;
use super::pages::samples;
use super::world::{Pool, Step, Trace, Writer, block_on, registry};

fn run(operation: &str, fails: bool) -> Step {
    Step::Run { operation: operation.to_owned(), micros: 10, fails, trace: Trace::default() }
}

#[track_caller]
fn agree(writer: &mut Writer) {
    for format in [Format::Text, Format::OpenMetrics] {
        assert_eq!(samples(&writer.ours(format)), samples(&writer.theirs()), "{format:?}");
    }
}

#[test]
fn a_line_that_comes_in_between_moves_those_that_follow_it() {
    // Pairs of one length that are hard to tell apart: by their ends, in their midst, or by what is written of them. `a\` is
    // written as the other one of its pair is.
    for (first, second) in [
        ("a", "b"),
        ("four", "foul"),
        ("operation 1", "operation 2"),
        ("1 operation", "2 operation"),
        ("12345678a12345678", "12345678b12345678"),
        ("a\\", "a\\\\"),
        ("a\\\\", "a\\"),
        ("a\"", "a\\\""),
        ("a\n", "a\\n"),
    ] {
        block_on(async {
            let (registry, collector) = registry();
            let (mut writer, mut pool) = (Writer::new(&registry), Pool::new("pool", &collector));
            // Both have their places, and no operation of the first one has ended yet.
            for operation in [first, second] {
                pool.take(&Step::Hold { operation: operation.to_owned(), trace: Trace::default() }).await;
                pool.take(&Step::Return).await;
            }
            pool.take(&run(second, false)).await;
            agree(&mut writer);
            pool.take(&run(first, false)).await;
            agree(&mut writer);
            pool.take(&run(first, true)).await;
            agree(&mut writer);
        });
    }
}

#[test]
fn pools_that_change_places_keep_what_is_theirs() {
    block_on(async {
        let (registry, _) = registry();
        let collectors = [Collector::new(), Collector::new(), Collector::new()];
        let mut pools = Vec::new();
        for (number, collector) in collectors.iter().enumerate() {
            let mut pool = Pool::new(&format!("pool {number}"), collector);
            pool.take(&run(&format!("operation {number}"), false)).await;
            pools.push(pool);
        }
        let shown = Arc::new(Mutex::new(collectors.to_vec()));
        let told = Arc::clone(&shown);
        register(&registry, move || {
            let shown = told.lock().unwrap();
            let families = shown.iter().flat_map(|collector| collector.collect());
            // Which is there already.
            families.filter(|family| family.name() != "poolscope_build_info").collect()
        });
        let mut writer = Writer::new(&registry);
        let mut named = || {
            let samples = samples(&writer.ours(Format::Text));
            let started = samples.into_keys().filter(|(name, _)| name == "poolscope_checkouts_started_total");
            let pairs = started.map(|(_, labels)| labels.into_values().collect::<Vec<_>>().join(": "));
            pairs.collect::<Vec<_>>()
        };
        let all = ["pool 0: operation 0", "pool 1: operation 1", "pool 2: operation 2"];
        assert_eq!(named(), all);
        shown.lock().unwrap().reverse();
        assert_eq!(named(), all);
        let gone = shown.lock().unwrap().remove(1);
        assert_eq!(named(), [all[0], all[2]]);
        shown.lock().unwrap().insert(0, gone);
        assert_eq!(named(), all);
    });
}
