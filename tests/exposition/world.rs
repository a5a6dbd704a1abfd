//! Pools over a backend of no substance, whose clock stands still: whatever is written twice says the same twice.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use deadpool::managed::{Manager, Metrics, RecycleResult};
use http::{Request, Response, StatusCode};
use http_body_util::Empty;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use poolscope::exporter::{Exposition, Format, Page};
use poolscope::labels::ErrorCode;
use poolscope::middleware::PoolLayer;
use poolscope::pool::{Backend, Guard};
use poolscope::telemetry::clock::Clock;
use poolscope::{Collector, RetryPolicy, Settings};
use prometheus::{Registry, TextEncoder};
use tower::{Layer as _, ServiceExt as _, service_fn};

use super::pages::{Family, read};

/// Connects, or does not.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fickle {
    refuses: Arc<AtomicBool>,
}

#[derive(Debug, thiserror::Error)]
#[error("refused")]
pub(crate) struct Refused;

impl Manager for Fickle {
    type Type = ();
    type Error = Refused;

    async fn create(&self) -> Result<(), Refused> {
        if self.refuses.load(Relaxed) { Err(Refused) } else { Ok(()) }
    }

    async fn recycle(&self, (): &mut (), _: &Metrics) -> RecycleResult<Refused> {
        Ok(())
    }
}

impl Backend for Fickle {
    fn code(_: &Refused) -> ErrorCode {
        ErrorCode::word("57P03")
    }
}

/// What happens to a pool. Its operations are known by their names.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// An operation that takes so many microseconds, and fails or not.
    Run {
        operation: String,
        micros: u32,
        fails: bool,
        trace: Trace,
    },
    /// A checkout that is kept; if there is no capacity, it is given up.
    Hold {
        operation: String,
        trace: Trace,
    },
    /// The oldest that is kept comes back.
    Return,
    /// An operation that cannot connect, and is tried again.
    Refuse {
        operation: String,
    },
    Wait {
        micros: u32,
    },
    /// A request that is served by this route, and runs an operation there.
    Serve {
        route: String,
        micros: u32,
        fails: bool,
    },
}

/// In which trace something happens: its number, if it is sampled.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Trace {
    pub(crate) number: u8,
    pub(crate) sampled: bool,
}

impl Trace {
    /// Enters its span on this thread, until what is returned is dropped.
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

/// Two connections, no more.
fn settings() -> Settings {
    let mut settings = Settings::default();
    (settings.pool_size, settings.max_overflow) = (1, 1);
    settings
}

/// Longer than a checkout that finds capacity takes, on a clock that passes when nothing else happens.
const PATIENCE: Duration = Duration::from_millis(1);

pub(crate) struct Pool {
    core: poolscope::Pool<Fickle>,
    backend: Fickle,
    hands: Arc<quanta::Mock>,
    held: Vec<Guard<Fickle>>,
}

impl Pool {
    pub(crate) fn new(name: &str, collector: &Collector) -> Self {
        let (clock, hands) = Clock::mock();
        let backend = Fickle::default();
        let core = poolscope::Pool::with_clock(backend.clone(), name, &settings(), collector, clock).unwrap();
        Self { core, backend, hands, held: Vec::new() }
    }

    pub(crate) async fn take(&mut self, step: &Step) {
        match step {
            Step::Run { operation, micros, fails, trace } => {
                let _entered = trace.enter();
                let run = self.core.operation(operation).run(async |_| {
                    self.hands.increment(Duration::from_micros((*micros).into()));
                    if *fails { Err(Refused) } else { Ok(()) }
                });
                let _ = tokio::time::timeout(PATIENCE, run).await;
            }
            Step::Hold { operation, trace } => {
                let _entered = trace.enter();
                let operation = self.core.operation(operation);
                if let Ok(Ok(guard)) = tokio::time::timeout(PATIENCE, operation.get()).await {
                    self.held.push(guard);
                }
            }
            Step::Return => {
                if !self.held.is_empty() {
                    drop(self.held.remove(0));
                }
            }
            Step::Refuse { operation } => {
                self.backend.refuses.store(true, Relaxed);
                let policy = RetryPolicy::new().backoff(Duration::ZERO, Duration::ZERO).attempts(2);
                let operation = self.core.operation(operation).retry(policy);
                let _ = tokio::time::timeout(PATIENCE, operation.run(async |_| Ok::<_, Refused>(()))).await;
                self.backend.refuses.store(false, Relaxed);
            }
            Step::Serve { route, micros, fails } => {
                let (route, micros) = (route.clone(), Duration::from_micros((*micros).into()));
                let status = if *fails { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::OK };
                let served = service_fn(move |request: Request<Arc<quanta::Mock>>| async move {
                    let pool = request.extensions().get::<poolscope::Pool<Fickle>>().unwrap();
                    let run = pool.run(async |_| {
                        request.body().increment(micros);
                        Ok::<_, Refused>(())
                    });
                    let _ = tokio::time::timeout(PATIENCE, run).await;
                    let mut answer = Response::new(Empty::<Bytes>::new());
                    *answer.status_mut() = status;
                    Ok::<_, Infallible>(answer)
                });
                let layer = PoolLayer::new(&self.core).route_by(move |_| Some(route.clone().into()));
                layer.layer(served).oneshot(Request::new(Arc::clone(&self.hands))).await.unwrap();
            }
            Step::Wait { micros } => self.hands.increment(Duration::from_micros((*micros).into())),
        }
    }
}

/// A registry that is written by both, again and again with the same tools.
pub(crate) struct Writer {
    registry: Registry,
    exposition: Exposition,
    page: Page,
}

impl Writer {
    pub(crate) fn new(registry: &Registry) -> Self {
        Self { registry: registry.clone(), exposition: Exposition::new(registry.clone()), page: Page::new() }
    }

    pub(crate) fn page(&mut self, format: Format) -> String {
        self.exposition.write(format, &mut self.page).unwrap();
        self.page.to_text()
    }

    #[track_caller]
    pub(crate) fn ours(&mut self, format: Format) -> Vec<Family> {
        read(format, &self.page(format))
    }

    /// What the `prometheus` crate makes of it.
    #[track_caller]
    pub(crate) fn theirs(&self) -> Vec<Family> {
        let text = TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap();
        // Of what has no end it says `inf`, which Prometheus takes, but which is in neither format's description.
        read(Format::Text, &text.replace(" inf\n", " +Inf\n").replace(" -inf\n", " -Inf\n"))
    }
}

/// A registry with a collector of ours in it.
pub(crate) fn registry() -> (Registry, Collector) {
    let (registry, collector) = (Registry::new(), Collector::new());
    registry.register(Box::new(collector.clone())).unwrap();
    (registry, collector)
}

/// Runs a test's own future on a clock that passes by itself.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(future)
}
