//! Writes metrics in the formats that Prometheus reads.
//!
//! The pools are read straight from their ledgers: what `prometheus` would make of them, a dozen allocations for each
//! sample, takes thirty times as long. Everything else in the registry is gathered, and written here too.

mod families;
mod format;
mod page;
mod pools;
mod text;

use std::sync::Arc;

use prometheus::Registry;
use prometheus::proto::MetricFamily;

pub use self::format::Format;
pub use self::page::Page;
use self::pools::Prepared;
use crate::telemetry::catalogue::{BUILD_INFO, METRICS, Source};
use crate::telemetry::collector::set_aside;
use crate::telemetry::ledger::{Ledger, Reading};

/// Why metrics cannot be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExpositionError {
    /// A collector gave metrics without a name.
    #[error("metrics without a name: {help}")]
    Nameless {
        /// What else is known of them.
        help: String,
    },
    /// A collector gave metrics without a type, of which the `prometheus` crate can make none.
    #[error("metrics without a type: {name}")]
    Untyped {
        /// Their name.
        name: String,
    },
}

/// A registry as Prometheus reads it, for a service that has an HTTP server of its own: what
/// [`Exporter`](super::Exporter) serves.
///
/// It keeps what it prepared, so it is to be kept, too. With a [`Page`] that is used again, the pools of a
/// [`Collector`](crate::Collector) in the registry cost no allocation; the registry's other collectors cost what they
/// cost. Gathering them may block.
///
/// ```
/// use poolscope::exporter::{Exposition, Format, Page};
///
/// let registry = prometheus::Registry::new();
/// registry.register(Box::new(poolscope::Collector::global()))?;
/// let mut exposition = Exposition::new(registry);
/// let mut page = Page::new();
/// exposition.write(Format::OpenMetrics, &mut page)?;
/// assert!(page.to_text().ends_with("# EOF\n"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// A [`Collector`](crate::Collector) that is called by another one, which changes what it says, is not seen through:
/// its pools are written as they are. A registry with a prefix or labels of its own is gathered as a whole, without exemplars.
#[derive(Debug)]
pub struct Exposition {
    registry: Registry,
    reading: Reading,
    /// Of each pool, in the order they were last found in.
    prepared: Vec<Prepared>,
    /// Where in its piece each metric's samples begin.
    heads: Vec<usize>,
    /// What the lines of one histogram have in common.
    common: Vec<u8>,
    /// Whether it was said that another collector's metrics are left out: that is to be read once, not with each scrape.
    complained: bool,
    /// The pools that are being written; empty in between, so that none is kept alive.
    ledgers: Vec<Arc<Ledger>>,
}

impl Exposition {
    /// Writes what this registry has.
    #[must_use]
    pub fn new(registry: Registry) -> Self {
        Self {
            registry,
            reading: Reading::new(),
            prepared: Vec::new(),
            heads: Vec::new(),
            common: Vec::new(),
            complained: false,
            ledgers: Vec::new(),
        }
    }

    /// Writes everything to `page`, in the place of what was there.
    ///
    /// All numbers of one pool are of one moment.
    ///
    /// # Errors
    ///
    /// If a collector gave something that has no name or no type.
    pub fn write(&mut self, format: Format, page: &mut Page) -> Result<(), ExpositionError> {
        self.ledgers.clear();
        let registry = &self.registry;
        let mut families = set_aside(&mut self.ledgers, || registry.gather());
        if !self.ledgers.is_empty() && !is_as_collected(&families) {
            // It has a prefix or labels of its own, which it tells to nobody.
            self.ledgers.clear();
            families = registry.gather();
        }
        // The last piece is for all that is not the pools'.
        let pieces = page.clear(METRICS.len() + 1);
        self.write_pools(format, &families, pieces);
        self.ledgers.clear();
        self.write_others(format, &families, pieces)
    }

    fn write_pools(&mut self, format: Format, families: &[MetricFamily], pieces: &mut [Vec<u8>]) {
        self.heads.clear();
        for (metric, piece) in METRICS.iter().zip(&mut *pieces) {
            if metric.is_of_a_pool() {
                let kind = metric.kind.as_str();
                format.head(piece, metric.name, kind, metric.help, |name| is_taken(name, families));
            }
            self.heads.push(piece.len());
        }
        self.prepared.retain(Prepared::is_alive);
        for (place, ledger) in self.ledgers.iter().enumerate() {
            prepare(&mut self.prepared, place, ledger);
            ledger.read(&mut self.reading);
            let prepared = &mut self.prepared[place];
            for (place, (metric, piece)) in METRICS.iter().zip(&mut *pieces).enumerate() {
                if let Source::Pool(read) = metric.source {
                    read(self.reading.snapshot(), &mut prepared.lines(place, metric, format, &mut self.common, piece));
                }
            }
        }
        for (piece, head) in pieces.iter_mut().zip(&self.heads) {
            // A family without samples is not to be named.
            if piece.len() == *head {
                piece.clear();
            }
        }
    }

    /// Writes what was gathered, and the end.
    fn write_others(
        &mut self,
        format: Format,
        families: &[MetricFamily],
        pieces: &mut [Vec<u8>],
    ) -> Result<(), ExpositionError> {
        let last = pieces.len() - 1;
        for family in families {
            let name = family.name();
            if name.is_empty() {
                return Err(ExpositionError::Nameless { help: family.help().to_owned() });
            }
            let kind = families::kind(family)?;
            // Somebody else's samples under a name of ours belong to ours, if they are of its kind. Otherwise both cannot
            // be told on one page.
            let ours =
                METRICS.iter().zip(&*pieces).position(|(metric, piece)| metric.name == name && !piece.is_empty());
            let piece = match ours {
                Some(place) if METRICS[place].kind.as_str() == kind => &mut pieces[place],
                Some(_) => {
                    if !std::mem::replace(&mut self.complained, true) {
                        tracing::warn!(
                            metric = name,
                            kind,
                            "another collector gives a metric of ours another type: left out"
                        );
                    }
                    continue;
                }
                None => {
                    let piece = &mut pieces[last];
                    format.head(piece, name, kind, family.help(), |name| is_taken(name, families));
                    piece
                }
            };
            families::samples(piece, format, name, family)?;
        }
        if format.is_open_metrics() {
            pieces[last].extend_from_slice(b"# EOF\n");
        }
        Ok(())
    }
}

/// Whether the collector's own family came through the registry as it was.
fn is_as_collected(families: &[MetricFamily]) -> bool {
    let own = families.iter().find(|family| family.name() == BUILD_INFO.name);
    let labels = own.and_then(|family| family.get_metric().first()).map(|metric| metric.get_label());
    labels.is_some_and(|labels| labels.iter().map(|label| label.name()).eq(BUILD_INFO.labels.iter().copied()))
}

/// Has what is prepared for this pool stand in this place.
fn prepare(prepared: &mut Vec<Prepared>, place: usize, ledger: &Arc<Ledger>) {
    match prepared[place..].iter().position(|prepared| prepared.is_of(ledger)) {
        Some(0) => {}
        Some(further) => prepared.swap(place, place + further),
        None => prepared.insert(place, Prepared::new(ledger)),
    }
}

/// Whether a family has this very name.
fn is_taken(name: &str, families: &[MetricFamily]) -> bool {
    METRICS.iter().any(|metric| metric.name == name) || families.iter().any(|family| family.name() == name)
}
