//! Checkouts and returns, polled by hand to exclude the runtime.

use std::hint::black_box;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use deadpool::managed::{Manager, Metrics, RecycleResult};
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState, TracerProvider};
use opentelemetry_sdk::trace::SdkTracerProvider;
use poolscope::config::Settings;
use poolscope::pool::{Backend, Guard, Pool};
use poolscope::telemetry::Collector;
use tokio::runtime::{Builder, Runtime};
use tracing_subscriber::prelude::*;

use crate::BoxError;
use crate::callgrind::{counted_step, repeat};

/// A manager whose connections do no I/O.
#[derive(Debug)]
pub(crate) struct NoIoManager;

impl Manager for NoIoManager {
    type Type = u64;
    type Error = std::io::Error;

    async fn create(&self) -> Result<u64, std::io::Error> {
        Ok(1)
    }

    async fn recycle(&self, _: &mut u64, _: &Metrics) -> RecycleResult<std::io::Error> {
        Ok(())
    }
}

impl Backend for NoIoManager {}

pub(crate) fn runtime() -> Result<Runtime, BoxError> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

/// Returns a pool whose connections are established.
pub(crate) fn pool(runtime: &Runtime, size: usize) -> Result<Pool<NoIoManager>, BoxError> {
    let mut settings = Settings::default();
    (settings.pool_size, settings.max_overflow) = (size, 0);
    let pool = Pool::new(NoIoManager, "instructions", &settings, &Collector::new())?;
    runtime.block_on(async {
        let mut guards = Vec::with_capacity(size);
        for _ in 0..size {
            guards.push(pool.get().await?);
        }
        Ok::<_, BoxError>(())
    })?;
    Ok(pool)
}

/// Polls a future that must be ready.
#[inline(always)]
pub(crate) fn ready<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

fn checked<T>(value: Option<T>) -> Result<(), BoxError> {
    value.map(drop).ok_or_else(|| "a checkout was not served as expected".into())
}

pub(crate) fn fast() -> Result<u32, BoxError> {
    let runtime = runtime()?;
    let pool = pool(&runtime, 10)?;
    let _entered = runtime.enter();
    repeat(|| checked(counted_step(|| ready(black_box(&pool).get())?.ok().map(|guard| black_box(*guard)))))
}

pub(crate) fn operation() -> Result<u32, BoxError> {
    let runtime = runtime()?;
    let operation = pool(&runtime, 10)?.operation("place_order");
    let _entered = runtime.enter();
    repeat(|| checked(counted_step(|| ready(black_box(&operation).get())?.ok().map(|guard| black_box(*guard)))))
}

/// A checkout that begins to wait and is served when a connection is returned.
pub(crate) fn queued() -> Result<u32, BoxError> {
    let runtime = runtime()?;
    let pool = pool(&runtime, 1)?;
    let _entered = runtime.enter();
    let mut context = Context::from_waker(Waker::noop());
    let mut held = ready(pool.get()).ok_or("no connection")?.ok();
    repeat(|| {
        let mut checkout = Box::pin(pool.get());
        let served = counted_step(|| {
            if checkout.as_mut().poll(&mut context).is_ready() {
                return None;
            }
            // Returned by this, and handed to the one that waits.
            held = None;
            poll_served(checkout.as_mut(), &mut context)
        });
        held = served;
        if held.is_some() { Ok(()) } else { Err("a checkout was not served in its turn".into()) }
    })
}

fn poll_served<E>(
    checkout: Pin<&mut impl Future<Output = Result<Guard<NoIoManager>, E>>>,
    context: &mut Context<'_>,
) -> Option<Guard<NoIoManager>> {
    match checkout.poll(context) {
        Poll::Ready(served) => served.ok(),
        Poll::Pending => None,
    }
}

/// A checkout that begins to wait and is dropped.
pub(crate) fn cancelled() -> Result<u32, BoxError> {
    let runtime = runtime()?;
    let pool = pool(&runtime, 1)?;
    let _entered = runtime.enter();
    let _held = ready(pool.get()).ok_or("no connection")??;
    repeat(|| checked(counted_step(|| ready(black_box(&pool).get()).is_none().then_some(()))))
}

/// Installs OpenTelemetry's layer, for this process.
pub(crate) fn install_tracing() -> Result<(), BoxError> {
    let provider = SdkTracerProvider::builder().build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("instructions"));
    tracing_subscriber::registry().with(layer).try_init()?;
    Ok(())
}

/// Returns the context of an incoming request.
pub(crate) fn trace(sampled: bool) -> opentelemetry::Context {
    let flags = if sampled { TraceFlags::SAMPLED } else { TraceFlags::NOT_SAMPLED };
    let span = SpanContext::new(TraceId::from(1_u128), SpanId::from(2_u64), flags, true, TraceState::NONE);
    opentelemetry::Context::new().with_remote_span_context(span)
}

fn traced(is_sampled: bool) -> Result<u32, BoxError> {
    install_tracing()?;
    let _attached = trace(is_sampled).attach();
    fast()
}

pub(crate) fn unsampled() -> Result<u32, BoxError> {
    traced(false)
}

pub(crate) fn sampled() -> Result<u32, BoxError> {
    traced(true)
}
