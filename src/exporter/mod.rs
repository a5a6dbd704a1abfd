//! An HTTP/1.1 server for metrics, the pools as JSON, runbooks, and the health of the process.
//!
//! * `GET /` -- the live page: the verdict, the last 15 minutes, the holders and the waiters of each pool; without
//!   JavaScript, version, readiness and links.
//! * `GET /metrics` -- the metrics, as OpenMetrics 1.0 if `Accept` prefers it, else in the Prometheus text format 0.0.4;
//!   with gzip if `Accept-Encoding` names it.
//! * `GET /api/v1/pools` -- the state, the connection holders and the waiters of each pool, as JSON.
//! * `GET /api/v1/history` -- the last 15 minutes of each pool, as JSON.
//! * `GET /api/v1/stream` -- the state of the pools as server-sent events, once per second.
//! * `POST /api/v1/record` -- begins an incident file of each pool, or with `?pool=NAME` of one; only if
//!   [enabled](Exporter::record_on_request).
//! * `GET /assets/` -- the script and the style of the pages, below this path.
//! * `GET /runbooks/` -- an index of the runbooks, one for each alert of poolscope's rules; `/runbooks/NAME` is one of
//!   them, as plain text.
//! * `GET /-/healthy` -- 200 while the process responds.
//! * `GET /-/ready` -- 200 while the process is [ready](Readiness), 503 otherwise and from the start of the shutdown.
//!
//! `HEAD` works wherever `GET` does. With a [recording](Exporter::recording), the live page and the API show it instead of
//! pools, and `?at=SECONDS` (since the Unix epoch) selects a moment. Other methods get 405, other paths 404. With a web configuration (feature
//! `web-config`, `Exporter::web_config`), all endpoints require TLS, a password, a client certificate, or several of
//! these.
//!
//! # Examples
//!
//! ```no_run
//! use poolscope::Collector;
//! use poolscope::exporter::{DEFAULT_ADDRESS, Exporter, Readiness};
//!
//! # async fn run() -> Result<(), poolscope::exporter::ExporterError> {
//! let readiness = Readiness::new();
//! let exporter = Exporter::new(Collector::global())
//!     .readiness(readiness.clone())
//!     .bind(DEFAULT_ADDRESS)
//!     .await?;
//!
//! readiness.ready();
//! exporter.serve(std::future::pending()).await
//! # }
//! ```
//!
//! # The pools as JSON
//!
//! `/api/v1/pools` lists all pools of the collector, or with `?pool=NAME` (percent-encoded) the pool of that name, if
//! there is one. Other parameters get 400. Errors are JSON too: `{"error": "…"}`. Within `v1`, no field is renamed or
//! removed; fields may be added.
//!
//! ```text
//! {"pools": [{
//!   "name": "shop",
//!   "kind": "pool",
//!   "state": {"used": 2, "idle": 0, "creating": 0, "closing": 0, "waiting": 1, "max": 2},
//!   "holders": [{                            oldest first
//!     "operation": "list_orders",
//!     "call_site": "src/orders.rs:42",       of the checkout, or null
//!     "age_seconds": 1.904211,               since the checkout
//!     "activity": "idle_in_transaction",     or "executing", "idle"; null if the protocol is not observed
//!     "queries": 3,                          sent since the checkout
//!     "backend_pid": 4711,                   as in pg_stat_activity, or null
//!     "trace_id": null,                      or 32 hexadecimal digits, if its trace is sampled
//!     "silent_seconds": 1.201,               since the last traffic of the connection
//!     "maintenance": false,                  whether the pool is pinging or resetting it for the operation
//!     "suspected_leak": false,               held and silent for longer than leak_threshold
//!     "waits_for_own_pool": false,           whether its task waits for another connection of this pool
//!     "request": "GET /orders/{id}"          method and route, or null unless the middleware serves it
//!   }, …],
//!   "waiters": [{                            oldest first
//!     "operation": "add_order",
//!     "call_site": "src/orders.rs:77",
//!     "phase": "queue",                      or "connect", "ping", "clean", "hook", "suspended", "share";
//!                                            state.waiting counts "queue"
//!     "age_seconds": 0.31,
//!     "own": null,                           or operation and call_site of a connection that its own task holds
//!     "trace_id": null,                      or 32 hexadecimal digits, if its trace is sampled
//!     "request": "POST /orders"              method and route, or null unless the middleware serves it
//!   }, …],
//!   "suspected_leaks": 0,
//!   "holders_omitted": 0,                    the oldest 1000 holders and 1000 waiters are listed
//!   "waiters_omitted": 0,
//!   "diagnosis": {                           null before the first sample
//!     "cause": "held_idle",                  "healthy", or another cause of docs/diagnosis.md
//!     "since_seconds": 74.0,                 for how long the cause has held
//!     "operation": "list_orders",            responsible, or null
//!     "call_site": "src/orders.rs:42",       responsible, or null
//!     "evidence": [{                         at least one
//!       "name": "held_idle_share",
//!       "value": 0.47,
//!       "unit": "ratio",                     or "seconds", "per_second", "connections", "checkouts", "count"
//!       "usual": 0.02                        while the pool was healthy, or null
//!     }, …],
//!     "advice": "…",                         one sentence; empty if the pool is healthy
//!     "consequences": ["undersized"],        causes whose conditions hold because of this one
//!     "finding": "…",                        one sentence
//!     "sample_interval_seconds": 1.0         above 2, short events may have been missed
//!   },
//!   "sizing": {
//!     "recommended_size": 14,                connections, or null
//!     "withheld_by": null,                   or the cause to remove before a size can be recommended, "held_idle"
//!     "reason": "…",                         one clause: why this size, or why none
//!     "wait_target_seconds": 0.01,           which 99 % of checkouts are to stay below
//!     "available_slots": 90,                 the pool's connections and the slots left; null if the server is not watched
//!     "needed": 14,                          this and the following only if enough was recorded and nothing withholds it;
//!                                            the recommended size is bounded by the available slots
//!     "recorded_seconds": 1800.0,
//!     "excluded_seconds": 0.0,               recorded while a fault inflated the demand
//!     "excluded_use_share": 0.0,             of the use time, held without traffic or waiting for a lock
//!     "resolution_seconds": 0.1,             between readings of the load; shorter bursts are not seen
//!     "checkouts": 90000,
//!     "mean_in_use": 9.5,
//!     "table": [{                            ascending, around the size that is needed, and the pool's maximum
//!       "size": 13,
//!       "wait_p50_seconds": 0.0,
//!       "wait_p99_seconds": 0.014,
//!       "waiting_share": 0.17,               of the checkouts, as the next
//!       "timeout_share": 0.0
//!     }, …]
//!   }
//! }, …]}
//! ```
//!
//! # Diagnosis
//!
//! While it serves, the exporter samples each pool of its collector once per second, which takes some ten microseconds,
//! and derives a verdict from the samples of the last minute. For the recommended size, it reads each pool's load
//! ten times per second, and at most once per minute replays the load of the last half hour on a blocking thread.
//!
//! # History
//!
//! From the first exporter on, a collector keeps what the samples of the last 15 minutes show: at most 350 KB for each
//! pool, and 70 MB in all. `/api/v1/history` lists it, and `/api/v1/stream` continues it; `docs/api.yaml` in the
//! repository describes their fields as OpenAPI 3.1.
//!
//! # Limits of scrapes
//!
//! The exporter runs inside the process it observes, and must not make an outage worse. Metrics are gathered and encoded
//! on tokio's blocking threads, never on the workers that serve the application. At most 4 scrapes run at once; a
//! further one waits up to 1 s and then gets 503 with `Retry-After`. A scrape whose client has gone counts until it
//! ends, so that a collector that hangs cannot pile up threads. A collector that panics, or metrics that cannot be
//! encoded, fail one scrape with 500.
//!
//! `/api/v1/pools`, `/api/v1/history` and the events of streams have the same limits, separately: a collector that
//! hangs does not hide the holders of a pool, and clients that poll these endpoints do not delay scrapes. They are not
//! counted as scrapes.
//!
//! # Limits of clients
//!
//! | limit | value | when exceeded |
//! |---|---|---|
//! | open connections | 128 in all, 64 of one IPv4 address or IPv6 /64 network | for a new one, another is closed: the one that waits longest without a request, first of clients that were never authorized, whose password may be being verified, then the one whose client has not read its response for longest |
//! | further connections, if all have an authorized request under way | 16 | health checks are answered, other requests get 503; then new ones wait in the listen queue |
//! | streams of `/api/v1/stream` | 16 | 503 with `Retry-After` |
//! | requests of `/api/v1/record` | one in 10 s | 429 with `Retry-After` |
//! | time of a stream | 10 min | it ends; a client continues it with `Last-Event-ID` |
//! | size of a request's head | 16 KiB, 100 headers | 431, and the connection is closed |
//! | time for a TLS handshake and the first request's head, and for a later head from its first byte on | 10 s | the connection is closed |
//! | time without a request between two requests | 40 s | the connection is closed |
//! | concurrent password verifications | 2, or 1 with up to two processors; others wait 10 s | 503 with `Retry-After` |
//! | time without reading the response | 30 s | the connection is closed |
//! | time to read a whole response, if it is longer than the sockets' buffers | 60 s | the connection is closed |
//! | request body | never read | the connection is closed after the response, unless the body has arrived |
//! | time for requests in progress at shutdown | 5 s | they are aborted |

use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::{Arc, OnceLock};

use prometheus::Registry;
use tokio::net::TcpListener;
use tokio::sync::OnceCell;

mod address;
mod api;
mod assets;
mod blocking;
mod body;
mod client_stream;
mod clients;
mod connection;
mod error;
mod exposition;
mod history_api;
mod landing_page;
mod limits;
mod page;
mod pools_api;
mod query;
mod readiness;
mod record_api;
mod replay_api;
mod response;
mod routes;
mod runbooks;
mod scrape;
mod server;
mod stream;
#[cfg_attr(not(feature = "web-config"), path = "web_config_disabled.rs")]
mod web_config;

pub use self::error::ExporterError;
pub use self::exposition::{Exposition, ExpositionError, Format};
pub use self::page::Page;
pub use self::readiness::Readiness;
#[cfg(fuzzing)]
pub(crate) use self::routes::fuzz as fuzz_http;
pub use self::server::BoundExporter;
#[cfg(all(fuzzing, feature = "web-config"))]
pub(crate) use self::web_config::fuzz as fuzz_web_config;
#[cfg(feature = "web-config")]
pub use self::web_config::{WebConfig, WebConfigError};

use self::api::Api;
use self::blocking::BlockingLimiter;
use self::connection::ConnectionHandler;
use self::history_api::HistoryApi;
use self::landing_page::Link;
use self::limits::{MAX_POOL_LISTINGS, POOL_LISTING_QUEUE_TIMEOUT};
use self::pools_api::PoolsApi;
use self::record_api::RecordApi;
use self::replay_api::{Replay, ReplayApi};
use self::routes::Routes;
use self::scrape::Scraper;
use self::stream::{StreamApi, Viewers};
use self::web_config::{Auth, LiveConfig};
use crate::diagnosis::recording::{IncidentRecorder, Recording};
use crate::telemetry::Collector;

/// The default listen address, which is reachable from this machine only.
pub const DEFAULT_ADDRESS: &str = "127.0.0.1:9719";

/// An HTTP server for the metrics of pools, not yet listening.
///
/// Clones share the metrics and the limits on concurrent scrapes: bind a clone, or the same exporter again, to listen
/// on several addresses or to listen again after a shutdown.
#[derive(Clone, Debug)]
pub struct Exporter {
    collector: Collector,
    registry: Registry,
    readiness: Readiness,
    links: Vec<Link>,
    trace_url: Option<String>,
    recorder: Option<IncidentRecorder>,
    recording: Option<Arc<Recording>>,
    web_config: Option<Arc<LiveConfig>>,
    scraper: Arc<OnceCell<Arc<Scraper>>>,
    pool_listings: Arc<OnceLock<BlockingLimiter>>,
    viewers: Arc<OnceLock<Arc<Viewers>>>,
    replay: Arc<OnceLock<Arc<Replay>>>,
}

impl Exporter {
    /// Creates an exporter for the pools of `collector`, which is [`Collector::global`] unless pools are built with
    /// another one.
    ///
    /// The exporter adds metrics of its own, `poolscope_scrapes_total` and `poolscope_scrape_duration_seconds`, and on
    /// Linux the process metrics (`process_cpu_seconds_total` and others).
    ///
    /// It is ready from the start; see [`readiness`](Self::readiness).
    pub fn new(collector: Collector) -> Self {
        let readiness = Readiness::new();
        readiness.ready();
        Self {
            collector,
            registry: Registry::new(),
            readiness,
            links: Vec::new(),
            trace_url: None,
            recorder: None,
            recording: None,
            web_config: None,
            scraper: Arc::default(),
            pool_listings: Arc::default(),
            viewers: Arc::default(),
            replay: Arc::default(),
        }
    }

    /// Also serves the metrics of `registry`, such as [`prometheus::default_registry`].
    ///
    /// The exporter registers its own metrics there when it is first bound, and the process metrics unless the registry
    /// has them. The collector does not need to be registered; [`Exposition`] has the details.
    #[must_use]
    pub fn registry(mut self, registry: Registry) -> Self {
        self.registry = registry;
        self
    }

    /// Reports `readiness` at `/-/ready`. Without it, the exporter is ready while it serves.
    #[must_use]
    pub fn readiness(mut self, readiness: Readiness) -> Self {
        self.readiness = readiness;
        self
    }

    /// Adds a link to the landing page, after the exporter's own: to a dashboard, for example.
    ///
    /// `address` is a path on this server or a URL. All three are shown as plain text; an empty `description` is
    /// omitted.
    #[must_use]
    pub fn link(mut self, address: impl Into<String>, text: impl Into<String>, description: impl Into<String>) -> Self {
        self.links.push(Link {
            address: address.into().into(),
            text: text.into().into(),
            description: description.into().into(),
        });
        self
    }

    /// Links the trace of a holder or waiter on the live page to `template`, in which each `{trace_id}` is replaced, as in
    /// `https://jaeger.example.com/trace/{trace_id}`. Only `http` and `https` URLs become links.
    #[must_use]
    pub fn trace_url(mut self, template: impl Into<String>) -> Self {
        self.trace_url = Some(template.into());
        self
    }

    /// Enables `POST /api/v1/record`, which begins incident files with this recorder, as
    /// [`IncidentRecorder::record`] does. It should record the pools of the exporter's collector.
    ///
    /// The web configuration's authentication applies. Requests that a page of another site causes are refused, and more
    /// than one in 10 s. The files count against the recorder's bounds, so that each may replace the oldest one.
    #[must_use]
    pub fn record_on_request(mut self, recorder: IncidentRecorder) -> Self {
        self.recorder = Some(recorder);
        self
    }

    /// Serves this recording instead of the pools of the collector: the live page shows it at a moment that is selected
    /// with a slider, and the API answers for the time of its parameter `at`.
    #[must_use]
    pub fn recording(mut self, recording: Recording) -> Self {
        self.recording = Some(Arc::new(recording));
        self
    }

    /// Serves with this web configuration: TLS, authentication, and response headers. Without it, the exporter serves
    /// plain HTTP without authentication.
    ///
    /// Clones of the exporter share it, and reload it together.
    #[cfg(feature = "web-config")]
    #[must_use]
    pub fn web_config(mut self, config: WebConfig) -> Self {
        self.web_config = Some(Arc::new(LiveConfig::new(config)));
        self
    }

    /// Opens the socket and registers the exporter's own metrics. Connections wait until [`BoundExporter::serve`] is
    /// polled.
    ///
    /// `address` is `host:port`, `[::1]:port` for IPv6, or `:port` for all interfaces, IPv4 and IPv6. Port 0 selects a
    /// free port, which [`BoundExporter::local_addr`] returns.
    ///
    /// # Errors
    ///
    /// Returns an error if the address is invalid, or cannot be resolved or listened on, and if another exporter has
    /// registered its metrics in the same registry.
    ///
    /// # Panics
    ///
    /// Panics outside a tokio runtime with I/O and time enabled.
    pub async fn bind(&self, address: impl ToString) -> Result<BoundExporter, ExporterError> {
        let address = address.to_string();
        let (listener, local_addr) = address::listen(&address).await?;
        self.bound(listener, local_addr).await
    }

    /// Serves on an existing listener, such as one that a service manager opened. Otherwise like [`bind`](Self::bind).
    ///
    /// # Errors
    ///
    /// Returns an error if the listener is unusable, and if another exporter has registered its metrics in the same
    /// registry.
    ///
    /// # Panics
    ///
    /// Panics outside a tokio runtime with I/O and time enabled.
    pub async fn bind_to(&self, listener: StdListener) -> Result<BoundExporter, ExporterError> {
        let register = || {
            listener.set_nonblocking(true)?;
            let local_addr = listener.local_addr()?;
            Ok((TcpListener::from_std(listener)?, local_addr))
        };
        let (listener, local_addr) = register().map_err(|source| ExporterError::Socket { source })?;
        self.bound(listener, local_addr).await
    }

    async fn bound(&self, listener: TcpListener, local_addr: SocketAddr) -> Result<BoundExporter, ExporterError> {
        // After opening the socket, so that a busy address leaves the registry unchanged.
        let register = || Scraper::register(self.collector.clone(), self.registry.clone());
        let scraper = self.scraper.get_or_try_init(register).await?;
        let routes = Routes::new(Arc::clone(scraper), self.api(), self.readiness.clone(), &self.links);
        let handler = ConnectionHandler::new(Auth::new(self.web_config.clone()), routes);
        Ok(BoundExporter::new(listener, local_addr, handler, self.collector.clone()))
    }

    fn api(&self) -> Api {
        if let Some(recording) = &self.recording {
            let replay = || Arc::new(Replay::new(Recording::clone(recording), self.trace_url.clone()));
            return Api::replay(ReplayApi::new(Arc::clone(self.replay.get_or_init(replay))));
        }
        let limiter = || BlockingLimiter::new(MAX_POOL_LISTINGS, POOL_LISTING_QUEUE_TIMEOUT);
        let limiter = self.pool_listings.get_or_init(limiter);
        let pools = PoolsApi::new(self.collector.clone(), limiter.clone());
        let history = HistoryApi::new(Arc::clone(self.collector.history()), limiter.clone());
        let viewers = || Arc::new(Viewers::new(self.collector.clone(), limiter.clone(), self.trace_url.clone()));
        let stream = StreamApi::new(Arc::clone(self.viewers.get_or_init(viewers)));
        let record = self.recorder.clone().map(|recorder| RecordApi::new(self.collector.clone(), recorder));
        Api::live(pools, history, stream, record)
    }
}
