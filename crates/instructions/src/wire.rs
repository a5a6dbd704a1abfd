//! What the protocol observer executes for a query. The driver around it is not counted.

use opentelemetry::trace::FutureExt;
use poolscope::telemetry::Collector;
use poolscope::{Connection, Pool};

use crate::BoxError;
use crate::callgrind::start_counting;
use crate::checkouts::{install_tracing, runtime, trace};
use crate::server;

const WARM_UP: u32 = 100;
const QUERIES: u32 = 500;

/// Runs queries on one connection, of which the last ones count. Ends the process before the connection closes, which
/// would count too.
fn queries(query: &impl AsyncFn(&Connection) -> Result<(), BoxError>) -> Result<u32, BoxError> {
    let url = format!("postgres://user@127.0.0.1:{}/instructions?sslmode=disable", server::start()?);
    let runtime = runtime()?;
    runtime.block_on(
        async {
            let pool = Pool::builder().url(&url).pool_size(1).max_overflow(0).collector(Collector::new()).build()?;
            let connection = pool.get().await?;
            for _ in 0..WARM_UP {
                query(&connection).await?;
            }
            start_counting();
            for _ in 0..QUERIES {
                query(&connection).await?;
            }
            println!("{QUERIES}");
            std::process::exit(0)
        }
        .with_current_context(),
    )
}

pub(crate) fn simple() -> Result<u32, BoxError> {
    queries(&async |connection| {
        connection.batch_execute("SELECT n FROM numbers").await?;
        Ok(())
    })
}

/// A statement that is prepared for each query.
pub(crate) fn extended() -> Result<u32, BoxError> {
    queries(&async |connection| {
        connection.query_one("SELECT n FROM numbers", &[]).await?;
        Ok(())
    })
}

pub(crate) fn cached() -> Result<u32, BoxError> {
    queries(&async |connection| {
        let statement = connection.prepare_cached("SELECT n FROM numbers").await?;
        connection.query_one(&statement, &[]).await?;
        Ok(())
    })
}

/// The same within a sampled trace, in which each query has a span.
pub(crate) fn cached_sampled() -> Result<u32, BoxError> {
    install_tracing()?;
    let _attached = trace(true).attach();
    cached()
}
