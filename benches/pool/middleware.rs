//! What the middleware adds to a request, with and without a checkout; and what shedding does for those who are served.

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

use crate::comparison::{Rounds, median};
use crate::pools::{NoIo, POOL_SIZE};
use crate::report::Row;
use crate::{Failure, Scale};

/// Requests in a turn.
const TURN: u32 = 2_000;
/// Requests whose allocations are counted.
const COUNT: u64 = 1_000;

type Body = Empty<&'static [u8]>;

fn core(size: usize) -> Result<Pool<NoIo>, Failure> {
    let mut settings = Settings::default();
    (settings.pool_size, settings.max_overflow) = (size, 0);
    Ok(Pool::new(NoIo, "bench", &settings, &Collector::new())?)
}

fn route<'a>(_: Head<'a>) -> Option<Cow<'a, str>> {
    Some("/orders/{id}".into())
}

fn layer(core: &Pool<NoIo>) -> PoolLayer<NoIo> {
    PoolLayer::new(core).route_by(route)
}

/// Serves one request to the end of its answer. Polled by hand: what a server does around it is not the layer's.
fn serve<S, B>(service: &mut S) -> bool
where
    S: Service<Request<()>, Response = Response<B>, Error = Infallible>,
    B: http_body::Body + Unpin,
{
    let mut context = Context::from_waker(Waker::noop());
    let Poll::Ready(Ok(())) = service.poll_ready(&mut context) else { return false };
    let answer = pin!(service.call(black_box(Request::new(()))));
    let Poll::Ready(Ok(answer)) = answer.poll(&mut context) else { return false };
    let body = black_box(answer).into_body();
    body.is_end_stream()
}

async fn turn<S, B>(mut service: S) -> Result<f64, Failure>
where
    S: Service<Request<()>, Response = Response<B>, Error = Infallible>,
    B: http_body::Body + Unpin,
{
    let begun = Instant::now();
    for _ in 0..TURN {
        if !serve(&mut service) {
            return Err("a request was not served at once".into());
        }
    }
    Ok(begun.elapsed().as_secs_f64() * 1e9 / f64::from(TURN))
}

/// How many allocations a request makes.
fn allocations<S, B>(mut service: S) -> Result<f64, Failure>
where
    S: Service<Request<()>, Response = Response<B>, Error = Infallible>,
    B: http_body::Body + Unpin,
{
    let mut served = serve(&mut service);
    let counted = allocation_counter::measure(|| served &= (0..COUNT).all(|_| serve(&mut service)));
    if !served {
        return Err("a request was not served at once".into());
    }
    #[allow(clippy::cast_precision_loss, reason = "a few thousand")]
    Ok(counted.count_total as f64 / COUNT as f64)
}

pub(crate) fn measure(scale: Scale) -> Result<Vec<Row>, Failure> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let mut rows = adds(&runtime, scale)?;
    rows.extend(sheds(scale)?);
    Ok(rows)
}

fn adds(runtime: &Runtime, scale: Scale) -> Result<Vec<Row>, Failure> {
    let core = core(POOL_SIZE)?;
    drop(runtime.block_on(core.get())?);
    let plain = service_fn(async |_: Request<()>| Ok::<_, Infallible>(Response::new(Body::new())));
    // What any layer does that puts a handle into the request.
    let own = core.clone();
    let inserting = service_fn(move |mut request: Request<()>| {
        request.extensions_mut().insert(own.clone());
        black_box(request);
        std::future::ready(Ok::<_, Infallible>(Response::new(Body::new())))
    });
    let own = core.clone();
    let asking = service_fn(move |_: Request<()>| {
        let core = own.clone();
        async move {
            // It is ready at once, or the request is none.
            let asked = core.get().await;
            black_box(&asked);
            Ok::<_, Infallible>(Response::new(Body::new()))
        }
    });

    let mut rounds = Rounds::new();
    let bare = rounds.add(|| turn(plain));
    let control = rounds.add(|| turn(plain));
    let layered = rounds.add(|| turn(layer(&core).insert_pool(false).layer(plain)));
    let bare_inserting = rounds.add(|| turn(inserting.clone()));
    let layered_inserting = rounds.add(|| turn(layer(&core).layer(plain)));
    let bare_asking = rounds.add(|| turn(asking.clone()));
    let layered_asking = rounds.add(|| turn(layer(&core).insert_pool(false).layer(asking.clone())));
    let times = runtime.block_on(tokio::task::unconstrained(rounds.run(scale.of(2_000))))?;
    let added = |of: usize, to: usize| median(times[of].iter().zip(&times[to]).map(|(of, to)| of - to).collect());

    let more = |of: f64, to: f64| of - to;
    let counted = more(allocations(layer(&core).insert_pool(false).layer(plain))?, allocations(plain)?);
    let inserted = more(allocations(layer(&core).layer(plain))?, allocations(inserting.clone())?);
    Ok(vec![
        Row::count("request_ns", "nanoseconds that the layer adds to a request without the pool", added(layered, bare))
            .control(added(control, bare))
            .at_most(100.0),
        Row::count("request_allocations", "allocations that it adds to that", counted).at_most(0.0),
        Row::count(
            "request_inserting_ns",
            "nanoseconds that it adds where it also puts the pool into the request, to doing that alone",
            added(layered_inserting, bare_inserting),
        )
        .at_most(100.0),
        Row::count("request_inserting_allocations", "allocations that it adds to that", inserted).at_most(0.0),
        Row::count(
            "request_insert_ns",
            "nanoseconds that it takes to put anything into a request's extensions",
            added(bare_inserting, bare),
        ),
        Row::count(
            "request_checkout_ns",
            "nanoseconds that it adds to a request with one checkout",
            added(layered_asking, bare_asking),
        ),
    ])
}

/// How long a request holds its connection.
const HOLD: Duration = Duration::from_millis(20);
/// Connections, for half as many as come.
const FEW: usize = 4;

/// The 99th percentile of those who are served, in milliseconds, and how many they are.
async fn overloaded(layer: PoolLayer<NoIo>, core: Pool<NoIo>, lasts: Duration) -> Result<(f64, usize), Failure> {
    let handler = service_fn(move |_: Request<()>| {
        let core = core.clone();
        async move {
            let mut answer = Response::new(Body::new());
            match core.get().await {
                Ok(held) => {
                    tokio::time::sleep(HOLD).await;
                    drop(held);
                }
                Err(_) => *answer.status_mut() = StatusCode::INTERNAL_SERVER_ERROR,
            }
            Ok::<_, Infallible>(answer)
        }
    });
    let service = layer.layer(handler);
    let mut ticks = tokio::time::interval(HOLD.mul_f64(0.5) / u32::try_from(FEW)?);
    let ends = Instant::now() + lasts;
    let mut requests = tokio::task::JoinSet::new();
    while Instant::now() < ends {
        ticks.tick().await;
        let service = service.clone();
        requests.spawn(async move {
            let begun = Instant::now();
            let answer = service.oneshot(Request::new(())).await;
            answer.is_ok_and(|answer| answer.status() == StatusCode::OK).then(|| begun.elapsed())
        });
    }
    let mut served: Vec<_> = requests.join_all().await.into_iter().flatten().collect();
    served.sort_unstable();
    let last = served.get(served.len() * 99 / 100).ok_or("nobody was served")?;
    Ok((last.as_secs_f64() * 1e3, served.len()))
}

fn sheds(scale: Scale) -> Result<Vec<Row>, Failure> {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let lasts = if scale.is_quick() { Duration::from_millis(300) } else { Duration::from_secs(5) };
    let core = core(FEW)?;
    let without = runtime.block_on(overloaded(layer(&core), core.clone(), lasts))?;
    let with = runtime.block_on(overloaded(layer(&core).shed_wait(4 * HOLD), core.clone(), lasts))?;
    #[allow(clippy::cast_precision_loss, reason = "some thousands")]
    let served = with.1 as f64 / without.1 as f64;
    Ok(vec![
        Row::count(
            "shed_p99_ms",
            "milliseconds, 99th percentile of those served at twice the load, shed_wait 80 ms",
            with.0,
        ),
        Row::count("unshed_p99_ms", "the same without shedding", without.0),
        Row::ratio(
            "shed_served",
            "those served with shedding, by those without (who come until all are served)",
            served,
        ),
    ])
}
