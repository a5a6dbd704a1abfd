//! Pools over a mock backend, with a clock that stands still, so that two pages have the same numbers.

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError};
use std::time::Duration;

use bytes::Bytes;
use deadpool::managed::{Manager, RecycleResult};
use http::{Request, Response, StatusCode};
use http_body_util::Empty;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use poolscope::exporter::{Exposition, Format, Page};
use poolscope::labels::ErrorCode;
use poolscope::middleware::PoolLayer;
use poolscope::pool::{Backend, Guard};
use poolscope::{Collector, RetryPolicy, Settings};
use prometheus::{Registry, TextEncoder};
use tower::{Layer as _, ServiceExt as _, service_fn};

use super::pages::{Family, read};

/// A manager that connects, or fails to.
#[derive(Clone, Debug, Default)]
pub(crate) struct MockManager {
    is_refusing: Arc<AtomicBool>,
}

#[derive(Debug, thiserror::Error)]
#[error("refused")]
pub(crate) struct ConnectRefused;

impl Manager for MockManager {
    type Type = ();
    type Error = ConnectRefused;

    async fn create(&self) -> Result<(), ConnectRefused> {
        if self.is_refusing.load(Relaxed) { Err(ConnectRefused) } else { Ok(()) }
    }

    async fn recycle(&self, (): &mut (), _: &deadpool::managed::Metrics) -> RecycleResult<ConnectRefused> {
        Ok(())
    }
}

impl Backend for MockManager {
    fn code(_: &ConnectRefused) -> ErrorCode {
        ErrorCode::new("57P03")
    }
}

/// A step in the life of a pool.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// An operation of this duration.
    Run {
        operation: String,
        micros: u32,
        fails: bool,
        trace: Trace,
    },
    /// A checkout that is held; without capacity, it is cancelled.
    Hold {
        operation: String,
        trace: Trace,
    },
    /// The oldest held connection is returned.
    Return,
    /// An operation that cannot connect, and is retried.
    Refuse {
        operation: String,
    },
    Wait {
        micros: u32,
    },
    /// A request of this route, which runs an operation.
    Serve {
        route: String,
        micros: u32,
        fails: bool,
    },
}

/// A trace whose spans a step may enter.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Trace {
    pub(crate) number: u8,
    pub(crate) sampled: bool,
}

impl Trace {
    /// Enters a span of the trace on this thread, until the returned guard is dropped.
    fn enter(self) -> impl Drop {
        let flags = if self.sampled { TraceFlags::SAMPLED } else { TraceFlags::NOT_SAMPLED };
        let id = self.number.max(1);
        let span = SpanContext::new(
            TraceId::from_bytes([id; 16]),
            SpanId::from_bytes([id; 8]),
            flags,
            false,
            TraceState::NONE,
        );
        opentelemetry::Context::new().with_remote_span_context(span).attach()
    }
}

/// Settings for up to two connections.
fn settings() -> Settings {
    let mut settings = Settings::default();
    (settings.pool_size, settings.max_overflow) = (1, 1);
    settings
}

/// The checkout timeout: on a paused clock, it passes only for checkouts without capacity.
const CHECKOUT_TIMEOUT: Duration = Duration::from_millis(1);

pub(crate) struct Pool {
    core: poolscope::Pool<MockManager>,
    backend: MockManager,
    mock_clock: Arc<quanta::Mock>,
    held: Vec<Guard<MockManager>>,
}

impl Pool {
    pub(crate) fn new(name: &str, collector: &Collector) -> Self {
        let backend = MockManager::default();
        let (core, mock_clock) =
            poolscope::Pool::with_mock_clock(backend.clone(), name, &settings(), collector).unwrap();
        Self { core, backend, mock_clock, held: Vec::new() }
    }

    pub(crate) fn core(&self) -> &poolscope::Pool<MockManager> {
        &self.core
    }

    pub(crate) fn backend(&self) -> MockManager {
        self.backend.clone()
    }

    pub(crate) async fn apply(&mut self, step: &Step) {
        match step {
            Step::Run { operation, micros, fails, trace } => {
                let _entered = trace.enter();
                let run = self.core.operation(operation).run(async |_| {
                    self.mock_clock.increment(Duration::from_micros((*micros).into()));
                    if *fails { Err(ConnectRefused) } else { Ok(()) }
                });
                let _ = tokio::time::timeout(CHECKOUT_TIMEOUT, run).await;
            }
            Step::Hold { operation, trace } => {
                let _entered = trace.enter();
                let operation = self.core.operation(operation);
                if let Ok(Ok(guard)) = tokio::time::timeout(CHECKOUT_TIMEOUT, operation.get()).await {
                    self.held.push(guard);
                }
            }
            Step::Return => {
                if !self.held.is_empty() {
                    drop(self.held.remove(0));
                }
            }
            Step::Refuse { operation } => {
                self.backend.is_refusing.store(true, Relaxed);
                let policy = RetryPolicy::new().backoff(Duration::ZERO, Duration::ZERO).attempts(2);
                let operation = self.core.operation(operation).retry(policy);
                let _ =
                    tokio::time::timeout(CHECKOUT_TIMEOUT, operation.run(async |_| Ok::<_, ConnectRefused>(()))).await;
                self.backend.is_refusing.store(false, Relaxed);
            }
            Step::Serve { route, micros, fails } => {
                let (route, micros) = (route.clone(), Duration::from_micros((*micros).into()));
                let status = if *fails { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::OK };
                let served = service_fn(move |request: Request<Arc<quanta::Mock>>| async move {
                    let pool = request.extensions().get::<poolscope::Pool<MockManager>>().unwrap();
                    let run = pool.run(async |_| {
                        request.body().increment(micros);
                        Ok::<_, ConnectRefused>(())
                    });
                    let _ = tokio::time::timeout(CHECKOUT_TIMEOUT, run).await;
                    let mut response = Response::new(Empty::<Bytes>::new());
                    *response.status_mut() = status;
                    Ok::<_, Infallible>(response)
                });
                let layer = PoolLayer::new(&self.core).route_by(move |_| Some(route.clone().into()));
                layer.layer(served).oneshot(Request::new(Arc::clone(&self.mock_clock))).await.unwrap();
            }
            Step::Wait { micros } => self.mock_clock.increment(Duration::from_micros((*micros).into())),
        }
    }
}

/// A collector of pools, and a registry of other collectors.
pub(crate) struct Metrics {
    pub(crate) collector: Collector,
    pub(crate) others: Registry,
    /// A registry of all of them, for the `prometheus` crate.
    all: Registry,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let (collector, others, all) = (Collector::new(), Registry::new(), Registry::new());
        all.register(Box::new(collector.clone())).unwrap();
        Self { collector, others, all }
    }

    /// Registers another collector.
    pub(crate) fn register(&self, other: impl prometheus::core::Collector + Clone + 'static) {
        self.others.register(Box::new(other.clone())).unwrap();
        self.all.register(Box::new(other)).unwrap();
    }

    pub(crate) fn exposition(&self) -> Exposition {
        Exposition::new(self.collector.clone()).registry(self.others.clone())
    }
}

/// Read-locked while pages are compared, and write-locked while the counters of the process change, as those of incident
/// files: they are on the pages of every test.
static PROCESS_COUNTERS: RwLock<()> = RwLock::new(());

/// Waits until no pages are compared, and lets no comparison begin before the guard is dropped.
pub(crate) fn change_process_counters() -> RwLockWriteGuard<'static, ()> {
    loop {
        // A writer that waits would stop a test that has a reader and needs another one.
        match PROCESS_COUNTERS.try_write() {
            Ok(guard) => return guard,
            Err(TryLockError::Poisoned(poisoned)) => return poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// Writes pages, each into the last one of its format.
pub(crate) struct Writer {
    _same_counters: RwLockReadGuard<'static, ()>,
    exposition: Exposition,
    /// The last page as text, and as OpenMetrics.
    pages: [Page; 2],
    /// The registry for the `prometheus` crate, and an exposition of it, which contains the collector twice.
    all: Registry,
    duplicate: Exposition,
}

impl Writer {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let duplicate = Exposition::new(metrics.collector.clone()).registry(metrics.all.clone());
        let same_counters = PROCESS_COUNTERS.read().unwrap_or_else(PoisonError::into_inner);
        let exposition = metrics.exposition();
        let (pages, all) = ([Page::new(), Page::new()], metrics.all.clone());
        Self { _same_counters: same_counters, exposition, pages, all, duplicate }
    }

    /// Writes a page, which must be the same if the collector is registered too.
    #[track_caller]
    pub(crate) fn page(&mut self, format: Format) -> String {
        let page = self.page_of_others(format);
        let mut duplicate = Page::new();
        self.duplicate.write(format, &mut duplicate).unwrap();
        assert_eq!(page, duplicate.to_text());
        page
    }

    /// Writes a page where registering the collector too would merge incompatible families. It must be the same as one
    /// that is written to no earlier page, or to one of the other format.
    #[track_caller]
    pub(crate) fn page_of_others(&mut self, format: Format) -> String {
        let [text, open_metrics] = &mut self.pages;
        let (page, mut other) = match format {
            Format::OpenMetrics => (open_metrics, text.clone()),
            _ => (text, open_metrics.clone()),
        };
        self.exposition.write(format, page).unwrap();
        let written = page.to_text();
        assert_eq!(page.len(), written.len());
        for fresh in [&mut Page::new(), &mut other] {
            self.exposition.write(format, fresh).unwrap();
            assert!(fresh.to_text() == written, "from nothing:\n{}\nagain:\n{written}", fresh.to_text());
        }
        written
    }

    #[track_caller]
    pub(crate) fn ours(&mut self, format: Format) -> Vec<Family> {
        read(format, &self.page(format))
    }

    /// Returns the page of the `prometheus` crate.
    #[track_caller]
    pub(crate) fn theirs(&self) -> Vec<Family> {
        gathered(&self.all)
    }
}

/// Encodes a registry with the `prometheus` crate.
#[track_caller]
pub(crate) fn gathered(registry: &Registry) -> Vec<Family> {
    let text = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
    // It writes infinity as `inf`, which Prometheus accepts, but which neither format defines.
    read(Format::Text, &text.replace(" inf\n", " +Inf\n").replace(" -inf\n", " -Inf\n"))
}

/// Runs a test on a paused clock.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(future)
}
