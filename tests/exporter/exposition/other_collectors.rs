//! Other collectors whose names conflict with ours.

use std::sync::Arc;

use poolscope::Collector;
use poolscope::exporter::{Exposition, Format, Page};
use poolscope::telemetry::catalogue::POOL_LABEL;
use prometheus::core::{Collector as _, Desc};
use prometheus::proto::{LabelPair, MetricFamily};
use prometheus::{Counter, Gauge, Registry};

use super::fixtures::{Metrics, Pool, Step, Trace, Writer, block_on, gathered};
use super::pages::{Family, read, samples};

/// A collector that describes one metric, and returns others.
#[derive(Clone)]
struct Foreign {
    described: Gauge,
    families: Arc<dyn Fn() -> Vec<MetricFamily> + Send + Sync>,
}

impl prometheus::core::Collector for Foreign {
    fn desc(&self) -> Vec<&Desc> {
        self.described.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        (self.families)()
    }
}

fn register(metrics: &Metrics, families: impl Fn() -> Vec<MetricFamily> + Send + Sync + 'static) {
    let described = Gauge::new("described", "Something else.").unwrap();
    metrics.register(Foreign { described, families: Arc::new(families) });
}

/// Returns a family of one sample, 77.
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
    pool.apply(&Step::Refuse { operation: operation() }).await;
    pool.apply(&Step::Run { operation: operation(), micros: 10, fails: false, trace: Trace::default() }).await;
    pool
}

fn family<'a>(families: &'a [Family], name: &str) -> &'a Family {
    families.iter().find(|family| family.name == name).unwrap_or_else(|| panic!("no {name}"))
}

#[test]
fn foreign_samples_join_a_family_of_ours() {
    block_on(async {
        let metrics = Metrics::new();
        register(&metrics, one(false, "db_client_connection_max", (POOL_LABEL, "another's")));
        let _pool = busy(&metrics.collector).await;
        let mut writer = Writer::new(&metrics);
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
fn foreign_type_of_a_family_of_ours_is_left_out() {
    block_on(async {
        let metrics = Metrics::new();
        register(&metrics, one(true, "db_client_connection_max", (POOL_LABEL, "another's")));
        let pool = busy(&metrics.collector).await;
        let mut writer = Writer::new(&metrics);
        for format in [Format::Text, Format::OpenMetrics] {
            let written = read(format, &writer.page_of_others(format));
            let ours = family(&written, "db_client_connection_max");
            assert_eq!((ours.kind.as_str(), ours.samples.len(), ours.samples[0].value), ("gauge", 1, 2.0));
        }
        // Without a pool there is no conflict.
        drop(pool);
        let written = read(Format::Text, &writer.page_of_others(Format::Text));
        let theirs = family(&written, "db_client_connection_max");
        assert_eq!((theirs.kind.as_str(), theirs.samples[0].value), ("counter", 77.0));
    });
}

#[test]
fn counter_keeps_its_name_if_the_short_one_is_taken() {
    block_on(async {
        let metrics = Metrics::new();
        register(&metrics, one(false, "poolscope_retries", ("of", "another's")));
        let _pool = busy(&metrics.collector).await;
        let mut writer = Writer::new(&metrics);
        let written = writer.ours(Format::OpenMetrics);
        assert_eq!(family(&written, "poolscope_retries").kind, "gauge");
        let ours = family(&written, "poolscope_retries_total");
        assert_eq!((ours.kind.as_str(), ours.samples[0].value), ("unknown", 1.0));
        // All others have their types.
        assert_eq!(family(&written, "poolscope_checkouts_started").kind, "counter");
        assert_eq!(samples(&written), samples(&writer.ours(Format::Text)));
    });
}

#[test]
fn registry_with_prefix_and_labels_is_gathered() {
    block_on(async {
        let labels = std::collections::HashMap::from([("zone".to_owned(), "a\"b".to_owned())]);
        let registry = Registry::new_custom(Some("shop".to_owned()), Some(labels)).unwrap();
        let collector = Collector::new();
        registry.register(Box::new(collector.clone())).unwrap();
        let _pool = busy(&collector).await;
        let (mut exposition, mut page) = (Exposition::new(collector).registry(registry.clone()), Page::new());
        let mut ours = |format| {
            exposition.write(format, &mut page).unwrap();
            samples(&read(format, &page.to_text()))
        };
        let text = ours(Format::Text);
        assert_eq!(text, samples(&gathered(&registry)));
        assert_eq!(text, ours(Format::OpenMetrics));
        assert!(text.keys().any(|(name, _)| name == "shop_poolscope_checkouts_total"));
        assert!(text.keys().all(|(_, labels)| labels["zone"] == "a\"b"));
    });
}

#[test]
fn pools_of_another_collector_are_written_once() {
    block_on(async {
        let metrics = Metrics::new();
        let again = metrics.collector.clone();
        register(&metrics, move || again.collect());
        let _pool = busy(&metrics.collector).await;
        let mut writer = Writer::new(&metrics);
        let written = writer.page_of_others(Format::Text);
        let lines = written.lines().filter(|line| line.starts_with("db_client_connection_max{"));
        assert_eq!(lines.count(), 1);
    });
}

/// Without labels of its own, a registry that contains another collector shows the pools of both.
#[test]
fn pools_of_another_registered_collector_are_added() {
    block_on(async {
        let metrics = Metrics::new();
        let other = Collector::new();
        let _pool = busy(&metrics.collector).await;
        let _other = Pool::new("theirs", &other);
        metrics.others.register(Box::new(other)).unwrap();
        let written = read(Format::Text, &Writer::new(&metrics).page_of_others(Format::Text));
        let pools: Vec<_> = family(&written, "db_client_connection_max")
            .samples
            .iter()
            .map(|sample| sample.labels[POOL_LABEL].as_str())
            .collect();
        assert_eq!(pools, ["ours", "theirs"]);
        assert_eq!(family(&written, "poolscope_build_info").samples.len(), 1);
    });
}
