//! Our text has the samples of the `prometheus` crate's encoder, and our OpenMetrics has those of our text, whatever
//! pools do and whatever their names are.

use std::collections::BTreeMap;

use poolscope::exporter::Format;
use poolscope::telemetry::catalogue::METRICS;
use prometheus::{CounterVec, GaugeVec, HistogramOpts, HistogramVec, Opts};
use proptest::prelude::*;

use super::fixtures::{Metrics, Pool, Step, Trace, Writer, block_on};
use super::pages::{Family, Series, samples};

/// Quotes, escapes, line ends, and any other characters.
fn hostile() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => "[\"\\\\\n\r\t{},=# le\u{0}\u{7f}\u{2028}é🦀]{0,12}",
        1 => any::<String>(),
        1 => "[a-z_]{1,130}",
    ]
}

fn trace() -> impl Strategy<Value = Trace> {
    (any::<u8>(), any::<bool>()).prop_map(|(number, sampled)| Trace { number, sampled })
}

fn micros() -> impl Strategy<Value = u32> {
    prop_oneof![Just(0), 1..1000u32, 1..40_000_000u32]
}

fn step() -> impl Strategy<Value = Step> {
    // Few are frequent, some occur once.
    let operation = || prop_oneof![2 => "[\"ab]{0,2}", 1 => hostile()];
    prop_oneof![
        6 => (operation(), micros(), any::<bool>(), trace())
            .prop_map(|(operation, micros, fails, trace)| Step::Run { operation, micros, fails, trace }),
        2 => (operation(), trace()).prop_map(|(operation, trace)| Step::Hold { operation, trace }),
        2 => Just(Step::Return),
        1 => operation().prop_map(|operation| Step::Refuse { operation }),
        2 => micros().prop_map(|micros| Step::Wait { micros }),
        2 => (operation(), micros(), any::<bool>()).prop_map(|(route, micros, fails)| Step::Serve { route, micros, fails }),
    ]
}

/// The name of a pool, and its steps before each page.
type Plan = (String, Vec<Vec<Step>>);

fn plans() -> impl Strategy<Value = Vec<Plan>> {
    let steps = prop::collection::vec(prop::collection::vec(step(), 0..12), 0..4);
    // Pools of one name get different ones.
    let name =
        prop_oneof![hostile().prop_filter("a pool has a name", |name| !name.is_empty()), Just("twice".to_owned())];
    prop::collection::vec((name, steps), 0..4)
}

/// The content of other collectors: labels, and values.
#[derive(Clone, Debug)]
struct Foreign {
    help: String,
    values: Vec<(String, f64)>,
}

fn foreign() -> impl Strategy<Value = Foreign> {
    let value = prop_oneof![any::<f64>(), (0..100u32).prop_map(f64::from), Just(f64::INFINITY), Just(f64::NAN)];
    let values = prop::collection::vec((hostile(), value), 0..5);
    (hostile(), values).prop_map(|(help, values)| Foreign { help, values })
}

impl Foreign {
    fn register(&self, metrics: &Metrics) {
        // The crate requires a help text.
        let help = format!("H{}", self.help);
        let counter = CounterVec::new(Opts::new("shop_orders_total", &help), &["of"]).unwrap();
        let odd = CounterVec::new(Opts::new("shop_odd", &help), &["of"]).unwrap();
        let gauge = GaugeVec::new(Opts::new("shop_stock_bytes", &help), &["of"]).unwrap();
        let bounds = vec![-1.0, 0.5, 2.0, 1e9];
        let histogram = HistogramVec::new(HistogramOpts::new("shop_price", &help).buckets(bounds), &["of"]).unwrap();
        for (label, value) in &self.values {
            gauge.with_label_values(&[label]).set(*value);
            if value.is_finite() {
                histogram.with_label_values(&[label]).observe(*value);
                counter.with_label_values(&[label]).inc_by(value.abs());
                odd.with_label_values(&[label]).inc_by(value.abs());
            }
        }
        metrics.register(counter);
        metrics.register(odd);
        metrics.register(gauge);
        metrics.register(histogram);
    }
}

/// Returns the samples with comparable values: NaN is not equal to itself.
fn bits(families: &[Family]) -> BTreeMap<Series, u64> {
    let bits = |value: f64| if value.is_nan() { f64::NAN.to_bits() } else { (value + 0.0).to_bits() };
    samples(families).into_iter().map(|(series, value)| (series, bits(value))).collect()
}

/// Returns the type and the help of each family.
fn declared(families: &[Family]) -> BTreeMap<&str, (&str, Option<&str>)> {
    let declared = families.iter().map(|family| (&*family.name, (&*family.kind, family.help.as_deref())));
    declared.collect()
}

fn agree(writer: &mut Writer) -> Result<(), TestCaseError> {
    let theirs = writer.theirs();
    let text = writer.ours(Format::Text);
    prop_assert_eq!(declared(&text), declared(&theirs));
    prop_assert_eq!(bits(&text), bits(&theirs));
    let open_metrics = writer.ours(Format::OpenMetrics);
    prop_assert_eq!(bits(&open_metrics), bits(&text));
    for family in &open_metrics {
        let named = text.iter().find(|other| {
            other.name == family.name || (family.kind == "counter" && other.name == format!("{}_total", family.name))
        });
        let named = named.unwrap();
        let kind = if family.kind == "unknown" { "counter" } else { &family.kind };
        prop_assert_eq!((kind, &family.help), (named.kind.as_str(), &named.help));
        prop_assert!(family.kind != "unknown" || family.name == "shop_odd");
        for unit in ["seconds", "bytes"] {
            let is_unit = family.name.ends_with(&format!("_{unit}"));
            prop_assert_eq!(is_unit, family.unit.as_deref() == Some(unit), "{}", &family.name);
        }
    }
    Ok(())
}

/// Runs as many cases as `PROPTEST_CASES`, or 80.
fn config() -> ProptestConfig {
    let mut config = ProptestConfig::default();
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = 80;
    }
    // A failing case deserves a test of its own.
    config.failure_persistence = None;
    config
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn both_formats_agree_with_the_prometheus_crate(plans in plans(), others in prop::option::of(foreign())) {
        block_on(async {
            let metrics = Metrics::new();
            if let Some(others) = &others {
                others.register(&metrics);
            }
            let mut writer = Writer::new(&metrics);
            let mut pools: Vec<_> = plans.iter().map(|(name, steps)| (Pool::new(name, &metrics.collector), steps)).collect();
            agree(&mut writer)?;
            for round in 0..4 {
                for (pool, rounds) in &mut pools {
                    for step in rounds.get(round).into_iter().flatten() {
                        pool.apply(step).await;
                    }
                }
                agree(&mut writer)?;
                // A pool leaves with its series, and the next one takes its place.
                if !pools.is_empty() && round % 2 == 1 {
                    pools.remove(0);
                    agree(&mut writer)?;
                }
            }
            Ok::<_, TestCaseError>(())
        })?;
    }
}

#[test]
fn more_operations_than_the_limit_agree() {
    block_on(async {
        let metrics = Metrics::new();
        let mut writer = Writer::new(&metrics);
        let mut pool = Pool::new("of many", &metrics.collector);
        for number in 0..210 {
            let step = Step::Run {
                operation: format!("operation {number}"),
                micros: number,
                fails: false,
                trace: Trace::default(),
            };
            pool.apply(&step).await;
            if number % 50 == 9 {
                agree(&mut writer).unwrap();
            }
        }
        agree(&mut writer).unwrap();
        let started = samples(&writer.ours(Format::Text));
        let started = started.keys().filter(|(name, _)| name == "poolscope_checkouts_started_total").count();
        assert_eq!(started, 201, "200, and all others");
    });
}

/// The comparison covers every metric that needs no server.
#[test]
fn busy_pool_has_every_metric() {
    block_on(async {
        let metrics = Metrics::new();
        let mut writer = Writer::new(&metrics);
        let mut pool = Pool::new("busy", &metrics.collector);
        let operation = || "work".to_owned();
        let trace = Trace { number: 1, sampled: true };
        for step in [
            Step::Refuse { operation: operation() },
            Step::Run { operation: operation(), micros: 1500, fails: false, trace },
            Step::Hold { operation: operation(), trace },
            Step::Hold { operation: operation(), trace },
            Step::Hold { operation: operation(), trace },
            Step::Wait { micros: 7 },
            Step::Serve { route: operation(), micros: 3, fails: true },
            Step::Return,
        ] {
            pool.apply(&step).await;
        }
        agree(&mut writer).unwrap();
        let written = writer.ours(Format::Text);
        let missing: Vec<_> = METRICS
            .iter()
            .map(|metric| metric.name)
            .filter(|name| !written.iter().any(|family| family.name == *name))
            .collect();
        // Those of a server's responses, of caches, of connections outside a pool, of exported spans, of longer
        // observation, and the exporter's and the binary's.
        let needs_more = |name: &&str| {
            let prefixes = [
                "db_client_operation_",
                "poolscope_cache_",
                "poolscope_dirty_",
                "poolscope_incident_",
                "poolscope_log_lines_lost_total",
                "poolscope_redis_",
                "poolscope_scrape",
                "poolscope_server_",
                "poolscope_spans_",
                "poolscope_unpooled_",
            ];
            prefixes.iter().any(|prefix| name.starts_with(prefix))
                || [
                    "poolscope_diagnosis_evidence_usual",
                    "poolscope_recommended_size",
                    "poolscope_retry_recovered_total",
                    "poolscope_query_errors_total",
                    "poolscope_self_deadlocks_total",
                ]
                .contains(name)
        };
        assert_eq!(missing.iter().filter(|name| !needs_more(name)).collect::<Vec<_>>(), Vec::<&&str>::new());
    });
}
