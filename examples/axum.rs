//! A service with axum: metrics by route, load shedding, a limit for each route, and `Server-Timing`.
//!
//! ```console
//! $ POOLSCOPE_DATABASE_URL=postgres://localhost/postgres cargo run --example axum --features axum
//! $ curl -i http://127.0.0.1:3000/greetings/world       # Server-Timing: pool-wait;dur=…
//! $ curl -s http://127.0.0.1:9719/metrics | grep poolscope_request_
//! ```
//!
//! The environment variables `LISTEN` and `METRICS` set other addresses.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "examples print their output")]

use std::env;
use std::error::Error;
use std::time::Duration;

use axum::extract::Path;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Router, serve};
use poolscope::exporter::{DEFAULT_ADDRESS, Exporter, Readiness};
use poolscope::middleware::{PoolLayer, RequestScope};
use poolscope::{Collector, Pool, Settings};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // Reads POOLSCOPE_DATABASE_URL, POOLSCOPE_POOL_SIZE and the other variables.
    let pool = Pool::builder().settings(Settings::from_env()?).name("example").build()?;
    let layer = PoolLayer::new(&pool)
        // Respond with 503 immediately instead of too late.
        .max_expected_wait(Duration::from_secs(2))
        // However many reports are requested, two thirds of the pool remain for other routes.
        .max_route_percent(33)
        .server_timing(true);

    let readiness = Readiness::new();
    readiness.add_check({
        let layer = layer.clone();
        move || layer.overload().map(|overload| overload.to_string())
    });
    // Ready once POOLSCOPE_MIN_IDLE connections are open.
    let (warming, warmed) = (pool.clone(), readiness.clone());
    tokio::spawn(async move { warmed.ready_after(|| warming.warm_up()).await });
    let address = env::var("METRICS").unwrap_or_else(|_| DEFAULT_ADDRESS.to_owned());
    let exporter = Exporter::new(Collector::global()).readiness(readiness).bind(&address).await?;
    println!("metrics at http://{}/metrics", exporter.local_addr());
    tokio::spawn(exporter.serve(std::future::pending()));

    let router = Router::new()
        .route("/greetings/{name}", get(greet))
        .route("/report", get(report))
        .route("/letters", get(letters))
        .layer(layer);
    let listener = TcpListener::bind(env::var("LISTEN").as_deref().unwrap_or("127.0.0.1:3000")).await?;
    println!("listening at http://{}", listener.local_addr()?);
    serve(listener, router).with_graceful_shutdown(interrupted()).await?;
    pool.close_within(Duration::from_secs(5)).await?;
    Ok(())
}

async fn interrupted() {
    // Without a signal handler, shut down immediately.
    let _ = tokio::signal::ctrl_c().await;
}

/// The client receives no details of an error.
type TextResponse = Result<String, StatusCode>;

fn failed(error: impl Error) -> StatusCode {
    eprintln!("a request failed: {error}");
    StatusCode::INTERNAL_SERVER_ERROR
}

/// The operation has no name of its own, and is named `GET /greetings/{name}`.
async fn greet(pool: Pool, Path(name): Path<String>) -> TextResponse {
    let greet = async |connection: &mut poolscope::Connection| {
        connection.query_one("SELECT 'Hello, ' || $1::text || '!'", &[&name]).await.map(|row| row.get(0))
    };
    pool.run(greet).await.map_err(failed)
}

/// Runs a slow query, limited to this route's share of the pool.
async fn report(pool: Pool) -> TextResponse {
    let connection = pool.get().await.map_err(failed)?;
    let rows = connection.query_one("SELECT count(*) FROM pg_class, pg_sleep(1)", &[]).await.map_err(failed)?;
    Ok(rows.get::<_, i64>(0).to_string())
}

/// The spawned task runs in the request's scope, so its checkouts are counted for this route.
async fn letters(pool: Pool) -> StatusCode {
    tokio::spawn(RequestScope::current().scope(async move {
        let result = pool.run(async |connection| connection.execute("SELECT pg_sleep(0.1)", &[]).await).await;
        if let Err(error) = result {
            eprintln!("could not write the letter: {error}");
        }
    }));
    StatusCode::ACCEPTED
}
