//! Pushes the metrics of the catalogue to a collector.
//!
//! The SDK of OpenTelemetry aggregates measurements itself: it takes no histogram that exists already, and its data types
//! have no public constructors. The requests are therefore built here, from the same catalogue as the page for Prometheus.

mod encode;
mod names;
mod send;
#[cfg(test)]
mod tests;

use std::fmt;
use std::time::{Duration, SystemTime};

use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout, timeout_at};

use self::encode::request;
use self::send::Sender;
use super::error::OtlpError;
use super::settings::Settings;
use crate::telemetry::Collector;
use crate::telemetry::clock::{Clock, Nanos};
use crate::telemetry::log::ConditionLimiter;
use crate::text::Printable;

/// Pushes the metrics of a [`Collector`] to an OpenTelemetry collector, at the interval
/// [`delay`](Settings::delay) (60 s with [`Settings::metrics_from_env`]).
///
/// The metrics are those of the [catalogue](crate::telemetry::catalogue), except those of the HTTP exporter. Metrics that
/// OpenTelemetry's semantic conventions define have their names there, such as `db.client.connection.wait_time`; the
/// others keep the catalogue's. A collector that translates to Prometheus' names yields the catalogue's for all. Sums and
/// histograms are cumulative since the creation of their pool, so that a lost export loses nothing but resolution.
///
/// Dropping it ends the exports; [`shutdown`](Self::shutdown) exports once more.
///
/// ```no_run
/// use std::time::Duration;
///
/// use poolscope::Collector;
/// use poolscope::otlp::{MetricsExport, Settings};
///
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let metrics = MetricsExport::start(&Settings::metrics_from_env("shop")?, Collector::global())?;
/// // … the service …
/// metrics.shutdown(Duration::from_secs(5)).await;
/// # Ok(())
/// # }
/// ```
pub struct MetricsExport {
    /// Receives the deadline of the last export. Its sender's drop ends the thread at once.
    stop: watch::Sender<Option<Instant>>,
    ended: Option<oneshot::Receiver<()>>,
}

impl MetricsExport {
    /// Starts a thread that exports, if the settings have an endpoint and are not disabled. It connects when it first
    /// exports. The first failure is logged, and so is the next success. A collector that fails again and again is logged at
    /// growing intervals.
    ///
    /// # Errors
    ///
    /// Returns an error if the endpoint is invalid, or the thread cannot be started.
    pub fn start(settings: &Settings, collector: Collector) -> Result<Self, OtlpError> {
        let (stop, stopped) = watch::channel(None);
        let Some(endpoint) = settings.endpoint.as_deref().filter(|_| !settings.disabled) else {
            return Ok(Self { stop, ended: None });
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(OtlpError::Thread)?;
        let created = {
            let _entered = runtime.enter();
            Sender::new(settings, endpoint)
        };
        let sender = match created {
            Ok(sender) => sender,
            Err(problem) => {
                // Dropping the runtime could block, which an asynchronous caller must not.
                runtime.shutdown_background();
                return Err(OtlpError::Exporter(problem));
            }
        };
        let export = Export { sender, collector, settings: settings.clone(), failures: ConditionLimiter::default() };
        let (ended, when_ended) = oneshot::channel();
        std::thread::Builder::new()
            .name("poolscope-metrics".to_owned())
            .spawn(move || {
                runtime.block_on(export.run(stopped));
                drop(ended);
            })
            .map_err(OtlpError::Thread)?;
        Ok(Self { stop, ended: Some(when_ended) })
    }

    /// Exports once more, and ends `within` this time.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the last export continues in the background.
    pub async fn shutdown(mut self, within: Duration) {
        self.stop.send_replace(Some(Instant::now() + within));
        if let Some(ended) = self.ended.take() {
            // The sender is dropped when the thread has ended.
            let _ = timeout(within, ended).await;
        }
    }
}

impl fmt::Debug for MetricsExport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetricsExport").field("active", &self.ended.is_some()).finish_non_exhaustive()
    }
}

/// What the thread exports, and where to.
struct Export {
    sender: Sender,
    collector: Collector,
    settings: Settings,
    failures: ConditionLimiter,
}

impl Export {
    async fn run(mut self, mut stop: watch::Receiver<Option<Instant>>) {
        let every = self.settings.delay.max(Duration::from_millis(1));
        let mut due = interval_at(Instant::now() + every, every);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                changed = stop.changed() => {
                    let deadline = *stop.borrow();
                    if let (Ok(()), Some(deadline)) = (changed, deadline) {
                        let _ = timeout_at(deadline, self.export()).await;
                    }
                    return;
                }
                _ = due.tick() => {}
            }
            // An export that is under way when the export ends is abandoned: the last one has all of its values.
            let mut stopping = stop.clone();
            tokio::select! {
                biased;
                _ = stopping.changed() => {}
                () = self.export() => {}
            }
        }
    }

    async fn export(&mut self) {
        let request = request(&self.collector, &self.settings, SystemTime::now());
        let result = timeout(self.settings.timeout, self.sender.send(request)).await;
        let problem = match result {
            Ok(Ok(None)) => None,
            Ok(Ok(Some(rejected))) => Some(rejected),
            Ok(Err(problem)) => Some(problem),
            Err(_) => Some(format!("no answer within {}", humantime::format_duration(self.settings.timeout))),
        };
        let destination = self.settings.destination().unwrap_or_default();
        log(&self.failures, Clock::new().now(), &destination, problem.as_deref());
    }
}

/// Logs how an export ended, if that is a change and the limiter passes it.
fn log(failures: &ConditionLimiter, now: Nanos, destination: &str, problem: Option<&str>) {
    match problem {
        Some(problem) => {
            if let Some(suppressed) = failures.holds(now) {
                tracing::warn!(destination, problem = %Printable(problem), suppressed, "exporting metrics failed");
            }
        }
        None if failures.ended() => tracing::info!(destination, "exporting metrics succeeded again"),
        None => {}
    }
}
