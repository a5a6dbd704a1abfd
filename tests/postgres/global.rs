//! The global pool, which belongs to the first test in this process.

use std::process::Command;

use poolscope::{
    CheckoutError, Collector, Connection, ExecutionStatus, GlobalError, GlobalPoolError, Pool, RetryPolicy, RunError,
    execute_with_pool, execute_with_pool_connection, get_connection_pool, get_pooled_connection,
    get_postgres_connection, init_connection_pool,
};
use tokio_postgres::Error;

use crate::support::{shared, with_deadline};

fn builder(url: &str) -> poolscope::PoolBuilder {
    Pool::builder().url(url).name("global").pool_size(1).max_overflow(0).collector(Collector::new())
}

async fn query_seven(connection: &Connection) -> Result<i64, Error> {
    Ok(connection.query_one("SELECT 7::bigint", &[]).await?.get(0))
}

#[tokio::test]
async fn global_pool_counts_by_call_site() {
    let url = shared().await.url();
    let pool = init_connection_pool(builder(&url)).unwrap();
    let first = line!() + 1;
    let connection = with_deadline("a connection", get_pooled_connection()).await.unwrap();
    let direct = with_deadline("a connection outside the pool", get_postgres_connection()).await.unwrap();
    assert_eq!(query_seven(&connection).await.unwrap(), 7);
    drop(connection);
    let work = async |connection: &mut Connection| query_seven(connection).await;
    let value = execute_with_pool(work).await;
    assert_eq!(value.unwrap(), 7);
    let failed = execute_with_pool(async |connection| connection.batch_execute("SELECT 1/0").await).await;
    assert!(matches!(failed, Err(GlobalError::Failed(RunError::Operation(_)))), "{failed:?}");

    let retried =
        execute_with_pool_connection(RetryPolicy::default(), async |connection| query_seven(connection).await).await;
    assert_eq!((retried.status(), retried.result(), retried.attempts()), (ExecutionStatus::Success, Some(&7), 1));
    let wrong = async |connection: &mut Connection| connection.batch_execute("SELECT 1/0").await;
    let failed = execute_with_pool_connection(RetryPolicy::default(), wrong).await;
    assert_eq!((failed.status(), failed.attempts()), (ExecutionStatus::Error, 1));
    let message = failed.message().unwrap();
    assert!(
        message.contains("(permanent, 22012;") && message.ends_with("db error: ERROR: division by zero"),
        "{message}"
    );

    let snapshot = pool.snapshot();
    let names: Vec<_> =
        snapshot.operations.iter().skip(1).map(|operation| (&*operation.name, operation.started)).collect();
    let call_site = |line: u32| format!("{}:{line}", file!());
    let call_sites = [first, first + 1, first + 5, first + 7, first + 11, first + 14].map(call_site);
    let expected: Vec<_> = call_sites.iter().map(String::as_str).zip([1, 0, 1, 1, 1, 1]).collect();
    assert_eq!(names, expected);
    assert_eq!((&*snapshot.unpooled[0].operation, snapshot.unpooled[0].active), (&*call_sites[1], 1));
    drop(direct);

    // Spawned futures borrow nothing.
    let text = "as any other future".to_owned();
    let spawned = tokio::spawn(execute_with_pool(async move |connection| {
        let row = connection.query_one("SELECT length($1)::bigint", &[&text]).await?;
        Ok::<i64, Error>(row.get(0))
    }));
    assert_eq!(with_deadline("its result", spawned).await.unwrap().unwrap(), 19);
    let factor = 3;
    let spawned = tokio::spawn(async move {
        let work = async |connection: &mut Connection| query_seven(connection).await.map(|value| value * factor);
        execute_with_pool_connection(RetryPolicy::default(), work).await.into_result().unwrap()
    });
    assert_eq!(with_deadline("its result", spawned).await.unwrap(), 21);
    drop(with_deadline("a connection", tokio::spawn(get_pooled_connection())).await.unwrap().unwrap());
    drop(with_deadline("a connection", tokio::spawn(get_postgres_connection())).await.unwrap().unwrap());

    let again = init_connection_pool(builder(&url)).unwrap_err();
    assert!(
        matches!(&again, GlobalPoolError::AlreadyInitialised { pool, call_site, from_environment: false, .. }
        if pool == "global" && call_site.file() == file!()),
        "{again:?}"
    );
    get_connection_pool().unwrap().close().await;
    let closed = get_pooled_connection().await;
    assert!(matches!(closed, Err(GlobalError::Failed(CheckoutError::Closed { .. }))), "{closed:?}");
}

#[tokio::test]
async fn global_pool_is_built_from_environment() {
    const NAME: &str = "global_environment";
    if std::env::var("POOLSCOPE_NAME").as_deref() == Ok(NAME) {
        // The child process runs this test.
        let connection = with_deadline("a connection", get_pooled_connection()).await.unwrap();
        assert_eq!(query_seven(&connection).await.unwrap(), 7);
        let pool = get_connection_pool().unwrap();
        assert_eq!((pool.name(), pool.status().used, pool.status().size), (NAME, 1, 3));
        return;
    }
    let name = "global::global_pool_is_built_from_environment";
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env("POOLSCOPE_NAME", NAME)
        .env("POOLSCOPE_DATABASE_URL", shared().await.url())
        .env("POOLSCOPE_POOL_SIZE", "3")
        .output()
        .unwrap();
    let output_text = String::from_utf8_lossy(&child.stdout);
    assert!(
        child.status.success() && output_text.contains("1 passed"),
        "{output_text}{}",
        String::from_utf8_lossy(&child.stderr)
    );
}
