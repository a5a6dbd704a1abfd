//! The overhead of the middleware per request, with and without a checkout, and the effect of load shedding on latency.

use std::borrow::Cow;
use std::convert::Infallible;
use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use http::{Request, Response, StatusCode};
use http_body_util::Empty;
use poolscope::config::Settings;
use poolscope::middleware::{Head, PoolLayer};
use poolscope::pool::Pool;
use poolscope::telemetry::Collector;
use tokio::runtime::{Builder, Runtime};
use tower::{Layer, Service, ServiceExt, service_fn};

use crate::comparison::{Comparison, median};
use crate::minimal_layer::Minimal;
use crate::pools::{NoIoManager, POOL_SIZE};
use crate::report::Row;
use crate::{BoxError, Scale};

const REQUESTS_PER_TURN: u32 = 2_000;
/// Requests whose allocations are counted.
const COUNTED_REQUESTS: u64 = 1_000;

type Body = Empty<&'static [u8]>;

fn pool(size: usize) -> Result<Pool<NoIoManager>, BoxError> {
    let mut settings = Settings::default();
    (settings.pool_size, settings.max_overflow) = (size, 0);
    Ok(Pool::new(NoIoManager, "bench", &settings, &Collector::new())?)
}

fn route<'a>(_: Head<'a>) -> Option<Cow<'a, str>> {
    Some("/orders/{id}".into())
}

fn layer(pool: &Pool<NoIoManager>) -> PoolLayer<NoIoManager> {
    PoolLayer::new(pool).route_by(route)
}

/// Serves one request to the end of its response, polled by hand to exclude the server around it.
fn serve<S, B>(service: &mut S) -> bool
where
    S: Service<Request<()>, Response = Response<B>, Error = Infallible>,
    B: http_body::Body + Unpin,
{
    let mut context = Context::from_waker(Waker::noop());
    let Poll::Ready(Ok(())) = service.poll_ready(&mut context) else { return false };
    let response = pin!(service.call(black_box(Request::new(()))));
    let Poll::Ready(Ok(response)) = response.poll(&mut context) else { return false };
    let body = black_box(response).into_body();
    body.is_end_stream()
}

async fn turn<S, B>(mut service: S) -> Result<f64, BoxError>
where
    S: Service<Request<()>, Response = Response<B>, Error = Infallible>,
    B: http_body::Body + Unpin,
{
    let start = Instant::now();
    for _ in 0..REQUESTS_PER_TURN {
        if !serve(&mut service) {
            return Err("a request was pending".into());
        }
    }
    Ok(start.elapsed().as_secs_f64() * 1e9 / f64::from(REQUESTS_PER_TURN))
}

/// Returns the allocations per request.
fn allocations<S, B>(mut service: S) -> Result<f64, BoxError>
where
    S: Service<Request<()>, Response = Response<B>, Error = Infallible>,
    B: http_body::Body + Unpin,
{
    let mut served = serve(&mut service);
    let counted = allocation_counter::measure(|| served &= (0..COUNTED_REQUESTS).all(|_| serve(&mut service)));
    if !served {
        return Err("a request was pending".into());
    }
    #[allow(clippy::cast_precision_loss, reason = "a few thousand")]
    Ok(counted.count_total as f64 / COUNTED_REQUESTS as f64)
}

pub(crate) fn measure(scale: Scale) -> Result<Vec<Row>, BoxError> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let mut rows = overhead(&runtime, scale)?;
    rows.extend(shedding(scale)?);
    Ok(rows)
}

fn overhead(runtime: &Runtime, scale: Scale) -> Result<Vec<Row>, BoxError> {
    let pool = pool(POOL_SIZE)?;
    drop(runtime.block_on(pool.get())?);
    let plain = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(Body::new())));
    // The baseline: any layer that inserts a handle into the request.
    let handle = pool.clone();
    let inserting = service_fn(move |mut request: Request<()>| {
        request.extensions_mut().insert(handle.clone());
        black_box(request);
        std::future::ready(Ok::<_, Infallible>(Response::new(Body::new())))
    });
    let handle = pool.clone();
    let checking_out = service_fn(move |_: Request<()>| {
        let pool = handle.clone();
        async move {
            // Ready at once, or the request fails.
            let connection = pool.get().await;
            black_box(&connection);
            Ok::<_, Infallible>(Response::new(Body::new()))
        }
    });

    let mut comparison = Comparison::new();
    let bare = comparison.add(|| turn(plain));
    let control = comparison.add(|| turn(plain));
    let minimal = comparison.add(|| turn(Minimal::new(plain)));
    let layered = comparison.add(|| turn(layer(&pool).insert_pool(false).layer(plain)));
    let bare_inserting = comparison.add(|| turn(inserting.clone()));
    let layered_inserting = comparison.add(|| turn(layer(&pool).layer(plain)));
    let bare_checking_out = comparison.add(|| turn(checking_out.clone()));
    let layered_checking_out = comparison.add(|| turn(layer(&pool).insert_pool(false).layer(checking_out.clone())));
    let times = runtime.block_on(tokio::task::unconstrained(comparison.run(scale.of(2_000))))?;
    let added = |of: usize, to: usize| median(times[of].iter().zip(&times[to]).map(|(of, to)| of - to).collect());

    let more = |of: f64, to: f64| of - to;
    let counted = more(allocations(layer(&pool).insert_pool(false).layer(plain))?, allocations(plain)?);
    let inserted = more(allocations(layer(&pool).layer(plain))?, allocations(inserting.clone())?);
    Ok(vec![
        Row::count("request_ns", "nanoseconds added by the layer to a request without checkout", added(layered, bare))
            .control(added(control, bare))
            .at_most(100.0),
        Row::count(
            "request_minimal_ns",
            "nanoseconds added by a layer that only reads the clock twice and counts",
            added(minimal, bare),
        ),
        Row::count("request_allocations", "allocations added to that", counted).at_most(0.0),
        Row::count(
            "request_inserting_ns",
            "nanoseconds added to a layer that only inserts the pool into the request",
            added(layered_inserting, bare_inserting),
        )
        .at_most(100.0),
        Row::count("request_inserting_allocations", "allocations added to that", inserted).at_most(0.0),
        Row::count(
            "request_insert_ns",
            "nanoseconds to insert any value into a request's extensions",
            added(bare_inserting, bare),
        ),
        Row::count(
            "request_checkout_ns",
            "nanoseconds added to a request with one checkout",
            added(layered_checking_out, bare_checking_out),
        ),
    ])
}

/// How long a request holds its connection.
const HOLD: Duration = Duration::from_millis(20);
/// Enough connections for half of the requests.
const CONNECTIONS: usize = 4;

/// Returns the 99th percentile of the latency of served requests in milliseconds, and their number.
async fn overloaded(
    layer: PoolLayer<NoIoManager>,
    pool: Pool<NoIoManager>,
    lasts: Duration,
) -> Result<(f64, usize), BoxError> {
    let handler = service_fn(move |_: Request<()>| {
        let pool = pool.clone();
        async move {
            let mut response = Response::new(Body::new());
            match pool.get().await {
                Ok(held) => {
                    tokio::time::sleep(HOLD).await;
                    drop(held);
                }
                Err(_) => *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR,
            }
            Ok::<_, Infallible>(response)
        }
    });
    let service = layer.layer(handler);
    let mut ticks = tokio::time::interval(HOLD.mul_f64(0.5) / u32::try_from(CONNECTIONS)?);
    let ends = Instant::now() + lasts;
    let mut requests = tokio::task::JoinSet::new();
    while Instant::now() < ends {
        ticks.tick().await;
        let service = service.clone();
        requests.spawn(async move {
            let start = Instant::now();
            let response = service.oneshot(Request::new(())).await;
            response.is_ok_and(|response| response.status() == StatusCode::OK).then(|| start.elapsed())
        });
    }
    let mut served: Vec<_> = requests.join_all().await.into_iter().flatten().collect();
    served.sort_unstable();
    let last = served.get(served.len() * 99 / 100).ok_or("no request was served")?;
    Ok((last.as_secs_f64() * 1e3, served.len()))
}

fn shedding(scale: Scale) -> Result<Vec<Row>, BoxError> {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let lasts = if scale.is_quick() { Duration::from_millis(300) } else { Duration::from_secs(5) };
    let pool = pool(CONNECTIONS)?;
    let without = runtime.block_on(overloaded(layer(&pool), pool.clone(), lasts))?;
    let with = runtime.block_on(overloaded(layer(&pool).max_expected_wait(4 * HOLD), pool.clone(), lasts))?;
    #[allow(clippy::cast_precision_loss, reason = "some thousands")]
    let served = with.1 as f64 / without.1 as f64;
    Ok(vec![
        Row::count(
            "shed_p99_ms",
            "milliseconds, 99th percentile of served requests at twice the capacity, max_expected_wait 80 ms",
            with.0,
        ),
        Row::count("unshed_p99_ms", "the same without shedding", without.0),
        Row::ratio("shed_served", "requests served with shedding, over those without", served),
    ])
}
