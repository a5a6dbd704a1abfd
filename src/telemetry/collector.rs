//! The collector: reads the ledgers of pools when Prometheus scrapes them.

use std::collections::HashMap;
#[cfg(feature = "exporter")]
use std::fmt::Debug;
#[cfg(feature = "exporter")]
use std::sync::OnceLock;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};

use prometheus::core::Desc;
use prometheus::proto;

use super::catalogue::{Kind, METRICS, Metric, POOL_LABEL, Sink, Source};
use super::clock::{seconds, to_f64};
use super::histogram::Histogram;
#[cfg(feature = "exporter")]
use super::history::History;
use super::ledger::{Ledger, PoolSnapshot};
use super::log::{Limiter, event};
use super::owned::BOUNDS_SECONDS;
use super::server::OwnBackends;
use super::{incidents, spans};
use crate::text::{Printable, printable};

/// A set of pools whose metrics are collected together, as a [`prometheus::core::Collector`].
///
/// Pools join [`Collector::global`] unless their builder names another collector. A pool leaves, and its series end,
/// when its last handle and its last connection are dropped. Clones are handles to the same set.
///
/// ```
/// let registry = prometheus::Registry::new();
/// registry.register(Box::new(poolscope::Collector::global()))?;
/// # Ok::<(), prometheus::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Collector {
    ledgers: Arc<Mutex<Vec<Weak<Ledger>>>>,
    /// Kept from the first exporter on.
    #[cfg(feature = "exporter")]
    history: Arc<OnceLock<Arc<History>>>,
    #[cfg(feature = "exporter")]
    observers: Arc<Mutex<Vec<Weak<dyn PoolObserver>>>>,
}

/// Learns of pools that join a collector.
#[cfg(feature = "exporter")]
pub(crate) trait PoolObserver: Debug + Send + Sync {
    /// Called with each pool. One that joins cannot have been sampled yet, and does not know its settings. Must not block,
    /// and must not read the collector.
    fn joined(&self, ledger: &Arc<Ledger>);
}

impl Collector {
    /// Creates a collector without pools.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the collector that pools join by default.
    #[must_use]
    pub fn global() -> Self {
        static GLOBAL: LazyLock<Collector> = LazyLock::new(Collector::new);
        GLOBAL.clone()
    }

    /// Returns a snapshot of each pool, in the order in which they joined. Each snapshot is consistent in itself; the
    /// pools are read one after another.
    #[must_use]
    pub fn snapshots(&self) -> Vec<PoolSnapshot> {
        // The list is not locked while a ledger is read: a pool may join meanwhile.
        let mut ledgers = Vec::new();
        self.ledgers(&mut ledgers);
        ledgers.iter().map(|ledger| ledger.collected_snapshot(true)).collect()
    }

    /// Returns the history of the pools, which begins with the first call.
    #[cfg(feature = "exporter")]
    pub(crate) fn history(&self) -> &Arc<History> {
        self.history.get_or_init(Arc::default)
    }

    /// Adds an observer of the pools that there are and of those that join later, while the caller keeps it.
    #[cfg(feature = "exporter")]
    pub(crate) fn add_pool_observer(&self, observer: &Arc<impl PoolObserver + 'static>) {
        // The list of pools is locked meanwhile, so that each pool is announced once.
        let ledgers = self.lock();
        let present = ledgers.iter().filter_map(Weak::upgrade).filter(|ledger| !ledger.is_replaced());
        present.for_each(|ledger| observer.joined(&ledger));
        let weak = Arc::downgrade(observer);
        let mut observers = self.observers.lock().unwrap_or_else(PoisonError::into_inner);
        observers.retain(|observer| observer.strong_count() > 0);
        observers.push(weak);
    }

    /// Adds a pool to the locked list, and tells the observers before anybody can find it there.
    fn add(&self, ledgers: &mut MutexGuard<'_, Vec<Weak<Ledger>>>, ledger: &Arc<Ledger>) {
        ledgers.push(Arc::downgrade(ledger));
        #[cfg(feature = "exporter")]
        for observer in self.observers.lock().unwrap_or_else(PoisonError::into_inner).iter().filter_map(Weak::upgrade) {
            observer.joined(ledger);
        }
    }

    /// Appends the ledgers of the pools to `ledgers`, in the order in which they joined. A replaced pool is part of its
    /// successor.
    pub(crate) fn ledgers(&self, ledgers: &mut Vec<Arc<Ledger>>) {
        ledgers.extend(self.lock().iter().filter_map(Weak::upgrade).filter(|ledger| !ledger.is_replaced()));
    }

    /// Returns a snapshot of the pool with this name, if there is one.
    #[cfg(feature = "exporter")]
    pub(crate) fn snapshot_of(&self, name: &str) -> Option<PoolSnapshot> {
        let mut ledgers = Vec::new();
        self.ledgers(&mut ledgers);
        ledgers.iter().find(|ledger| **ledger.name() == *name).map(|ledger| ledger.collected_snapshot(true))
    }

    /// Adds the backends that belong to the pools.
    pub(crate) fn add_own_backends(&self, own: &mut OwnBackends) {
        let ledgers: Vec<_> = self.lock().iter().filter_map(Weak::upgrade).collect();
        for ledger in ledgers {
            ledger.add_own_backends(own);
        }
    }

    /// Adds a pool under the name of `replaced`, if that is in this collector and was not replaced before.
    ///
    /// Otherwise adds it under `name`, or under `name-2`, `name-3`… if the name is taken: two pools with the same name
    /// would have series with the same labels, which Prometheus rejects.
    pub(crate) fn join(
        &self,
        name: &str,
        replaced: Option<&Arc<Ledger>>,
        make: impl FnOnce(Arc<str>) -> Ledger,
    ) -> Arc<Ledger> {
        let name = &*printable(name);
        let mut ledgers = self.lock();
        ledgers.retain(|ledger| ledger.strong_count() > 0);
        let is_here =
            |replaced: &&Arc<Ledger>| ledgers.iter().any(|ledger| std::ptr::eq(ledger.as_ptr(), Arc::as_ptr(replaced)));
        if let Some(replaced) = replaced.filter(is_here).filter(|replaced| !replaced.is_replaced()) {
            let ledger = Arc::new(make(Arc::clone(replaced.name())));
            ledger.replace(replaced);
            self.add(&mut ledgers, &ledger);
            return ledger;
        }
        let taken = |name: &str| ledgers.iter().filter_map(Weak::upgrade).any(|ledger| **ledger.name() == *name);
        let mut unique = name.to_owned();
        let mut next = 2;
        while taken(&unique) {
            unique = format!("{name}-{next}");
            next += 1;
        }
        let renamed = unique != name;
        let ledger = Arc::new(make(unique.as_str().into()));
        self.add(&mut ledgers, &ledger);
        drop(ledgers);
        static RENAMES: Limiter = Limiter::new();
        if renamed && let Some(suppressed) = RENAMES.pass_now() {
            event!(
            warn,
                pool = unique,
                wanted = %Printable(name),
                suppressed,
                "pool name is already in use; the metrics of this pool use another name"
            );
        }
        ledger
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Weak<Ledger>>> {
        self.ledgers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl prometheus::core::Collector for Collector {
    fn desc(&self) -> Vec<&Desc> {
        static DESCS: LazyLock<Vec<Desc>> = LazyLock::new(|| {
            METRICS
                .iter()
                .filter(|metric| !matches!(metric.source, Source::Exporter | Source::Binary))
                .filter_map(desc)
                .collect()
        });
        DESCS.iter().collect()
    }

    fn collect(&self) -> Vec<proto::MetricFamily> {
        families(&self.snapshots(), METRICS)
    }
}

/// Returns the metrics of the process itself: its build, and its spans.
#[cfg(feature = "exporter")]
pub(crate) fn process_families() -> Vec<proto::MetricFamily> {
    let process_metrics = METRICS.iter().filter(|metric| !metric.has_pool_label());
    families(&[], process_metrics)
}

/// Returns the families of `metrics` that have samples: a registry refuses a family without.
fn families<'a>(snapshots: &[PoolSnapshot], metrics: impl IntoIterator<Item = &'a Metric>) -> Vec<proto::MetricFamily> {
    let (spans, incidents) = (spans::totals(), incidents::totals());
    let mut families = Vec::with_capacity(METRICS.len());
    for metric in metrics {
        let mut samples = Samples { metric, pool: "", metrics: Vec::new() };
        match metric.source {
            Source::Pool(_) | Source::OwnPool(_) => {
                for snapshot in snapshots {
                    if let Some(read) = metric.reader(snapshot.kind) {
                        samples.pool = &snapshot.name;
                        read(snapshot, &mut samples);
                    }
                }
            }
            Source::Spans(read) => {
                for (destination, totals) in &spans {
                    samples.value(&[destination.as_str()], to_f64(read(totals)));
                }
            }
            Source::Incidents(read) => {
                if let Some(totals) = &incidents {
                    samples.value(&[], to_f64(read(totals)));
                }
            }
            Source::Build => samples.value(&[env!("CARGO_PKG_VERSION")], 1.0),
            Source::Exporter | Source::Binary => {}
        }
        if !samples.metrics.is_empty() {
            families.push(family(metric, samples.metrics));
        }
    }
    families
}

fn desc(metric: &Metric) -> Option<Desc> {
    let pool = metric.has_pool_label().then_some(POOL_LABEL);
    let labels = pool.iter().chain(metric.labels).map(|label| (*label).to_owned()).collect();
    Desc::new(metric.name.to_owned(), metric.help.to_owned(), labels, HashMap::new()).ok()
}

fn family(metric: &Metric, samples: Vec<proto::Metric>) -> proto::MetricFamily {
    let mut family = proto::MetricFamily::default();
    family.set_name(metric.name.to_owned());
    family.set_help(metric.help.to_owned());
    family.set_field_type(match metric.kind {
        Kind::Counter => proto::MetricType::COUNTER,
        Kind::Gauge => proto::MetricType::GAUGE,
        Kind::Histogram => proto::MetricType::HISTOGRAM,
    });
    family.set_metric(samples);
    family
}

/// The samples of one metric, in the data model of the `prometheus` crate.
struct Samples<'a> {
    metric: &'a Metric,
    pool: &'a str,
    metrics: Vec<proto::Metric>,
}

impl Samples<'_> {
    fn labelled(&self, values: &[&str]) -> proto::Metric {
        debug_assert_eq!(values.len(), self.metric.labels.len(), "labels of {}", self.metric.name);
        let pool = self.metric.has_pool_label().then_some((POOL_LABEL, self.pool));
        let own = self.metric.labels.iter().copied().zip(values.iter().copied());
        let pairs = pool.into_iter().chain(own).map(|(name, value)| {
            let mut pair = proto::LabelPair::default();
            pair.set_name(name.to_owned());
            pair.set_value(value.to_owned());
            pair
        });
        proto::Metric::from_label(pairs.collect())
    }
}

impl Sink for Samples<'_> {
    fn value(&mut self, labels: &[&str], value: f64) {
        let mut metric = self.labelled(labels);
        if self.metric.kind == Kind::Counter {
            let mut counter = proto::Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        } else {
            let mut gauge = proto::Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        self.metrics.push(metric);
    }

    fn histogram(&mut self, labels: &[&str], histogram: &Histogram) {
        let mut total = 0;
        let buckets = BOUNDS_SECONDS.iter().zip(histogram.buckets).map(|(bound, count)| {
            total += count;
            let mut bucket = proto::Bucket::default();
            bucket.set_upper_bound(*bound);
            bucket.set_cumulative_count(total);
            bucket
        });
        let mut converted = proto::Histogram::default();
        converted.set_bucket(buckets.collect());
        converted.set_sample_count(histogram.count());
        converted.set_sample_sum(seconds(histogram.sum_nanos));
        let mut metric = self.labelled(labels);
        metric.set_histogram(converted);
        self.metrics.push(metric);
    }
}
