//! The client API of connections and operations.

use std::pin::Pin;

use poolscope::deadpool_postgres::{self, GenericClient};
use poolscope::{Connection, Pool, RetryPolicy, RunError, Settings};
use tokio::task::JoinSet;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Error, IsolationLevel, NoTls};

use crate::support::{Admin, TestPool, backend, cancel_sleep, shared, with_deadline};

async fn number(connection: &Connection, query: &str) -> i64 {
    connection.query_one(query, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn cached_statement_outlives_the_return() {
    let test = TestPool::shared("client_api_cached", |builder| builder.pool_size(1).max_overflow(0)).await;
    for _ in 0..3 {
        let connection = test.get().await;
        let statement = connection.prepare_cached("SELECT 7::bigint").await.unwrap();
        let seven: i64 = connection.query_one(&statement, &[]).await.unwrap().get(0);
        assert_eq!(seven, 7);
        assert_eq!(connection.statement_cache.size(), 1);
        let prepared = "SELECT count(*) FROM pg_prepared_statements WHERE statement = 'SELECT 7::bigint'";
        assert_eq!(number(&connection, prepared).await, 1);
    }
}

#[tokio::test]
async fn transactions_commit_and_roll_back() {
    let test = TestPool::shared("client_api_transaction", |builder| builder.pool_size(1).max_overflow(0)).await;
    let mut connection = test.get().await;
    connection.batch_execute("CREATE TEMP TABLE kept (id int)").await.unwrap();

    let mut transaction = connection.transaction().await.unwrap();
    transaction.execute("INSERT INTO kept VALUES (1)", &[]).await.unwrap();
    let savepoint = transaction.savepoint("half").await.unwrap();
    savepoint.execute("INSERT INTO kept VALUES (2)", &[]).await.unwrap();
    savepoint.rollback().await.unwrap();
    let cached = transaction.prepare_cached("INSERT INTO kept VALUES (3)").await.unwrap();
    transaction.execute(&cached, &[]).await.unwrap();
    transaction.commit().await.unwrap();

    let serializable = connection.build_transaction().isolation_level(IsolationLevel::Serializable);
    let transaction = serializable.start().await.unwrap();
    transaction.execute("INSERT INTO kept VALUES (4)", &[]).await.unwrap();
    transaction.rollback().await.unwrap();

    let transaction = connection.transaction().await.unwrap();
    transaction.execute("INSERT INTO kept VALUES (5)", &[]).await.unwrap();
    drop(transaction);

    drop(connection);
    let connection = test.get().await;
    assert_eq!(number(&connection, "SELECT sum(id) FROM kept").await, 4);
}

#[tokio::test]
async fn run_returns_value_or_error_and_is_counted() {
    let test = TestPool::shared("client_api_run", |builder| builder.pool_size(1).max_overflow(0)).await;
    let pool = &test.pool;
    let value: Result<i64, RunError<Error>> = pool
        .operation("count_to_two")
        .run(async |connection| Ok(connection.query_one("SELECT 2::bigint", &[]).await?.get(0)))
        .await;
    assert_eq!(value.unwrap(), 2);

    let failed = pool.operation("divide").run(async |connection| connection.query("SELECT 1/0", &[]).await).await;
    let Err(RunError::Operation(error)) = failed else { panic!("{failed:?}") };
    assert_eq!(error.code(), Some(&SqlState::DIVISION_BY_ZERO));

    let line = line!() + 1;
    pool.run(async |connection| connection.batch_execute("SELECT 1").await).await.unwrap();
    let here = format!("{}:{line}", file!());

    let scrape = test.scrape();
    for (operation, outcome) in [("count_to_two", "ok"), ("divide", "error"), (&*here, "ok")] {
        let of = [("operation", operation), ("outcome", outcome)];
        assert_eq!(scrape.count("poolscope_operation_duration_seconds_count", &of), 1, "{of:?}");
        // The checkout succeeded, whatever the work returned.
        let of = [("operation", operation), ("outcome", "ok")];
        assert_eq!(scrape.count("poolscope_checkouts_total", &of), 1, "{of:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spawned_tasks_run_operations() {
    let test = TestPool::shared("client_api_spawn", |builder| builder.pool_size(2).max_overflow(2)).await;
    let mut tasks = JoinSet::new();
    for task in 0..20_i64 {
        let pool = test.pool.clone();
        tasks.spawn(async move {
            pool.run(async |connection| {
                let row = connection.query_one("SELECT $1::bigint", &[&task]).await?;
                Ok::<i64, Error>(row.get(0))
            })
            .await
        });
        let operation = test.pool.operation("spawned");
        tasks.spawn(operation.run(async move |connection| {
            let mut transaction = connection.transaction().await?;
            let savepoint = transaction.transaction().await?;
            savepoint.batch_execute("SELECT 1").await?;
            savepoint.commit().await?;
            let row = transaction.query_one("SELECT $1::bigint", &[&task]).await?;
            transaction.commit().await?;
            Ok(row.get(0))
        }));
    }
    let values = with_deadline("all tasks", tasks.join_all()).await;
    assert_eq!(values.into_iter().map(Result::unwrap).sum::<i64>(), 2 * (0..20).sum::<i64>());
    assert_eq!(test.outcomes("ok"), 40);
}

/// The type of handlers in web frameworks.
type HandlerFuture<'a> = Pin<Box<dyn Future<Output = Result<i64, RunError<Error>>> + Send + 'a>>;

fn handle<'a>(pool: &'a Pool, text: &'a str) -> HandlerFuture<'a> {
    Box::pin(pool.operation("handle").run(async move |connection| {
        let row = connection.query_one("SELECT length($1)::bigint", &[&text]).await?;
        Ok(row.get(0))
    }))
}

/// A service as applications write it: methods that borrow the service, and work that borrows from its caller.
struct Shop {
    pool: Pool,
    greeting: String,
}

trait QuerySource: Send + Sync {
    fn query(&self) -> &str;
}

impl QuerySource for String {
    fn query(&self) -> &str {
        self
    }
}

impl Shop {
    async fn length(&self, connection: &mut Connection, text: &str) -> Result<i64, Error> {
        let whole = format!("{}{text}", self.greeting);
        Ok(connection.query_one("SELECT length($1)::bigint", &[&whole]).await?.get(0))
    }

    fn greet<'a>(&'a self, name: &'a str) -> HandlerFuture<'a> {
        Box::pin(self.pool.run(async move |connection| self.length(connection, name).await))
    }

    async fn greet_all(&self, names: &[String], measure: &impl QuerySource) -> Result<i64, RunError<Error>> {
        let mut sum = 0;
        let seen = std::sync::Mutex::new(0);
        self.pool
            .operation("greet_all")
            .run(async |connection| {
                for name in names {
                    sum += self.length(connection, name).await?;
                    *seen.lock().unwrap() += 1;
                }
                sum += connection.query_one(measure.query(), &[]).await?.get::<_, i64>(0);
                Ok(())
            })
            .await?;
        assert_eq!(*seen.lock().unwrap(), names.len());
        Ok(sum)
    }
}

#[tokio::test]
async fn borrowing_operation_future_is_send() {
    let test = TestPool::shared("client_api_send", |builder| builder).await;
    let text = "four".to_owned();
    assert_eq!(handle(&test.pool, &text).await.unwrap(), 4);
    let shop = Shop { pool: test.pool.clone(), greeting: "hi ".to_owned() };
    assert_eq!(shop.greet(&text).await.unwrap(), 7);
    let spawned = tokio::spawn(async move {
        let names = [text.clone(), text];
        shop.greet_all(&names, &"SELECT 100::bigint".to_owned()).await
    });
    assert_eq!(spawned.await.unwrap().unwrap(), 114);
}

#[tokio::test]
async fn environment_settings_reach_the_server() {
    let url = format!("{}?pool_size=4", shared().await.url());
    let variables = [
        ("POOLSCOPE_DATABASE_URL", &*url),
        ("POOLSCOPE_MAX_OVERFLOW", "3"),
        ("POOLSCOPE_APPLICATION_NAME", "client_api_environment"),
        ("POOLSCOPE_NAME", "from the environment"),
    ];
    let variables = variables.map(|(variable, value)| (variable.to_owned(), value.to_owned()));
    let settings = Settings::default().apply_env(variables).unwrap();
    let pool = Pool::builder().settings(settings).collector(poolscope::Collector::new()).build().unwrap();
    assert_eq!((pool.name(), pool.status().size, pool.status().max), ("from the environment", 4, 7));
    let connection = pool.get().await.unwrap();
    let name: String = connection.query_one("SHOW application_name", &[]).await.unwrap().get(0);
    assert_eq!(name, "client_api_environment");
}

/// Generic code as deadpool-postgres's users write it.
async fn answer(client: &impl GenericClient) -> Result<i64, Error> {
    let statement = client.prepare_cached("SELECT 42::bigint").await?;
    Ok(client.query_one(&statement, &[]).await?.get(0))
}

async fn answer_in_transaction(client: &mut impl GenericClient) -> Result<i64, Error> {
    let transaction = client.transaction().await?;
    let answer = answer(&transaction).await?;
    transaction.commit().await?;
    Ok(answer)
}

async fn answer_of(client: &deadpool_postgres::Client) -> Result<i64, Error> {
    answer(client).await
}

#[tokio::test]
async fn generic_code_of_deadpool_postgres_works() {
    let test = TestPool::shared("client_api_generic", |builder| builder.pool_size(1).max_overflow(0)).await;
    for _ in 0..2 {
        let mut connection = test.get().await;
        assert_eq!(answer(&**connection).await.unwrap(), 42);
        assert_eq!(answer_of(&connection).await.unwrap(), 42);
        assert_eq!(answer_in_transaction(&mut **connection).await.unwrap(), 42);
        let mut transaction = connection.transaction().await.unwrap();
        assert_eq!(answer(&transaction).await.unwrap(), 42);
        assert_eq!(answer_in_transaction(&mut transaction).await.unwrap(), 42);
        drop(transaction);
        assert_eq!(connection.statement_cache.size(), 1);
    }
    let unpooled = test.pool.connect_unpooled().await.unwrap();
    assert_eq!(answer(&**unpooled).await.unwrap(), 42);
    test.scrape();
}

/// Each `?` converts another error.
async fn checks_out_and_queries(pool: &Pool, query: &str) -> Result<i64, poolscope::Error> {
    let connection = pool.get().await?;
    let one: i64 = connection.query_one("SELECT 1::bigint", &[]).await?.get(0);
    drop(connection);
    let outside: i64 = pool.connect_unpooled().await?.query_one("SELECT 1::bigint", &[]).await?.get(0);
    let two: i64 = pool.run(async |connection| connection.query_one("SELECT 2::bigint", &[]).await).await?.get(0);
    let retried = pool.operation("retried").retry(RetryPolicy::default());
    let work = async |connection: &mut Connection| {
        // An error of this crate's own in the work.
        let row = connection.query_one(query, &[]).await?;
        Ok::<i64, poolscope::Error>(row.get(0))
    };
    Ok(one + outside + two + retried.run(work).await?)
}

#[tokio::test]
async fn one_error_for_checkouts_and_queries() {
    let test = TestPool::shared("client_api_error", |builder| builder.pool_size(1).max_overflow(0)).await;
    assert_eq!(checks_out_and_queries(&test.pool, "SELECT 3::bigint").await.unwrap(), 7);

    let error = checks_out_and_queries(&test.pool, "SELECT 'canary'::bigint").await.unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::INVALID_TEXT_REPRESENTATION));
    assert!(matches!(error, poolscope::Error::Retry(_)), "{error:?}");
    assert!(error.as_db_error().unwrap().message().contains("canary"));
    assert!(!error.is_checkout_timeout());

    let connection = test.get().await;
    let error: poolscope::Error = connection.query("SELECT 'canary'::bigint", &[]).await.unwrap_err().into();
    assert_eq!(error.to_string(), "query failed (SQLSTATE 22P02)");
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("canary"), "{source}");

    test.pool.close_within(std::time::Duration::ZERO).await.unwrap_err();
    let error = checks_out_and_queries(&test.pool, "").await.unwrap_err();
    assert!(matches!(error, poolscope::Error::Checkout(poolscope::CheckoutError::Closed { .. })), "{error:?}");
}

#[tokio::test]
async fn timeout_is_recognised_in_every_form() {
    let brief = std::time::Duration::from_millis(250);
    let settings = |builder: poolscope::PoolBuilder| {
        builder.pool_size(1).max_overflow(0).checkout_timeout(brief).wait_target(brief / 2)
    };
    let test = TestPool::shared("client_api_timeout", settings).await;
    let held = test.get().await;
    let work = async |connection: &mut Connection| connection.batch_execute("").await;
    let errors: [poolscope::Error; 3] = [
        test.pool.get().await.unwrap_err().into(),
        test.pool.run(work).await.unwrap_err().into(),
        test.pool.operation("retried").retry(RetryPolicy::default()).run(work).await.unwrap_err().into(),
    ];
    for error in errors {
        assert!(error.is_checkout_timeout(), "{error:?}");
        assert!(error.code().is_none());
    }
    drop(held);
}

#[tokio::test]
async fn discarded_connection_is_replaced() {
    let test = TestPool::shared("client_api_discard", |builder| builder.pool_size(1).max_overflow(0)).await;
    let connection = test.get().await;
    let first = backend(&connection).await;
    connection.discard();
    let status = test.pool.status();
    assert_eq!((test.closed("discarded"), status.live() - status.closing), (1, 0));
    assert_ne!(test.next_backend().await, first);
}

const SLEEP: &str = "SELECT pg_sleep(60)";

#[tokio::test]
async fn cancel_token_affects_only_its_connection() {
    let test = TestPool::shared("client_api_cancel", |builder| builder.pool_size(1).max_overflow(0)).await;
    let (admin, connection) = (Admin::new(shared().await).await, test.get().await);
    let (pid, token) = (backend(&connection).await, connection.cancel_token());
    for _ in 0..20 {
        cancel_sleep(&admin, pid, connection.batch_execute(SLEEP), token.cancel()).await;
        // A late cancel request that is still in progress would hit the next query.
        with_deadline("the cancel request", token.cancel()).await.unwrap();
        assert_eq!(number(&connection, "SELECT 7::bigint").await, 7);
    }
}

#[tokio::test]
async fn cancel_token_works_inside_a_transaction() {
    let test = TestPool::shared("client_api_cancel_transaction", |builder| builder).await;
    let (admin, mut connection) = (Admin::new(shared().await).await, test.get().await);
    let (pid, token) = (backend(&connection).await, connection.cancel_token());
    let transaction = connection.transaction().await.unwrap();
    cancel_sleep(&admin, pid, transaction.batch_execute(SLEEP), token.cancel_query(NoTls)).await;
    transaction.rollback().await.unwrap();
    assert_eq!(number(&connection, "SELECT 8::bigint").await, 8);
}
