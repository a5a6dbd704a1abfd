//! A service with hyper alone, which determines its routes itself.
//!
//! ```console
//! $ POOLSCOPE_DATABASE_URL=postgres://localhost/postgres cargo run --example hyper
//! $ curl -i http://127.0.0.1:3000/greetings/world
//! $ curl -s http://127.0.0.1:9719/metrics | grep poolscope_request_
//! ```
//!
//! The environment variables `LISTEN` and `METRICS` set other addresses.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "examples print their output")]

use std::borrow::Cow;
use std::convert::Infallible;
use std::env;
use std::error::Error;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use poolscope::exporter::{DEFAULT_ADDRESS, Exporter};
use poolscope::middleware::{Head, PoolLayer};
use poolscope::{Collector, Pool, Settings};
use tokio::net::TcpListener;
use tower::{Layer as _, service_fn};

/// The routes of the service.
enum Route<'a> {
    Greeting(&'a str),
    Size,
}

impl<'a> Route<'a> {
    fn of(method: &Method, uri: &'a Uri) -> Option<Self> {
        match (method, uri.path()) {
            (&Method::GET, "/size") => Some(Self::Size),
            (&Method::GET, path) => path.strip_prefix("/greetings/").map(Self::Greeting),
            _ => None,
        }
    }

    /// Returns the name in metrics, which contains no part of the path that clients choose.
    fn template(&self) -> &'static str {
        match self {
            Self::Greeting(_) => "/greetings/{name}",
            Self::Size => "/size",
        }
    }
}

fn template<'a>(head: Head<'a>) -> Option<Cow<'a, str>> {
    Route::of(head.method, head.uri).map(|route| route.template().into())
}

type TextResponse = Response<Full<Bytes>>;

async fn serve(request: Request<Incoming>) -> Result<TextResponse, Infallible> {
    let Some(pool) = request.extensions().get::<Pool>() else { return Ok(status(StatusCode::INTERNAL_SERVER_ERROR)) };
    let result = match Route::of(request.method(), request.uri()) {
        Some(Route::Greeting(name)) => query(pool, "SELECT 'Hello, ' || $1 || '!'", name).await,
        Some(Route::Size) => query(pool, "SELECT pg_size_pretty(pg_database_size($1))", "postgres").await,
        None => return Ok(status(StatusCode::NOT_FOUND)),
    };
    Ok(result.map_or_else(
        |error| {
            eprintln!("a request failed: {error}");
            status(StatusCode::INTERNAL_SERVER_ERROR)
        },
        |text| Response::new(Full::from(text)),
    ))
}

/// Runs a query with one text parameter and one text result.
async fn query(pool: &Pool, sql: &str, argument: &str) -> Result<String, Box<dyn Error + Send + Sync>> {
    let connection = pool.get().await?;
    let row = connection.query_typed(sql, &[(&argument, tokio_postgres::types::Type::TEXT)]).await?;
    Ok(row.first().map(|row| row.get(0)).unwrap_or_default())
}

fn status(status: StatusCode) -> TextResponse {
    let mut response = Response::new(Full::from(format!("{status}\n")));
    *response.status_mut() = status;
    response
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let pool = Pool::builder().settings(Settings::from_env()?).name("example").build()?;
    let address = env::var("METRICS").unwrap_or_else(|_| DEFAULT_ADDRESS.to_owned());
    let exporter = Exporter::new(Collector::global()).bind(&address).await?;
    println!("metrics at http://{}/metrics", exporter.local_addr());
    tokio::spawn(exporter.serve(std::future::pending()));

    let service = PoolLayer::new(&pool).route_by(template).server_timing(true).layer(service_fn(serve));
    let listener = TcpListener::bind(env::var("LISTEN").as_deref().unwrap_or("127.0.0.1:3000")).await?;
    println!("listening at http://{}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        let service = TowerToHyperService::new(service.clone());
        tokio::spawn(async move {
            // A client that disconnects is no error of the service.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}
