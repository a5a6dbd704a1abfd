//! Requests through the middleware layer, with their service.

use std::convert::Infallible;
use std::hint::black_box;
use std::task::{Context, Poll, Waker};

use http::{Request, Response};
use http_body_util::Empty;
use poolscope::middleware::PoolLayer;
use tower_layer::Layer;
use tower_service::Service;

use crate::BoxError;
use crate::callgrind::{counted_step, repeat};
use crate::checkouts::{NoIoManager, pool, ready, runtime};

/// A service that checks out a connection, if it has a pool.
#[derive(Clone)]
struct Handler(Option<poolscope::pool::Pool<NoIoManager>>);

impl Service<Request<()>> for Handler {
    type Response = Response<Empty<&'static [u8]>>;
    type Error = Infallible;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<()>) -> Self::Future {
        let pool = self.0.clone();
        Box::pin(async move {
            if let Some(pool) = pool {
                black_box(&pool.get().await);
            }
            Ok(Response::new(Empty::new()))
        })
    }
}

fn requests(checks_out: bool) -> Result<u32, BoxError> {
    let runtime = runtime()?;
    let pool = pool(&runtime, 10)?;
    let _entered = runtime.enter();
    let layer = PoolLayer::new(&pool).route_by(|_| Some("/orders/{id}".into())).insert_pool(false);
    let mut service = layer.layer(Handler(checks_out.then(|| pool.clone())));
    let mut context = Context::from_waker(Waker::noop());
    repeat(|| {
        let served = counted_step(|| {
            if service.poll_ready(&mut context).is_pending() {
                return false;
            }
            ready(service.call(black_box(Request::new(())))).is_some_and(|response| response.is_ok())
        });
        if served { Ok(()) } else { Err("a request was pending".into()) }
    })
}

pub(crate) fn without_checkout() -> Result<u32, BoxError> {
    requests(false)
}

pub(crate) fn with_checkout() -> Result<u32, BoxError> {
    requests(true)
}
