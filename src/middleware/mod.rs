//! What a request cost the pool: a layer for [tower](https://docs.rs/tower-layer) services, such as those of hyper, axum
//! and tonic.
//!
//! ```
//! use poolscope::Pool;
//! use poolscope::middleware::PoolLayer;
//!
//! # fn layer(pool: &Pool) -> PoolLayer<poolscope::pool::postgres::PostgresManager> {
//! PoolLayer::new(pool)
//!     // Refuse at once what would wait for longer than that.
//!     .shed_wait(std::time::Duration::from_secs(2))
//!     // No route may hold more than a third of the pool.
//!     .route_share(33)
//!     .server_timing(true)
//! # }
//! ```
//!
//! While a request is served, each checkout of its pool is accounted to it: how many it makes, how long they wait, for how
//! long and at what it holds its connections, how often operations are tried again. That is told
//!
//! * as metrics by route and method, `poolscope_request_…`;
//! * as fields of the span in which the layer is called, where it declares them: [`FIELDS`]; and with the feature `otel` as
//!   attributes of the same names of the span that OpenTelemetry has as its current one;
//! * as a `Server-Timing` header, with [`PoolLayer::server_timing`];
//! * in the log, where a request makes [many checkouts](PoolLayer::many_checkouts) or [holds a connection while it does
//!   something else](PoolLayer::held_elsewhere): with the route and the places that checked out.
//!
//! What is done without a name of its own ([`Pool::get`], [`Pool::run`](crate::pool::Pool::run)) is named after the
//! request's method and route, `GET /orders/{id}`.
//!
//! # What belongs to a request
//!
//! Whatever the service's future does, and the body of its answer while that is read. A task that is spawned is on its own,
//! unless the request's scope is handed on to it: [`RequestScope::current`]. Requests never mix, however they share tasks
//! and threads.
//!
//! A request that is dropped before the body of its answer has ended, as hyper does when the client is gone, is counted as
//! `cancelled`; its connections come back as those of any future that is dropped, and nobody gets them before they are
//! clean.
//!
//! # Routes
//!
//! A route is the template that the path matched, `/orders/{id}`; never the path itself, which anybody can make up. With
//! the feature `axum` it is axum's `MatchedPath`, which there is for layers that are given to `Router::layer` or
//! `Router::route_layer`. For others [`PoolLayer::route_by`] says what the route is. Those that are not known are counted
//! together, as `unknown`; and those beyond the first 200 as `other`.
//!
//! # Where to put it
//!
//! Inside the layers that trace, so that there is a span to tell, and around those routes only that may use the pool: with
//! limits set it refuses whatever comes, a probe or a static file too. A request's span is kept open until the body of its
//! answer has ended, as it is told then. Of two layers of one pool around each other the outer one counts.
//!
//! [`Pool::get`]: crate::pool::Pool::get

mod body;
#[cfg(feature = "axum")]
mod extract;
mod future;
mod layer;
mod outcome;
mod route;
mod scope;
mod service;
mod shed;
#[cfg(feature = "otel")]
mod traceparent;
mod tracking;

pub use self::body::ResponseBody;
#[cfg(feature = "axum")]
pub use self::extract::PoolMissing;
pub use self::future::ResponseFuture;
pub use self::layer::PoolLayer;
pub use self::route::Head;
pub use self::scope::{RequestScope, Scoped};
pub use self::service::PoolService;
pub use self::shed::Overload;
pub use self::tracking::FIELDS;
