//! Writes metrics in the formats that Prometheus reads.
//!
//! The pools are read from their ledgers directly: converting their samples to the types of the `prometheus` crate
//! first, with a dozen allocations for each, takes thirty times as long. The metrics of a registry are gathered.

mod edit;
mod encode;
mod pools;

use std::collections::HashSet;
use std::sync::Arc;

use prometheus::Registry;
use prometheus::proto::{Metric, MetricFamily};

pub use self::encode::Format;
use self::encode::{family_head, family_kind, samples};
pub(super) use self::pools::PoolText;
use self::pools::Scratch;
use super::page::Page;
use crate::telemetry::catalogue::{BUILD_INFO, METRICS, POOL_LABEL};
use crate::telemetry::collector::{self, Collector};
use crate::telemetry::ledger::{Ledger, SnapshotBuffer};
use crate::text::Printable;

/// An error that prevents metrics from being written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExpositionError {
    /// A collector of the registry returned a metric family without a name.
    #[error("metric family without a name: {help}")]
    Nameless {
        /// The help text of the family.
        help: String,
    },
    /// A collector of the registry returned a metric family without a type.
    #[error("metric family without a type: {name}")]
    Untyped {
        /// The name of the family.
        name: String,
    },
}

/// Writes the page that [`Exporter`](super::Exporter) serves at `/metrics`, for a service that has an HTTP server of
/// its own.
///
/// ```
/// use poolscope::Collector;
/// use poolscope::exporter::{Exposition, Format, Page};
///
/// // Once:
/// let mut exposition = Exposition::new(Collector::global()).registry(prometheus::default_registry().clone());
/// let mut page = Page::new();
///
/// // For each scrape:
/// exposition.write(Format::OpenMetrics, &mut page)?;
/// assert!(page.to_text().ends_with("# EOF\n"));
/// # Ok::<(), poolscope::exporter::ExpositionError>(())
/// ```
///
/// Keep both: a page that is written again in the same format costs no allocation for pools whose text is not longer, and
/// of their text only what has changed is written. Two formats need two pages. The other collectors of the registry cost what they cost, and
/// may block.
///
/// # A registry that contains the collector
///
/// The collector does not need to be registered. If it is, because something else gathers the registry as well, its
/// pools are still written once. If the registry adds a prefix or labels, the pools are written as the registry
/// gathers them, without exemplars. In both cases gathering them takes as long as it does for any other collector.
#[derive(Debug)]
pub struct Exposition {
    collector: Collector,
    registry: Option<Registry>,
    /// The pools being written; empty in between, so that none is kept alive.
    ledgers: Vec<Arc<Ledger>>,
    reading: SnapshotBuffer,
    /// The length of the pools' text by metric.
    lengths: Vec<usize>,
    scratch: Scratch,
    /// Whether a type conflict was logged. It is logged once, not at each scrape.
    conflict_logged: bool,
}

impl Exposition {
    /// Creates an exposition of the pools of `collector`.
    #[must_use]
    pub fn new(collector: Collector) -> Self {
        Self {
            collector,
            registry: None,
            ledgers: Vec::new(),
            reading: SnapshotBuffer::new(),
            lengths: Vec::new(),
            scratch: Scratch::default(),
            conflict_logged: false,
        }
    }

    /// Adds the metrics of `registry` to the page.
    #[must_use]
    pub fn registry(mut self, registry: Registry) -> Self {
        self.registry = Some(registry);
        self
    }

    /// Replaces the content of `page` by all metrics.
    ///
    /// The numbers of one pool are consistent: they are read at one moment.
    ///
    /// # Errors
    ///
    /// Returns an error if the registry gathers a metric family without a name or a type.
    pub fn write(&mut self, format: Format, page: &mut Page) -> Result<(), ExpositionError> {
        // Not empty after a panic.
        self.ledgers.clear();
        let mut families = self.registry.as_ref().map(Registry::gather).unwrap_or_default();
        if !is_renamed(&families) {
            self.collector.ledgers(&mut self.ledgers);
            // A registry gathers its families in the order of their names, and has these if it has the collector.
            for family in collector::process_families() {
                if let Err(index) = families.binary_search_by(|gathered| gathered.name().cmp(family.name())) {
                    families.insert(index, family);
                }
            }
        }
        // The page has nothing of the pools meanwhile: what a panic leaves behind must not be used by the next page.
        let mut pools = page.begin(METRICS.len(), format);
        self.write_pools(format, &mut pools);
        let own = page.own_mut();
        for (index, (metric, length)) in METRICS.iter().zip(&self.lengths).enumerate() {
            // A family without samples is left out.
            if *length > 0 {
                let (head, kind) = (&mut own[2 * index], metric.kind.as_str());
                family_head(head, format, metric.name, kind, metric.help, |name| is_taken(name, &families));
            }
        }
        let written = self.write_families(format, &families, own);
        self.ledgers.clear();
        page.complete(pools, self.lengths.iter().sum());
        written
    }

    /// Makes `pools` the lines of the collector's pools.
    fn write_pools(&mut self, format: Format, pools: &mut Vec<PoolText>) {
        self.lengths.clear();
        self.lengths.resize(METRICS.len(), 0);
        for (place, ledger) in self.ledgers.iter().enumerate() {
            if !pools.get(place).is_some_and(|text| text.is_of(ledger.name())) {
                // The pools are in the order in which they joined. Those in between have gone, and a new one is last.
                match pools.iter().skip(place).position(|text| text.is_of(ledger.name())) {
                    Some(gone) => drop(pools.drain(place..place + gone)),
                    None => {
                        pools.truncate(place);
                        pools.push(PoolText::new(ledger.name()));
                    }
                }
            }
            ledger.read(&mut self.reading);
            pools[place].update(self.reading.snapshot(), format, &mut self.scratch, &mut self.lengths);
        }
        pools.truncate(self.ledgers.len());
    }

    /// Writes what was gathered, and the end of the page.
    fn write_families(
        &mut self,
        format: Format,
        families: &[MetricFamily],
        own: &mut [Vec<u8>],
    ) -> Result<(), ExpositionError> {
        let own_pools = OwnPools::new(&self.ledgers, families);
        let last = own.len() - 1;
        for family in families {
            let name = family.name();
            if name.is_empty() {
                return Err(ExpositionError::Nameless { help: family.help().to_owned() });
            }
            let Some(kind) = family_kind(family) else {
                return Err(ExpositionError::Untyped { name: name.to_owned() });
            };
            let is_of_pools = is_of_pools(name);
            let is_written = |metric: &&Metric| is_of_pools && own_pools.include(metric);
            let mut metrics = family.get_metric().iter().filter(|metric| !is_written(metric)).peekable();
            if metrics.peek().is_none() {
                continue;
            }
            // A family can have one type only. Samples from elsewhere are added to a family of ours, if they are of
            // its type, else they are left out.
            let ours = METRICS.iter().zip(&self.lengths).position(|(metric, len)| metric.name == name && *len > 0);
            let piece = match ours {
                Some(index) if METRICS[index].kind.as_str() == kind => &mut own[2 * index + 1],
                Some(_) => {
                    if !std::mem::replace(&mut self.conflict_logged, true) {
                        tracing::warn!(
                            metric = %Printable(name),
                            kind,
                            "a collector of the registry uses the name of a poolscope metric with another type; its \
                             samples are left out"
                        );
                    }
                    continue;
                }
                None => {
                    let piece = &mut own[last];
                    family_head(piece, format, name, kind, family.help(), |name| is_taken(name, families));
                    piece
                }
            };
            for metric in metrics {
                samples(piece, format, name, family.get_field_type(), metric);
            }
        }
        if format == Format::OpenMetrics {
            own[last].extend_from_slice(b"# EOF\n");
        }
        Ok(())
    }
}

/// The pools that were written already, if the registry gathers metrics of pools too.
struct OwnPools<'a> {
    names: HashSet<&'a str>,
}

impl<'a> OwnPools<'a> {
    fn new(ledgers: &'a [Arc<Ledger>], families: &[MetricFamily]) -> Self {
        let has_pools = families.iter().any(|family| is_of_pools(family.name()));
        let names = if has_pools { ledgers.iter().map(|ledger| &**ledger.name()).collect() } else { HashSet::new() };
        Self { names }
    }

    /// Returns whether a gathered metric of a pool is one that was written from a ledger.
    fn include(&self, metric: &Metric) -> bool {
        metric.get_label().iter().any(|label| label.name() == POOL_LABEL && self.names.contains(label.value()))
    }
}

/// Returns whether the catalogue has a metric of pools of this name.
fn is_of_pools(name: &str) -> bool {
    METRICS.iter().any(|metric| metric.name == name && metric.has_pool_label())
}

/// Returns whether a registry contains a collector of pools, and adds a prefix or labels to its metrics.
fn is_renamed(families: &[MetricFamily]) -> bool {
    let renamed = |family: &MetricFamily| {
        let Some(prefix) = family.name().strip_suffix(BUILD_INFO.name) else { return false };
        let labels = family.get_metric().first().map(Metric::get_label).unwrap_or_default();
        !prefix.is_empty() || !labels.iter().map(|label| label.name()).eq(BUILD_INFO.labels.iter().copied())
    };
    families.iter().any(renamed)
}

/// Returns whether a family has exactly this name.
fn is_taken(name: &str, families: &[MetricFamily]) -> bool {
    METRICS.iter().any(|metric| metric.name == name) || families.iter().any(|family| family.name() == name)
}
