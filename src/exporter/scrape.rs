//! Gathers and writes the registry, off the runtime's workers, a few at a time.

use std::sync::Arc;
use std::time::Instant;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, Opts, Registry};
use tokio::task::spawn_blocking;

use super::exposition::Exposition;
use super::gzip::Press;
use super::limits::Limits;
use super::negotiation::Wish;
use super::stock::{Lent, Stock};
use super::turns::{Turns, Undone};
use super::{ExporterError, Page};
use crate::telemetry::BOUNDS_SECONDS;
use crate::telemetry::catalogue::{SCRAPE_DURATION, SCRAPES};

/// A complaint may quote what a collector gave, at length.
const MAX_COMPLAINT_CHARS: usize = 200;

/// Why a scrape has no metrics to show.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ScrapeError {
    /// They could not be gathered. If a collector panicked, what it said is in the log.
    Undone(Undone),
    /// The metrics cannot be written.
    Encoding(String),
}

impl ScrapeError {
    fn outcome(&self) -> Outcome {
        match self {
            Self::Undone(Undone::Busy { .. } | Undone::Stopping) => Outcome::Unavailable,
            Self::Undone(Undone::Panicked(_)) | Self::Encoding(_) => Outcome::Failed,
        }
    }
}

/// How a scrape ended.
#[derive(Clone, Copy, Debug)]
enum Outcome {
    Served,
    Failed,
    Unavailable,
    Abandoned,
    /// Whoever asked is not one of those who may.
    Refused,
}

impl Outcome {
    const ALL: [Self; 5] = [Self::Served, Self::Failed, Self::Unavailable, Self::Abandoned, Self::Refused];

    /// The HTTP status. One that was abandoned has none of its own; 499 is nginx's.
    const fn code(self) -> &'static str {
        match self {
            Self::Served => "200",
            Self::Failed => "500",
            Self::Unavailable => "503",
            Self::Abandoned => "499",
            Self::Refused => "401",
        }
    }
}

/// A registry, and the turns there are to gather it.
#[derive(Debug)]
pub(super) struct Scraper {
    registry: Registry,
    turns: Turns,
    metrics: ScrapeMetrics,
    tools: Tools,
}

/// What scrapes write with, and leave to those that come after.
#[derive(Clone, Debug)]
struct Tools {
    expositions: Stock<Exposition>,
    pages: Stock<Page>,
    presses: Stock<Press>,
}

impl Tools {
    fn new(most: usize) -> Self {
        Self { expositions: Stock::new(most), pages: Stock::new(most), presses: Stock::new(most) }
    }

    /// Writes the registry. What panics or fails is not used again.
    fn write(&self, registry: &Registry, wish: Wish) -> Result<Lent, String> {
        let mut exposition = self.expositions.take(|| Exposition::new(registry.clone()));
        let mut page = Lent::new(&self.pages);
        exposition.write(wish.format, page.page()).map_err(|error| error.to_string())?;
        self.expositions.put(exposition);
        if !wish.gzip {
            return Ok(page);
        }
        let mut press = self.presses.take(Press::new);
        let mut pressed = Lent::new(&self.pages);
        press.press(page.page(), pressed.page()).map_err(|error| error.to_string())?;
        self.presses.put(press);
        Ok(pressed)
    }
}

impl Scraper {
    /// Registers the exporter's own metrics, and the process metrics unless they are there.
    pub(super) async fn register(registry: Registry, limits: &Limits) -> Result<Arc<Self>, ExporterError> {
        let scraper = Arc::new(Self {
            registry,
            turns: Turns::new(limits.scrapes, limits.turn_wait),
            metrics: ScrapeMetrics::new().map_err(|source| ExporterError::Register { source })?,
            tools: Tools::new(limits.scrapes),
        });
        // The registry's lock is held for as long as it is being gathered elsewhere.
        let registering = Arc::clone(&scraper);
        let registered = spawn_blocking(move || {
            let Self { registry, metrics, .. } = &*registering;
            registry.register(Box::new(metrics.clone()))?;
            register_process_metrics(registry);
            Ok(())
        })
        .await
        .unwrap_or_else(|error| Err(prometheus::Error::Msg(error.to_string())));
        match registered {
            Ok(()) => Ok(scraper),
            Err(source) => Err(ExporterError::Register { source }),
        }
    }

    /// Counts a scrape by somebody who may not ask. It took no time worth telling.
    #[cfg(feature = "web-config")]
    pub(super) fn refused(&self) {
        self.metrics.by_outcome[Outcome::Refused as usize].inc();
    }

    /// The registry as it is wished for, once it is this scrape's turn.
    ///
    /// # Cancel safety
    ///
    /// A scrape that is dropped counts as abandoned. Gathering that has begun goes on to its end,
    /// and keeps its turn until then.
    pub(super) async fn scrape(&self, wish: Wish) -> Result<Lent, ScrapeError> {
        let mut ending = Ending::new(&self.metrics);
        let scraped = self.gather(wish).await;
        ending.outcome = match &scraped {
            Ok(_) => Outcome::Served,
            Err(error) => error.outcome(),
        };
        scraped
    }

    async fn gather(&self, wish: Wish) -> Result<Lent, ScrapeError> {
        let (registry, tools) = (self.registry.clone(), self.tools.clone());
        let written = self.turns.take(move || tools.write(&registry, wish)).await;
        match written {
            Ok(Ok(page)) => Ok(page),
            Ok(Err(complaint)) => {
                let complaint: String = complaint.chars().take(MAX_COMPLAINT_CHARS).collect();
                tracing::error!(error = complaint, "the metrics cannot be written");
                Err(ScrapeError::Encoding(complaint))
            }
            Err(undone) => {
                if let Undone::Panicked(message) = &undone {
                    tracing::error!(panic = message, "a collector panicked while the metrics were gathered");
                }
                Err(ScrapeError::Undone(undone))
            }
        }
    }
}

#[cfg(target_os = "linux")]
fn register_process_metrics(registry: &Registry) {
    use prometheus::process_collector::ProcessCollector;

    // The default registry has them, and an application may have its own: theirs stay.
    if let Err(error) = registry.register(Box::new(ProcessCollector::for_self())) {
        tracing::debug!(%error, "the process metrics are left as they are");
    }
}

#[cfg(not(target_os = "linux"))]
fn register_process_metrics(_: &Registry) {}

/// What the exporter says about itself. One collector, so that all of it is registered or nothing.
#[derive(Clone, Debug)]
struct ScrapeMetrics {
    scrapes: IntCounterVec,
    /// The children of `scrapes`, in the order of [`Outcome::ALL`].
    by_outcome: [IntCounter; Outcome::ALL.len()],
    duration: Histogram,
}

impl ScrapeMetrics {
    fn new() -> prometheus::Result<Self> {
        let scrapes = IntCounterVec::new(Opts::new(SCRAPES.name, SCRAPES.help), SCRAPES.labels)?;
        let duration = Histogram::with_opts(
            HistogramOpts::new(SCRAPE_DURATION.name, SCRAPE_DURATION.help).buckets(BOUNDS_SECONDS.to_vec()),
        )?;
        Ok(Self {
            // Each child exists from the start, so that its first increment shows in a rate.
            by_outcome: Outcome::ALL.map(|outcome| scrapes.with_label_values(&[outcome.code()])),
            scrapes,
            duration,
        })
    }
}

impl Collector for ScrapeMetrics {
    fn desc(&self) -> Vec<&Desc> {
        let mut descs = self.scrapes.desc();
        descs.extend(self.duration.desc());
        descs
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut families = self.scrapes.collect();
        families.extend(self.duration.collect());
        families
    }
}

/// Records how a scrape ended when it is dropped, so that each is recorded exactly once.
struct Ending<'a> {
    metrics: &'a ScrapeMetrics,
    started: Instant,
    outcome: Outcome,
}

impl<'a> Ending<'a> {
    fn new(metrics: &'a ScrapeMetrics) -> Self {
        Self { metrics, started: Instant::now(), outcome: Outcome::Abandoned }
    }
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.metrics.by_outcome[self.outcome as usize].inc();
        self.metrics.duration.observe(self.started.elapsed().as_secs_f64());
    }
}
