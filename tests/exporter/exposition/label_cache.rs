//! Cached labels are not used for another line: lines are inserted, and pools join and leave.

use poolscope::Settings;
use poolscope::exporter::Format;

use super::fixtures::{ConnectRefused, Metrics, Pool, Step, Trace, Writer, block_on};
use super::pages::samples;

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
fn inserted_line_moves_the_following_ones() {
    // Pairs of the same length that differ at one place, or whose encoded form is the other one.
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
            let metrics = Metrics::new();
            let (mut writer, mut pool) = (Writer::new(&metrics), Pool::new("pool", &metrics.collector));
            // Both have lines, and no operation of the first one has ended yet.
            for operation in [first, second] {
                pool.apply(&Step::Hold { operation: operation.to_owned(), trace: Trace::default() }).await;
                pool.apply(&Step::Return).await;
            }
            pool.apply(&run(second, false)).await;
            agree(&mut writer);
            pool.apply(&run(first, false)).await;
            agree(&mut writer);
            pool.apply(&run(first, true)).await;
            agree(&mut writer);
        });
    }
}

#[test]
fn pools_keep_their_lines_when_others_join_and_leave() {
    block_on(async {
        let metrics = Metrics::new();
        let mut writer = Writer::new(&metrics);
        let mut pools = Vec::new();
        let started = |writer: &mut Writer| {
            let samples = samples(&writer.ours(Format::Text));
            let started = samples.into_keys().filter(|(name, _)| name == "poolscope_checkouts_started_total");
            let pairs = started.map(|(_, labels)| labels.into_values().collect::<Vec<_>>().join(": "));
            pairs.collect::<Vec<_>>()
        };
        for number in 0..3 {
            let mut pool = Pool::new(&format!("pool {number}"), &metrics.collector);
            pool.apply(&run(&format!("operation {number}"), false)).await;
            pools.push(pool);
        }
        let all = ["pool 0: operation 0", "pool 1: operation 1", "pool 2: operation 2"];
        assert_eq!(started(&mut writer), all);
        drop(pools.remove(1));
        assert_eq!(started(&mut writer), [all[0], all[2]]);
        // A pool of the same name is another one, and is written last.
        let mut again = Pool::new("pool 1", &metrics.collector);
        again.apply(&run("operation 3", false)).await;
        assert_eq!(started(&mut writer), [all[0], "pool 1: operation 3", all[2]]);
        drop(pools);
        assert_eq!(started(&mut writer), ["pool 1: operation 3"]);
        agree(&mut writer);
    });
}

#[test]
fn replaced_pool_is_part_of_its_successor() {
    block_on(async {
        let metrics = Metrics::new();
        let mut writer = Writer::new(&metrics);
        let (mut old, mut other) = (Pool::new("pool", &metrics.collector), Pool::new("other", &metrics.collector));
        for step in
            [run("both", false), run("old", true), Step::Hold { operation: "b".into(), trace: Trace::default() }]
        {
            old.apply(&step).await;
        }
        old.apply(&Step::Serve { route: "/old".to_owned(), micros: 10, fails: false }).await;
        agree(&mut writer);
        let ended = |writer: &mut Writer| {
            let samples = samples(&writer.ours(Format::Text));
            let is_ended = |name: &str| name == "poolscope_operation_duration_seconds_count";
            let ended = samples.into_iter().filter(|((name, _), _)| is_ended(name));
            ended
                .map(|((_, labels), count)| (labels.into_values().collect::<Vec<_>>().join(" "), count))
                .collect::<Vec<_>>()
        };
        let before = ended(&mut writer);
        let core = poolscope::Pool::new_replacing(old.backend(), old.core(), &Settings::default(), &metrics.collector);
        let new = core.unwrap();
        agree(&mut writer);
        assert_eq!(ended(&mut writer), before);
        for operation in ["both", "new"] {
            new.operation(operation).run(async |_| Ok::<_, ConnectRefused>(())).await.unwrap();
        }
        other.apply(&run("other", false)).await;
        agree(&mut writer);
        let both = ended(&mut writer);
        assert_eq!((both.len(), both.iter().map(|(_, count)| count).sum::<f64>()), (before.len() + 2, 6.0), "{both:?}");
        drop(old);
        agree(&mut writer);
        assert_eq!(ended(&mut writer), both);
    });
}
