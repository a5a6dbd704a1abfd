//! Other collectors in the registry of a collector of ours, whose names go ill with ours.

use poolscope::Collector;
use poolscope::exporter::Format;
use poolscope::telemetry::catalogue::POOL_LABEL;
use prometheus::core::{Collector as _, Desc};
use prometheus::proto::{LabelPair, MetricFamily};
use prometheus::{Counter, Gauge, Registry};

use super::pages::{Family, samples};
use super::world::{Pool, Step, Trace, Writer, block_on, registry};

/// Announces one thing, and tells another.
struct Liar<F> {
    announced: Gauge,
    told: F,
}

impl<F: Fn() -> Vec<MetricFamily> + Send + Sync> prometheus::core::Collector for Liar<F> {
    fn desc(&self) -> Vec<&Desc> {
        self.announced.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        (self.told)()
    }
}

pub(crate) fn register(registry: &Registry, told: impl Fn() -> Vec<MetricFamily> + Send + Sync + 'static) {
    let announced = Gauge::new("announced", "Something else.").unwrap();
    registry.register(Box::new(Liar { announced, told })).unwrap();
}

/// A family of one sample, 77, under any name.
fn one(counter: bool, name: &'static str, label: (&'static str, &'static str)) -> impl Fn() -> Vec<MetricFamily> {
    move || {
        let mut families = if counter {
            let counter = Counter::new("any", "Another's.").unwrap();
            counter.inc_by(77.0);
            counter.collect()
        } else {
            let gauge = Gauge::new("any", "Another's.").unwrap();
            gauge.set(77.0);
            gauge.collect()
        };
        families[0].set_name(name.to_owned());
        let mut pair = LabelPair::default();
        pair.set_name(label.0.to_owned());
        pair.set_value(label.1.to_owned());
        families[0].mut_metric()[0].set_label(vec![pair]);
        families
    }
}

async fn busy(collector: &Collector) -> Pool {
    let mut pool = Pool::new("ours", collector);
    let operation = || "work".to_owned();
    pool.take(&Step::Refuse { operation: operation() }).await;
    pool.take(&Step::Run { operation: operation(), micros: 10, fails: false, trace: Trace::default() }).await;
    pool
}

fn family<'a>(families: &'a [Family], name: &str) -> &'a Family {
    families.iter().find(|family| family.name == name).unwrap_or_else(|| panic!("no {name}"))
}

#[test]
fn anothers_samples_under_a_name_of_ours_stand_with_ours() {
    block_on(async {
        let (registry, collector) = registry();
        register(&registry, one(false, "db_client_connection_max", (POOL_LABEL, "another's")));
        let _pool = busy(&collector).await;
        let mut writer = Writer::new(&registry);
        for format in [Format::Text, Format::OpenMetrics] {
            let written = writer.ours(format);
            let values: Vec<_> =
                family(&written, "db_client_connection_max").samples.iter().map(|sample| sample.value).collect();
            assert_eq!(values, [2.0, 77.0], "{format:?}");
        }
        assert_eq!(samples(&writer.ours(Format::Text)), samples(&writer.theirs()));
    });
}

#[test]
fn a_name_of_ours_that_another_gives_a_different_type_stays_ours() {
    block_on(async {
        let (registry, collector) = registry();
        register(&registry, one(true, "db_client_connection_max", (POOL_LABEL, "another's")));
        let pool = busy(&collector).await;
        let mut writer = Writer::new(&registry);
        for format in [Format::Text, Format::OpenMetrics] {
            let written = writer.ours(format);
            let ours = family(&written, "db_client_connection_max");
            assert_eq!((ours.kind.as_str(), ours.samples.len(), ours.samples[0].value), ("gauge", 1, 2.0));
        }
        // Without a pool there is nothing that it goes ill with.
        drop(pool);
        let written = writer.ours(Format::Text);
        let theirs = family(&written, "db_client_connection_max");
        assert_eq!((theirs.kind.as_str(), theirs.samples[0].value), ("counter", 77.0));
    });
}

#[test]
fn a_counter_keeps_its_whole_name_where_another_has_the_shorter_one() {
    block_on(async {
        let (registry, collector) = registry();
        register(&registry, one(false, "poolscope_retries", ("of", "another's")));
        let _pool = busy(&collector).await;
        let mut writer = Writer::new(&registry);
        let written = writer.ours(Format::OpenMetrics);
        assert_eq!(family(&written, "poolscope_retries").kind, "gauge");
        let ours = family(&written, "poolscope_retries_total");
        assert_eq!((ours.kind.as_str(), ours.samples[0].value), ("unknown", 1.0));
        // All others are what they are.
        assert_eq!(family(&written, "poolscope_checkouts_started").kind, "counter");
        assert_eq!(samples(&written), samples(&writer.ours(Format::Text)));
    });
}

#[test]
fn a_registry_with_a_prefix_and_labels_of_its_own_is_written_with_them() {
    block_on(async {
        let labels = std::collections::HashMap::from([("zone".to_owned(), "a\"b".to_owned())]);
        let registry = Registry::new_custom(Some("shop".to_owned()), Some(labels)).unwrap();
        let collector = Collector::new();
        registry.register(Box::new(collector.clone())).unwrap();
        let _pool = busy(&collector).await;
        let mut writer = Writer::new(&registry);
        let text = samples(&writer.ours(Format::Text));
        assert_eq!(text, samples(&writer.theirs()));
        assert_eq!(text, samples(&writer.ours(Format::OpenMetrics)));
        assert!(text.keys().any(|(name, _)| name == "shop_poolscope_checkouts_total"));
        assert!(text.keys().all(|(_, labels)| labels["zone"] == "a\"b"));
    });
}

#[test]
fn pools_that_two_collectors_show_are_written_once() {
    block_on(async {
        let (registry, collector) = registry();
        let again = collector.clone();
        register(&registry, move || again.collect());
        let _pool = busy(&collector).await;
        let mut writer = Writer::new(&registry);
        let written = writer.page(Format::Text);
        let lines = written.lines().filter(|line| line.starts_with("db_client_connection_max{"));
        assert_eq!(lines.count(), 1);
    });
}
