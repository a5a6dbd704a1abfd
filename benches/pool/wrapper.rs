//! The wrapper that one writes in an hour: everything one wants to know, asked of the usual crates in the usual way.
//!
//! It is meant to be good code of its kind, with bounded labels and no lock of its own. What it does at each checkout:
//! looks its labels up, reads the clock three times, makes a span, copies the labels for the guard.

use std::ops::Deref;
use std::time::Instant;

use deadpool::managed::{Manager, Object, Pool, PoolError};
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts};
use tracing::Instrument;

/// The metrics, as one keeps them in a struct that clones.
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
            wait: histogram("wait_seconds", "How long checkouts took.")?,
            usage: histogram("use_seconds", "How long connections were held.")?,
            in_use: IntGaugeVec::new(Opts::new("in_use", "Connections that are out."), &["pool"])?,
        })
    }
}

/// A pool that counts, the straightforward way.
pub(crate) struct Naive<M: Manager> {
    pool: Pool<M>,
    name: String,
    metrics: Metrics,
}

impl<M: Manager> Clone for Naive<M> {
    fn clone(&self) -> Self {
        Self { pool: self.pool.clone(), name: self.name.clone(), metrics: self.metrics.clone() }
    }
}

impl<M: Manager> Naive<M> {
    pub(crate) fn new(name: &str, pool: Pool<M>) -> Result<Self, prometheus::Error> {
        Ok(Self { pool, name: name.to_owned(), metrics: Metrics::new()? })
    }

    pub(crate) async fn get(&self, operation: &str) -> Result<NaiveGuard<M>, PoolError<M::Error>> {
        let span = tracing::info_span!("checkout", pool = %self.name, operation);
        let asked = Instant::now();
        let result = self.pool.get().instrument(span).await;
        let got = Instant::now();
        let outcome = match &result {
            Ok(_) => "ok",
            Err(PoolError::Timeout(_)) => "timeout",
            Err(_) => "error",
        };
        self.metrics.checkouts.with_label_values(&[self.name.as_str(), operation, outcome]).inc();
        self.metrics.wait.with_label_values(&[self.name.as_str(), operation]).observe((got - asked).as_secs_f64());
        let object = result?;
        self.metrics.in_use.with_label_values(&[&self.name]).inc();
        Ok(NaiveGuard {
            object,
            name: self.name.clone(),
            operation: operation.to_owned(),
            metrics: self.metrics.clone(),
            since: got,
        })
    }
}

/// A connection from a [`Naive`] pool.
pub(crate) struct NaiveGuard<M: Manager> {
    object: Object<M>,
    name: String,
    operation: String,
    metrics: Metrics,
    since: Instant,
}

impl<M: Manager> Deref for NaiveGuard<M> {
    type Target = M::Type;

    fn deref(&self) -> &M::Type {
        &self.object
    }
}

impl<M: Manager> Drop for NaiveGuard<M> {
    fn drop(&mut self) {
        let labels = [&self.name, &self.operation];
        self.metrics.usage.with_label_values(&labels).observe(self.since.elapsed().as_secs_f64());
        self.metrics.in_use.with_label_values(&[&self.name]).dec();
    }
}
