//! The baseline: a simple wrapper that records the usual metrics and spans with the usual crates.
//!
//! The wrapper is carefully written, with bounded labels and without a lock of its own. At each checkout it looks up
//! its labels, reads the clock three times, makes a span, and copies the labels for the guard.

use std::ops::Deref;
use std::time::Instant;

use deadpool::managed::{Manager, Object, Pool, PoolError};
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts};
use tracing::Instrument;

/// The metrics, which can be cloned.
#[derive(Clone)]
struct Metrics {
    checkouts: IntCounterVec,
    wait: HistogramVec,
    usage: HistogramVec,
    in_use: IntGaugeVec,
}

impl Metrics {
    fn new() -> Result<Self, prometheus::Error> {
        let buckets = poolscope::telemetry::BOUNDS_SECONDS.to_vec();
        let histogram = |name: &str, help: &str| {
            HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.clone()), &["pool", "operation"])
        };
        Ok(Self {
            checkouts: IntCounterVec::new(
                Opts::new("checkouts_total", "Checkouts by outcome."),
                &["pool", "operation", "outcome"],
            )?,
            wait: histogram("wait_seconds", "Duration of checkouts.")?,
            usage: histogram("use_seconds", "Duration of use.")?,
            in_use: IntGaugeVec::new(Opts::new("in_use", "Connections in use."), &["pool"])?,
        })
    }
}

/// A pool that records metrics.
pub(crate) struct MetricsWrapper<M: Manager> {
    pool: Pool<M>,
    name: String,
    metrics: Metrics,
}

impl<M: Manager> Clone for MetricsWrapper<M> {
    fn clone(&self) -> Self {
        Self { pool: self.pool.clone(), name: self.name.clone(), metrics: self.metrics.clone() }
    }
}

impl<M: Manager> MetricsWrapper<M> {
    pub(crate) fn new(name: &str, pool: Pool<M>) -> Result<Self, prometheus::Error> {
        Ok(Self { pool, name: name.to_owned(), metrics: Metrics::new()? })
    }

    pub(crate) async fn get(&self, operation: &str) -> Result<MetricsGuard<M>, PoolError<M::Error>> {
        let span = tracing::info_span!("checkout", pool = %self.name, operation);
        let started = Instant::now();
        let result = self.pool.get().instrument(span).await;
        let acquired = Instant::now();
        let outcome = match &result {
            Ok(_) => "ok",
            Err(PoolError::Timeout(_)) => "timeout",
            Err(_) => "error",
        };
        self.metrics.checkouts.with_label_values(&[self.name.as_str(), operation, outcome]).inc();
        self.metrics
            .wait
            .with_label_values(&[self.name.as_str(), operation])
            .observe((acquired - started).as_secs_f64());
        let object = result?;
        self.metrics.in_use.with_label_values(&[&self.name]).inc();
        Ok(MetricsGuard {
            object,
            name: self.name.clone(),
            operation: operation.to_owned(),
            metrics: self.metrics.clone(),
            since: acquired,
        })
    }
}

/// A connection from a [`MetricsWrapper`] pool.
pub(crate) struct MetricsGuard<M: Manager> {
    object: Object<M>,
    name: String,
    operation: String,
    metrics: Metrics,
    since: Instant,
}

impl<M: Manager> Deref for MetricsGuard<M> {
    type Target = M::Type;

    fn deref(&self) -> &M::Type {
        &self.object
    }
}

impl<M: Manager> Drop for MetricsGuard<M> {
    fn drop(&mut self) {
        let labels = [&self.name, &self.operation];
        self.metrics.usage.with_label_values(&labels).observe(self.since.elapsed().as_secs_f64());
        self.metrics.in_use.with_label_values(&[&self.name]).dec();
    }
}
