//! A service with axum: which route holds the pool, who is refused when it is overloaded, and what each request cost.
//!
//! ```console
//! $ POOLSCOPE_DATABASE_URL=postgres://localhost/postgres cargo run --example axum --features axum
//! $ curl -i http://127.0.0.1:3000/greetings/world       # Server-Timing: pool-wait;dur=…
//! $ curl -s http://127.0.0.1:9719/metrics | grep poolscope_request_
//! ```
//!
//! `LISTEN` and `METRICS` are other addresses than those.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example shows what it does")]

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
    // POOLSCOPE_DATABASE_URL, POOLSCOPE_POOL_SIZE and all the others.
    let pool = Pool::builder().settings(Settings::from_env()?).name("example").build()?;
    let layer = PoolLayer::new(&pool)
        // Rather an answer at once than one that comes too late.
        .max_expected_wait(Duration::from_secs(2))
        // The report may be asked for as often as one likes: two thirds of the pool are for the others.
        .max_route_percent(33)
        .server_timing(true);

    let registry = prometheus::Registry::new();
    registry.register(Box::new(Collector::global()))?;
    let readiness = Readiness::new();
    readiness.unless({
        let layer = layer.clone();
        move || layer.overload().map(|overload| overload.to_string())
    });
    readiness.ready();
    let address = env::var("METRICS").unwrap_or_else(|_| DEFAULT_ADDRESS.to_owned());
    let exporter = Exporter::new(registry).readiness(readiness).bind(&address).await?;
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
    // If it cannot be waited for, there is nothing to wait for.
    let _ = tokio::signal::ctrl_c().await;
}

/// Whatever went wrong, the client is not to know what.
type Answer = Result<String, StatusCode>;

fn failed(error: impl Error) -> StatusCode {
    eprintln!("a request failed: {error}");
    StatusCode::INTERNAL_SERVER_ERROR
}

/// The operation has no name of its own: it is `GET /greetings/{name}`.
async fn greet(pool: Pool, Path(name): Path<String>) -> Answer {
    let greet = async |connection: &mut poolscope::Connection| {
        connection.query_one("SELECT 'Hello, ' || $1::text || '!'", &[&name]).await.map(|row| row.get(0))
    };
    pool.run(greet).await.map_err(failed)
}

/// Takes its time, and no more than its share.
async fn report(pool: Pool) -> Answer {
    let connection = pool.get().await.map_err(failed)?;
    let rows = connection.query_one("SELECT count(*) FROM pg_class, pg_sleep(1)", &[]).await.map_err(failed)?;
    Ok(rows.get::<_, i64>(0).to_string())
}

/// What is done after the answer is still accounted to the route, as its scope is handed on.
async fn letters(pool: Pool) -> StatusCode {
    tokio::spawn(RequestScope::current().scope(async move {
        let written = pool.run(async |connection| connection.execute("SELECT pg_sleep(0.1)", &[]).await).await;
        if let Err(error) = written {
            eprintln!("no letter: {error}");
        }
    }));
    StatusCode::ACCEPTED
}
