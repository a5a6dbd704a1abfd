//! `SELECT 1` within traces: the overhead of OpenTelemetry spans, by Poolscope and by oxtel-sql's pool.
//!
//! oxtel-sql also records metrics with the `metrics` facade; no recorder is installed here, which favours it.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use deadpool_postgres::{Manager, ManagerConfig, RecyclingMethod};
use opentelemetry::Context;
use opentelemetry::trace::{
    FutureExt, SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState, TracerProvider,
};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider, Span, SpanData, SpanProcessor};
use poolscope::Pool;
use poolscope::telemetry::Collector;
use poolscope_testing::server::Server;
use tokio::runtime::Builder;
use tokio_postgres::NoTls;
use tracing_subscriber::prelude::*;

use crate::affinity::Pinned;
use crate::comparison::{Comparison, median, ratio};
use crate::pools::deadpool_with_timeouts;
use crate::report::Row;
use crate::{BoxError, Scale};

/// Queries in a turn; with `1pct` one of them is sampled.
const QUERIES: u32 = 100;

/// How often the trace is sampled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sampled {
    Never,
    OnePercent,
    Always,
}

impl Sampled {
    const ALL: [Self; 3] = [Self::Never, Self::OnePercent, Self::Always];

    fn is(self, query: u32) -> bool {
        match self {
            Self::Never => false,
            Self::OnePercent => query == 0,
            Self::Always => true,
        }
    }
}

/// A span processor that only counts spans.
#[derive(Clone, Debug, Default)]
struct SpanCounter(Arc<AtomicU64>);

impl SpanProcessor for SpanCounter {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, _: SpanData) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// Returns the context of an incoming request.
fn request(sampled: bool) -> Context {
    let flags = if sampled { TraceFlags::SAMPLED } else { TraceFlags::NOT_SAMPLED };
    let span = SpanContext::new(TraceId::from(1_u128), SpanId::from(2_u64), flags, true, TraceState::NONE);
    Context::new().with_remote_span_context(span)
}

/// Pools with one open connection each.
struct Pools {
    bare: [deadpool_postgres::Pool; 2],
    ours: Pool,
    oxtel: oxtel_sql::postgres::Pool,
}

impl Pools {
    async fn open(server: &Server) -> Result<(Self, Vec<i32>), BoxError> {
        let url = server.url();
        let config: tokio_postgres::Config = url.parse()?;
        let bare = || {
            let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
            deadpool_with_timeouts(Manager::from_config(config.clone(), NoTls, recycling), false)
        };
        // On a busy machine a connection may be idle for long between two turns, and a ping would be one more span.
        let ours = Pool::builder().url(&url).pool_size(1).max_overflow(0).collector(Collector::new());
        let ours = ours.pre_ping_idle(Duration::from_secs(3600));
        let pools = Self {
            bare: [bare()?, bare()?],
            ours: ours.build()?,
            oxtel: oxtel_sql::postgres::Pool::new(bare()?, &config),
        };
        let pid = "SELECT pg_backend_pid()";
        let mut servers = vec![
            pools.ours.get().await?.query_one(pid, &[]).await?.try_get(0)?,
            pools.oxtel.get().await?.query_one(pid, &[]).await?.try_get(0)?,
        ];
        for bare in &pools.bare {
            servers.push(bare.get().await?.query_one(pid, &[]).await?.try_get(0)?);
        }
        Ok((pools, servers))
    }
}

/// A checkout, `SELECT 1` and a return, for any kind of pool.
macro_rules! query {
    ($pool:expr) => {
        async move || {
            let connection = $pool.get().await?;
            let select = connection.prepare_cached("SELECT 1").await?;
            connection.query_one(&select, &[]).await?;
            Ok::<(), BoxError>(())
        }
    };
}

/// Returns the seconds per query of [`QUERIES`].
async fn turn(
    sampled: Sampled,
    contexts: &[Context; 2],
    query: impl AsyncFn() -> Result<(), BoxError>,
) -> Result<f64, BoxError> {
    let start = Instant::now();
    for number in 0..QUERIES {
        query().with_context(contexts[usize::from(sampled.is(number))].clone()).await?;
    }
    Ok(start.elapsed().as_secs_f64() / f64::from(QUERIES))
}

/// Must be measured last, as the subscriber stays installed for the rest of the process.
pub(crate) fn measure(scale: Scale) -> Result<Vec<Row>, BoxError> {
    let count = SpanCounter::default();
    let sampler = Sampler::ParentBased(Box::new(Sampler::AlwaysOn));
    let provider = SdkTracerProvider::builder().with_sampler(sampler).with_span_processor(count.clone()).build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("bench"));
    tracing_subscriber::registry().with(layer).try_init()?;

    let runtime = Builder::new_current_thread().enable_all().build()?;
    let server = runtime.block_on(Server::builder().start())?;
    let contexts = [request(false), request(true)];
    let spans = [(); 2].map(|()| Cell::new(0));
    let mut ratios: [[Vec<f64>; 3]; 3] = Default::default();
    for _ in 0..scale.of(9) {
        let (pools, servers) = runtime.block_on(Pools::open(&server))?;
        let _pinned = Pinned::on_separate_cores(&servers);
        let counted = async |index: usize, time: Result<f64, BoxError>, before: u64| {
            spans[index].set(spans[index].get() + count.0.load(Ordering::Relaxed) - before);
            time
        };
        let mut comparison = Comparison::new();
        let variants = Sampled::ALL.map(|sampled| {
            let (pools, contexts, count, counted) = (&pools, &contexts, &count, &counted);
            let [bare, control] =
                [0, 1].map(|index| comparison.add(move || turn(sampled, contexts, query!(pools.bare[index]))));
            let ours = comparison.add(move || async move {
                let before = count.0.load(Ordering::Relaxed);
                counted(0, turn(sampled, contexts, query!(pools.ours)).await, before).await
            });
            let oxtel = comparison.add(move || async move {
                let before = count.0.load(Ordering::Relaxed);
                counted(1, turn(sampled, contexts, query!(pools.oxtel)).await, before).await
            });
            [bare, control, ours, oxtel]
        });
        let times = runtime.block_on(comparison.run(scale.of(100)))?;
        for ([bare, others @ ..], ratios) in variants.iter().zip(&mut ratios) {
            for (index, ratios) in others.iter().zip(ratios) {
                ratios.push(ratio(&times[*index], &times[*bare]));
            }
        }
    }
    let [ours, oxtel] = spans.map(Cell::into_inner);
    if ours != oxtel || ours == 0 {
        return Err(format!("{ours} spans of Poolscope, but {oxtel} of oxtel-sql").into());
    }

    let [never, one_percent, always] = ratios.map(|ratios| ratios.map(median));
    let row = |key, what, [control, ours, _]: [f64; 3]| Row::ratio(key, what, ours).control(control);
    let oxtel =
        |key, [control, _, oxtel]: [f64; 3]| Row::ratio(key, "the same by oxtel-sql's pool", oxtel).control(control);
    Ok(vec![
        row("select1_otel_unsampled", "time of SELECT 1 within a trace that is not sampled", never).at_most(1.01),
        oxtel("select1_otel_unsampled_oxtel", never),
        row("select1_otel_1pct", "the same, one trace in a hundred sampled", one_percent),
        oxtel("select1_otel_1pct_oxtel", one_percent),
        row("select1_otel_always", "the same, every trace sampled", always),
        oxtel("select1_otel_always_oxtel", always),
    ])
}
