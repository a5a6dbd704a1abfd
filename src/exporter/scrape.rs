//! Answers `/metrics`: negotiates the format, and writes the page off the runtime's workers.

use std::sync::Arc;
use std::time::Instant;

use hyper::HeaderMap;
use hyper::header::{ACCEPT, ACCEPT_ENCODING, HeaderName};
use prometheus::core::Desc;
use prometheus::proto::MetricFamily;
use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, Opts, Registry};
use tokio::task::spawn_blocking;

use super::blocking::{BlockingLimiter, JobError};
use super::error::ExporterError;
use super::exposition::{Exposition, Format};
use super::limits::{MAX_SCRAPES, SCRAPE_QUEUE_TIMEOUT};
use super::page::{Gzip, ObjectPool, Page, PooledPage};
use crate::telemetry::catalogue::{SCRAPE_DURATION, SCRAPES};
use crate::telemetry::log::Limiter;
use crate::telemetry::{BOUNDS_SECONDS, Collector};
use crate::text::printable;

/// The maximum number of characters of an encoding error in the response: it may contain a long help text.
const MAX_ERROR_CHARS: usize = 200;

/// The format and the encoding of a page, as negotiated with the client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Negotiated {
    pub(super) format: Format,
    pub(super) gzip: bool,
}

impl Negotiated {
    pub(super) fn from_headers(headers: &HeaderMap) -> Self {
        Self { format: format(&list(headers, &ACCEPT)), gzip: gzip(&list(headers, &ACCEPT_ENCODING)) }
    }
}

/// Joins the values of a header that is sent several times.
fn list(headers: &HeaderMap, name: &HeaderName) -> String {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.collect::<Vec<_>>().join(",")
}

/// A choice of a list, such as `text/plain;version=0.0.4;q=0.5`.
struct Choice<'a> {
    name: &'a str,
    parameters: &'a str,
    /// The `q` parameter, in thousandths.
    quality: u16,
}

fn choices(list: &str) -> impl Iterator<Item = Choice<'_>> {
    list.split(',').map(|choice| {
        let (name, parameters) = choice.split_once(';').unwrap_or((choice, ""));
        let choice = Choice { name: name.trim(), parameters, quality: 1000 };
        let quality = choice.parameter("q").map_or(1000, quality);
        Choice { quality, ..choice }
    })
}

impl Choice<'_> {
    fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }

    fn parameter(&self, name: &str) -> Option<&str> {
        let pairs = self.parameters.split(';').filter_map(|parameter| parameter.split_once('='));
        let mut found = pairs.filter(|(key, _)| key.trim().eq_ignore_ascii_case(name));
        found.next().map(|(_, value)| value.trim().trim_matches('"'))
    }

    /// Returns whether the choice is of this version, or of any.
    fn is_version(&self, version: &str) -> bool {
        self.parameter("version").is_none_or(|wanted| wanted == version)
    }
}

/// Parses a quality. Text that is no number from 0 to 1 counts as absent.
fn quality(text: &str) -> u16 {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 1000")]
    let thousandths = |quality: f32| (quality * 1000.0).round() as u16;
    text.parse().ok().filter(|quality| (0.0..=1.0).contains(quality)).map_or(1000, thousandths)
}

/// Selects OpenMetrics if the client names it and prefers nothing else, and otherwise the text format. That is used
/// even if the client accepts neither: it is more useful than no answer.
fn format(accept: &str) -> Format {
    let best = |fits: &dyn Fn(&Choice<'_>) -> bool| choices(accept).filter(fits).map(|choice| choice.quality).max();
    let open_metrics = best(&|choice| choice.is("application/openmetrics-text") && choice.is_version("1.0.0"));
    // The more specific range wins.
    let text = best(&|choice| choice.is("text/plain") && choice.is_version("0.0.4"))
        .or_else(|| best(&|choice| choice.is("text/*")))
        .or_else(|| best(&|choice| choice.is("*/*")));
    match open_metrics {
        Some(quality) if quality > 0 && quality >= text.unwrap_or(0) => Format::OpenMetrics,
        _ => Format::Text,
    }
}

/// Returns whether the client names gzip and does not prefer no encoding.
fn gzip(accept_encoding: &str) -> bool {
    let best = |names: &[&str]| {
        choices(accept_encoding)
            .filter(|choice| names.iter().any(|name| choice.is(name)))
            .map(|choice| choice.quality)
            .max()
    };
    best(&["gzip", "x-gzip"]).is_some_and(|quality| quality > 0 && quality >= best(&["identity"]).unwrap_or(0))
}

/// Why a scrape has no page.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ScrapeError {
    /// The metrics could not be gathered. If a collector panicked, the log has its message.
    Job(JobError),
    /// The metrics could not be encoded.
    Encoding(String),
}

impl ScrapeError {
    fn outcome(&self) -> Outcome {
        match self {
            Self::Job(JobError::Busy { .. } | JobError::ShuttingDown) => Outcome::Unavailable,
            Self::Job(JobError::Panicked(_)) | Self::Encoding(_) => Outcome::Failed,
        }
    }
}

/// The outcome of a scrape.
#[derive(Clone, Copy, Debug)]
enum Outcome {
    Served,
    Failed,
    Unavailable,
    /// The client closed the connection.
    Abandoned,
    /// The client is not authorized.
    Unauthorized,
}

impl Outcome {
    const ALL: [Self; 5] = [Self::Served, Self::Failed, Self::Unavailable, Self::Abandoned, Self::Unauthorized];

    /// Returns the HTTP status. An abandoned scrape has none; 499 is nginx's.
    const fn code(self) -> &'static str {
        match self {
            Self::Served => "200",
            Self::Failed => "500",
            Self::Unavailable => "503",
            Self::Abandoned => "499",
            Self::Unauthorized => "401",
        }
    }
}

/// Serves scrapes, a bounded number at a time.
#[derive(Debug)]
pub(super) struct Scraper {
    writer: Writer,
    limiter: BlockingLimiter,
    metrics: ScrapeMetrics,
}

impl Scraper {
    /// Registers the exporter's own metrics in `registry`, and the process metrics unless it has them.
    pub(super) async fn register(collector: Collector, registry: Registry) -> Result<Arc<Self>, ExporterError> {
        let scraper = Arc::new(Self {
            writer: Writer::new(collector, registry.clone()),
            limiter: BlockingLimiter::new(MAX_SCRAPES, SCRAPE_QUEUE_TIMEOUT),
            metrics: ScrapeMetrics::new().map_err(|source| ExporterError::Register { source })?,
        });
        // Registering blocks while something else gathers the registry.
        let metrics = Box::new(scraper.metrics.clone());
        let registered = spawn_blocking(move || {
            registry.register(metrics)?;
            register_process_metrics(&registry);
            Ok(())
        });
        match registered.await.unwrap_or_else(|error| Err(prometheus::Error::Msg(error.to_string()))) {
            Ok(()) => Ok(scraper),
            Err(source) => Err(ExporterError::Register { source }),
        }
    }

    /// Counts a scrape by a client that is not authorized. Its duration is not recorded.
    pub(super) fn count_unauthorized(&self) {
        self.metrics.by_outcome[Outcome::Unauthorized as usize].inc();
    }

    /// Writes a page.
    ///
    /// # Cancel safety
    ///
    /// A scrape that is dropped counts as abandoned. Gathering that has started is completed, and counts against the
    /// limit until then.
    pub(super) async fn scrape(&self, negotiated: Negotiated) -> Result<PooledPage, ScrapeError> {
        let mut recorder = OutcomeRecorder::new(&self.metrics);
        let page = self.write(negotiated).await;
        recorder.outcome = match &page {
            Ok(_) => Outcome::Served,
            Err(error) => error.outcome(),
        };
        page
    }

    async fn write(&self, negotiated: Negotiated) -> Result<PooledPage, ScrapeError> {
        static FAILURES: Limiter = Limiter::new();
        static PANICS: Limiter = Limiter::new();
        let writer = self.writer.clone();
        match self.limiter.run(move || writer.write(negotiated)).await {
            Ok(Ok(page)) => Ok(page),
            Ok(Err(error)) => {
                let error: String = printable(&error).chars().take(MAX_ERROR_CHARS).collect();
                if let Some(suppressed) = FAILURES.pass_now() {
                    tracing::error!(error, suppressed, "could not encode the metrics");
                }
                Err(ScrapeError::Encoding(error))
            }
            Err(error) => {
                if let JobError::Panicked(message) = &error
                    && let Some(suppressed) = PANICS.pass_now()
                {
                    tracing::error!(
                        panic = message,
                        suppressed,
                        "a collector panicked while the metrics were gathered"
                    );
                }
                Err(ScrapeError::Job(error))
            }
        }
    }
}

/// Writes pages with reused memory. Clones share it.
#[derive(Clone, Debug)]
struct Writer {
    collector: Collector,
    registry: Registry,
    expositions: ObjectPool<Exposition>,
    /// Of both formats.
    pages: ObjectPool<Page>,
    compressed: ObjectPool<Page>,
    gzips: ObjectPool<Gzip>,
}

impl Writer {
    fn new(collector: Collector, registry: Registry) -> Self {
        Self {
            collector,
            registry,
            expositions: ObjectPool::new(MAX_SCRAPES),
            pages: ObjectPool::new(MAX_SCRAPES),
            compressed: ObjectPool::new(MAX_SCRAPES),
            gzips: ObjectPool::new(MAX_SCRAPES),
        }
    }

    /// Writes a page, or returns the error's text. An exposition or compressor that fails or panics is not reused.
    fn write(&self, negotiated: Negotiated) -> Result<PooledPage, String> {
        let exposition = || Exposition::new(self.collector.clone()).registry(self.registry.clone());
        let mut exposition = self.expositions.take(exposition);
        let mut page = PooledPage::take_of(&self.pages, negotiated.format);
        exposition.write(negotiated.format, page.page_mut()).map_err(|error| error.to_string())?;
        self.expositions.put(exposition);
        if !negotiated.gzip {
            return Ok(page);
        }
        let mut gzip = self.gzips.take(Gzip::new);
        let mut compressed = PooledPage::take(&self.compressed);
        gzip.compress(page.page(), compressed.page_mut()).map_err(|error| error.to_string())?;
        self.gzips.put(gzip);
        Ok(compressed)
    }
}

#[cfg(target_os = "linux")]
fn register_process_metrics(registry: &Registry) {
    use prometheus::process_collector::ProcessCollector;

    // The default registry and some applications register them themselves.
    if let Err(error) = registry.register(Box::new(ProcessCollector::for_self())) {
        tracing::debug!(%error, "the registry has process metrics already");
    }
}

#[cfg(not(target_os = "linux"))]
fn register_process_metrics(_: &Registry) {}

/// The exporter's own metrics: one collector, so that all of it is registered or nothing.
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

impl prometheus::core::Collector for ScrapeMetrics {
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

/// Records the outcome and the duration of a scrape when it is dropped, so that each scrape is recorded exactly once.
struct OutcomeRecorder<'a> {
    metrics: &'a ScrapeMetrics,
    started: Instant,
    outcome: Outcome,
}

impl<'a> OutcomeRecorder<'a> {
    fn new(metrics: &'a ScrapeMetrics) -> Self {
        Self { metrics, started: Instant::now(), outcome: Outcome::Abandoned }
    }
}

impl Drop for OutcomeRecorder<'_> {
    fn drop(&mut self) {
        self.metrics.by_outcome[self.outcome as usize].inc();
        self.metrics.duration.observe(self.started.elapsed().as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_metrics_is_used_if_preferred() {
        for accept in [
            // Prometheus 2, and 3 with its escaping schemes.
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
             text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
            "application/openmetrics-text",
            "application/openmetrics-text; version=\"1.0.0\"; charset=utf-8",
            "APPLICATION/OpenMetrics-Text;Version=1.0.0, */*",
            "text/html,application/openmetrics-text",
            "text/*;q=0.9, application/openmetrics-text",
            "*/*, application/openmetrics-text;q=0.001, text/plain;q=0",
            "application/openmetrics-text;q=nonsense",
        ] {
            assert_eq!(format(accept), Format::OpenMetrics, "{accept}");
        }
    }

    #[test]
    fn text_is_used_otherwise() {
        for accept in [
            "",
            "*/*",
            "application/*",
            "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
            "text/plain;version=0.0.4,application/openmetrics-text;version=1.0.0;q=0.9",
            "application/openmetrics-text;version=1.0.0;q=0",
            "application/openmetrics-text;version=0.0.1",
            "application/openmetrics-text;q=0.4,text/*",
            "application/openmetrics-text;q=0.4,*/*;q=0.5",
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited,*/*;q=0.1",
            ";;,=;q==,,",
        ] {
            assert_eq!(format(accept), Format::Text, "{accept}");
        }
    }

    #[test]
    fn gzip_is_used_if_named() {
        for accept in ["gzip", "deflate, gzip;q=0.5", "x-gzip", "GZIP;q=1.0, identity;q=0.5", "br, gzip, *;q=0"] {
            assert!(gzip(accept), "{accept}");
        }
        for accept in
            ["", "*", "identity", "gzip;q=0", "gzip; q=0.000", "gzip;q=0.4, identity;q=0.5", "deflate", "zgzip"]
        {
            assert!(!gzip(accept), "{accept}");
        }
    }

    #[test]
    fn repeated_headers_are_one_list() {
        let mut headers = HeaderMap::new();
        assert_eq!(Negotiated::from_headers(&headers), Negotiated::default());
        for value in ["text/plain;q=0.5", "application/openmetrics-text"] {
            headers.append(ACCEPT, value.parse().unwrap());
        }
        headers.append(ACCEPT_ENCODING, "gzip".parse().unwrap());
        assert_eq!(Negotiated::from_headers(&headers), Negotiated { format: Format::OpenMetrics, gzip: true });
    }
}
