//! Serves the metrics of a registry, who holds the pools, and the health of the process, over HTTP/1.1.
//!
//! * `GET /` -- a page for humans: version, state and links.
//! * `GET /metrics` -- the registry, as OpenMetrics 1.0 where `Accept` asks for it, else in the Prometheus text format
//!   0.0.4; by gzip where `Accept-Encoding` asks for that by name.
//! * `GET /api/v1/pools` -- each pool's state, who holds its connections and who waits for one, as JSON.
//! * `GET /runbooks/` -- a list of the runbooks, one for each alert that poolscope's rules have; `/runbooks/NAME` is one of
//!   them, as plain text.
//! * `GET /-/healthy` -- 200 while the process answers at all.
//! * `GET /-/ready` -- 200 once the application said it is ready, 503 before that and from the
//!   moment shutdown begins.
//!
//! With a web configuration (feature `web-config`, `Exporter::web_config`), all of it by HTTPS, for those who have a
//! password or a certificate, or both.
//!
//! `HEAD` works wherever `GET` does. Any other method is answered with 405, any other path with 404.
//!
//! # Who holds the pools
//!
//! `/api/v1/pools` shows the pools of [`Collector::global`], or of the collector that [`Exporter::collector`] names. With
//! `?pool=NAME`, percent-encoded where it must be, it shows that pool only, and none if there is none of that name. Any
//! other parameter is answered with 400. What went wrong is said as JSON, too: `{"error": "…"}`. Within `v1` no field is
//! renamed or dropped; new ones may come.
//!
//! ```text
//! {"pools": [{
//!   "name": "shop",
//!   "state": {"used": 2, "idle": 0, "creating": 0, "waiting": 1, "max": 2},
//!   "holders": [{                            oldest first
//!     "operation": "list_orders",
//!     "call_site": "src/orders.rs:42",       where it was checked out, or null
//!     "age_seconds": 1.904211,               since then
//!     "activity": "idle_in_transaction",     or "executing", "idle"; null where the wire is not read
//!     "queries": 3,                          sent since then
//!     "backend_pid": 4711,                   as in pg_stat_activity, or null
//!     "trace_id": null,                      or 32 hexadecimal digits, if a sampled trace got it
//!     "silent_seconds": 1.201,               since anything passed on its wire
//!     "maintenance": false,                  whether the pool itself pings or cleans it for the operation
//!     "suspected_leak": false                held and silent past leak_threshold
//!   }, …],
//!   "waiters": [{                            oldest first
//!     "operation": "add_order",
//!     "call_site": "src/orders.rs:77",
//!     "phase": "queue",                      or "connect", "ping", "clean"; state.waiting counts "queue"
//!     "age_seconds": 0.31,
//!     "own": null,                           or the operation and call_site of what its own task holds
//!     "trace_id": null                       or 32 hexadecimal digits, if a sampled trace waits
//!   }, …],
//!   "suspected_leaks": 0,
//!   "holders_omitted": 0,                    the oldest 1000 holders and 1000 waiters are listed
//!   "waiters_omitted": 0
//! }, …]}
//! ```
//!
//! # What a scrape may cost
//!
//! An exporter lives inside the process it observes, so it must not make an outage worse. Gathering
//! and encoding run on tokio's blocking threads, never on the workers that serve the application.
//! At most 4 scrapes gather at once; a further one waits up to 1 s for its turn and is then answered
//! with 503 and `Retry-After`. A scrape whose client has gone keeps its turn until its gathering
//! ends, so that a collector that hangs cannot pile up threads. A collector that panics, or metrics
//! that cannot be encoded, cost that one scrape, which is answered with 500.
//!
//! `/api/v1/pools` is bounded in the same way, by turns of its own: a collector that hangs does not hide who holds the
//! pool, and whoever polls this keeps no scrape waiting. It counts as no scrape.
//!
//! # What a client may cost
//!
//! | bound | value | beyond it |
//! |---|---|---|
//! | open connections | 128 | further ones wait in the listen queue |
//! | size of a request's head | 16 KiB, 100 headers | 431, and the connection is closed |
//! | time for a request's head, and for a connection to idle | 40 s | the connection is closed |
//! | time for a TLS handshake | 10 s | the connection is closed |
//! | passwords being verified | 2 at once, or 1 with up to two processors, each in its turn within 10 s | 503 and `Retry-After` |
//! | time in which a client reads nothing of its answer | 30 s | the connection is closed |
//! | request body | never read | the connection is closed after the answer, unless the body had arrived |
//! | time for requests under way to end at shutdown | 5 s | they are cut off |
//!
//! # Examples
//!
//! ```no_run
//! use poolscope::exporter::{DEFAULT_ADDRESS, Exporter, Readiness};
//!
//! # async fn run() -> Result<(), poolscope::exporter::ExporterError> {
//! let registry = prometheus::Registry::new();
//! let readiness = Readiness::new();
//! let exporter = Exporter::new(registry)
//!     .readiness(readiness.clone())
//!     .bind(DEFAULT_ADDRESS)
//!     .await?;
//!
//! readiness.ready();
//! exporter.serve(std::future::pending()).await
//! # }
//! ```

use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::{Arc, OnceLock};

use prometheus::Registry;
use tokio::net::TcpListener;
use tokio::sync::OnceCell;

mod address;
mod api;
mod conversation;
mod error;
mod exposition;
mod gzip;
mod landing;
mod limits;
mod listing;
mod negotiation;
mod query;
mod readiness;
mod routes;
mod runbooks;
mod scrape;
mod server;
mod stall;
mod stock;
mod turns;
#[cfg(feature = "web-config")]
mod web_config;

#[cfg(test)]
mod tests;

pub use self::error::ExporterError;
pub use self::exposition::{Exposition, ExpositionError, Format, Page};
pub use self::readiness::Readiness;
pub use self::server::BoundExporter;
#[cfg(feature = "web-config")]
pub use self::web_config::{WebConfig, WebConfigError};

use self::api::Api;
use self::conversation::Conversation;
use self::landing::Link;
use self::limits::Limits;
use self::routes::Routes;
use self::scrape::Scraper;
use self::turns::Turns;
#[cfg(feature = "web-config")]
use self::web_config::{Guard, Live};
use crate::telemetry::Collector;

/// Where the exporter listens unless told otherwise: reachable from this machine only.
pub const DEFAULT_ADDRESS: &str = "127.0.0.1:9719";

/// An HTTP server for the metrics in a registry, not yet listening.
///
/// A clone shares the registry, the metrics about scrapes and the bounds on scrapes and listings at
/// once: bind a clone, or the same exporter again, to listen on several addresses or to listen anew
/// after a stop.
#[derive(Clone, Debug)]
pub struct Exporter {
    registry: Registry,
    collector: Collector,
    readiness: Readiness,
    links: Vec<Link>,
    limits: Limits,
    scraper: Arc<OnceCell<Arc<Scraper>>>,
    listings: Arc<OnceLock<Turns>>,
    #[cfg(feature = "web-config")]
    web: Option<Arc<Live>>,
}

impl Exporter {
    /// Serves what `registry` gathers, and lists the pools of [`Collector::global`].
    ///
    /// The exporter adds two metrics of its own to the registry when it is first bound,
    /// `poolscope_scrapes_total` and `poolscope_scrape_duration_seconds`, and on Linux the process
    /// metrics (`process_cpu_seconds_total` and its kin), unless the registry has those already, as
    /// [`prometheus::default_registry`] does.
    ///
    /// It is ready from the start; see [`readiness`](Self::readiness).
    pub fn new(registry: Registry) -> Self {
        let readiness = Readiness::new();
        readiness.ready();
        Self {
            registry,
            collector: Collector::global(),
            readiness,
            links: Vec::new(),
            limits: Limits::default(),
            scraper: Arc::default(),
            listings: Arc::default(),
            #[cfg(feature = "web-config")]
            web: None,
        }
    }

    /// Lists the pools of this collector at `/api/v1/pools`, instead of those of [`Collector::global`]: a registry does
    /// not tell which collectors are registered in it.
    #[must_use]
    pub fn collector(mut self, collector: Collector) -> Self {
        self.collector = collector;
        self
    }

    /// Answers `/-/ready` by this latch. Without one, the exporter is ready as long as it serves.
    #[must_use]
    pub fn readiness(mut self, readiness: Readiness) -> Self {
        self.readiness = readiness;
        self
    }

    /// Adds a link to the landing page, after the exporter's own: a dashboard, say, or a runbook.
    ///
    /// `address` is a path on this server or a URL. All three are shown as plain text; an empty
    /// `description` is left out.
    #[must_use]
    pub fn link(mut self, address: impl Into<String>, text: impl Into<String>, description: impl Into<String>) -> Self {
        self.links.push(Link {
            address: address.into().into(),
            text: text.into().into(),
            description: description.into().into(),
        });
        self
    }

    /// Serves by this web configuration: TLS, who may ask, and headers of answers. Without one, everybody may ask, in the
    /// clear.
    ///
    /// A clone shares it, and what is read anew of it.
    #[cfg(feature = "web-config")]
    #[must_use]
    pub fn web_config(mut self, config: WebConfig) -> Self {
        self.web = Some(Arc::new(Live::new(config)));
        self
    }

    /// Opens the socket and registers the exporter's own metrics. Connections wait until
    /// [`BoundExporter::serve`] is polled.
    ///
    /// `address` is `host:port`, `[::1]:port` for IPv6, or `:port` for all interfaces, IPv4 and
    /// IPv6, as Prometheus' own exporters mean it. Port 0 picks a free one;
    /// [`BoundExporter::local_addr`] tells which.
    ///
    /// # Errors
    ///
    /// When the address cannot be understood, resolved or listened on, and when another exporter
    /// has registered its metrics in the same registry.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with its I/O and time drivers enabled.
    pub async fn bind(&self, address: impl ToString) -> Result<BoundExporter, ExporterError> {
        let address = address.to_string();
        let (listener, local_addr) = address::listen(&address).await?;
        self.bound(listener, local_addr).await
    }

    /// Serves at a socket that listens already, such as one that a service manager opened, and registers the exporter's
    /// own metrics. Otherwise as [`bind`](Self::bind).
    ///
    /// # Errors
    ///
    /// When the socket cannot be used, and when another exporter has registered its metrics in the same registry.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with its I/O and time drivers enabled.
    pub async fn bind_to(&self, listener: StdListener) -> Result<BoundExporter, ExporterError> {
        let ready = || {
            listener.set_nonblocking(true)?;
            let local_addr = listener.local_addr()?;
            Ok((TcpListener::from_std(listener)?, local_addr))
        };
        let (listener, local_addr) = ready().map_err(|source| ExporterError::Given { source })?;
        self.bound(listener, local_addr).await
    }

    async fn bound(&self, listener: TcpListener, local_addr: SocketAddr) -> Result<BoundExporter, ExporterError> {
        // After the socket, so that a busy address leaves the registry as it was.
        let scraper = self.scraper.get_or_try_init(|| Scraper::register(self.registry.clone(), &self.limits)).await?;
        let listings = self.listings.get_or_init(|| Turns::new(self.limits.listings, self.limits.turn_wait));
        let api = Api::new(self.collector.clone(), listings.clone());
        let routes = Routes::new(Arc::clone(scraper), api, self.readiness.clone(), &self.links);
        #[cfg(feature = "web-config")]
        let guard = self.web.clone().map(Guard::new);
        #[cfg(feature = "web-config")]
        let scheme = if guard.as_ref().is_some_and(Guard::is_tls) { "https" } else { "http" };
        #[cfg(not(feature = "web-config"))]
        let scheme = "http";
        let conversation = Conversation::new(
            routes,
            &self.limits,
            #[cfg(feature = "web-config")]
            guard,
        );
        Ok(BoundExporter::new(listener, local_addr, scheme, conversation, self.limits.clone()))
    }
}
