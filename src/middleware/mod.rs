//! A layer for [tower](https://docs.rs/tower-layer) services, such as those of hyper, axum and tonic, that accounts the use
//! of a pool to requests.
//!
//! ```
//! use poolscope::Pool;
//! use poolscope::middleware::PoolLayer;
//!
//! # fn layer(pool: &Pool) -> PoolLayer {
//! PoolLayer::new(pool)
//!     // Refuse requests that would wait longer.
//!     .max_expected_wait(std::time::Duration::from_secs(2))
//!     // No route may hold more than a third of the pool.
//!     .max_route_percent(33)
//!     .server_timing(true)
//! # }
//! ```
//!
//! While a request is served, each checkout of the pool is accounted to it: the number of checkouts, the time they wait, the
//! time connections are held and what they do, and the number of retries. The results are reported as
//!
//! * metrics by route and method, `poolscope_request_…`;
//! * fields of the span in which the layer is called, if it declares them: [`FIELDS`]; with the feature `otel` also as
//!   attributes of the same names on OpenTelemetry's current span;
//! * a `Server-Timing` header, with [`PoolLayer::server_timing`];
//! * log lines with the route and the call sites of the checkouts, for a request that makes
//!   [many checkouts](PoolLayer::warn_checkouts_over) or [holds an idle connection](PoolLayer::warn_idle_hold).
//!
//! Operations without a name ([`Pool::get`], [`Pool::run`](crate::pool::Pool::run)) are named after the request's method and
//! route, as in `GET /orders/{id}`.
//!
//! # Request scope
//!
//! The service's future, and reading the response body, belong to the request. A spawned task does not, unless the
//! request's scope is passed to it: [`RequestScope::current`]. Requests are kept apart even if they share tasks and
//! threads.
//!
//! # Traces
//!
//! With the feature `otel`, a request that is served outside any OpenTelemetry span gets a server span, named after its method
//! and route: a child of the caller's span, if the request has a `traceparent`, or else the first of a trace. The tracer's
//! sampler decides whether that trace is exported. [`PoolLayer::server_span`] turns it off; services whose own layer creates
//! server spans need not, if that layer is outside.
//!
//! # Outcomes
//!
//! A request whose response has the status 504 or 408, or gRPC's deadline exceeded, is counted as `timeout`; other statuses of
//! 500 or above, server-side gRPC failures, an error of the service or the body, and a panic of either as `error`.
//!
//! A request that is dropped before the end of its response body, as hyper does when the client disconnects, is counted as
//! `cancelled`. Its connections are returned as with any dropped future, and cleaned before their next use.
//!
//! # Routes
//!
//! A route is the template that the path matched, such as `/orders/{id}`; never the path itself, which clients choose. With
//! the feature `axum` it is axum's `MatchedPath`, which exists for layers that are passed to `Router::layer` or
//! `Router::route_layer`. For other services, [`PoolLayer::route_by`] determines it. Requests with an unknown route are
//! counted as `unknown`, and routes beyond the first 200 as `other`.
//!
//! # Position in the stack
//!
//! Place a layer that limits the time of requests *inside* this one (in axum, add it to the router before this one), together with
//! the layer that turns its error into a response: the request then ends with that response, and the outcome `timeout`. A layer
//! outside drops the request at its limit, as if the client had disconnected, and the layer cannot know that there was a
//! response: the request is counted as `cancelled`. A layer that catches panics may be inside or outside.
//!
//! Place the layer inside layers that create spans, so that it can record its fields, and only around routes that use the
//! pool: with limits set it refuses every request, including probes and static files. A request's span stays open until the
//! end of the response body, when the fields are recorded. Of two nested layers of one pool, the outer one does the
//! accounting.
//!
//! [`Pool::get`]: crate::pool::Pool::get

mod accounting;
mod body;
#[cfg(feature = "axum")]
mod extract;
mod future;
mod layer;
#[cfg_attr(not(feature = "axum"), path = "matched_path_off.rs")]
mod matched_path;
mod outcome;
mod request_span;
mod route;
mod route_limits;
mod scope;
mod server_timing;
mod service;
mod settings;
mod shedding;
#[cfg_attr(not(feature = "otel"), path = "traceparent_off.rs")]
mod traceparent;

pub use self::body::ResponseBody;
#[cfg(feature = "axum")]
pub use self::extract::PoolMissing;
pub use self::future::ResponseFuture;
pub use self::layer::PoolLayer;
pub use self::request_span::FIELDS;
pub use self::route::Head;
pub use self::scope::{RequestScope, Scoped};
pub use self::service::PoolService;
pub use self::shedding::Overload;
#[cfg(all(fuzzing, feature = "otel"))]
pub(crate) use self::traceparent::fuzz as fuzz_traceparent;
