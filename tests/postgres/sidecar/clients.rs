//! The pool of sqlx, directly and through the proxy. Clients in other languages are in the tests of the command.

use std::str::FromStr as _;

use futures_util::StreamExt as _;
use futures_util::future::try_join_all;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPool, PgPoolOptions};
use sqlx::{Connection as _, Executor as _, Row as _};

use super::*;
use crate::support::shared;

/// Uses a database with a pool of sqlx. Returns what it answered.
async fn use_sqlx(url: &str) -> sqlx::Result<Vec<String>> {
    let options = PgConnectOptions::from_str(url)?;
    let pool = PgPoolOptions::new().max_connections(3).acquire_timeout(TEST_TIMEOUT).connect_with(options).await?;
    let mut seen = Vec::new();

    let mut connection = pool.acquire().await?;
    // Several statements in one message.
    connection.execute("CREATE TEMP TABLE items (id int PRIMARY KEY, name text); SELECT 1").await?;
    let mut transaction = connection.begin().await?;
    for id in 0..20 {
        let insert = "INSERT INTO items VALUES ($1, $2) RETURNING name || '!'";
        let name: String = sqlx::query_scalar(insert)
            .bind(id)
            .bind(format!("name {id}"))
            .persistent(id > 3)
            .fetch_one(&mut *transaction)
            .await?;
        seen.push(name);
    }
    transaction.commit().await?;

    // A savepoint, and an error within it.
    let mut transaction = connection.begin().await?;
    let mut nested = transaction.begin().await?;
    let failed = sqlx::query("INSERT INTO items VALUES (1)").execute(&mut *nested).await;
    seen.push(format!("{:?}", failed.unwrap_err().as_database_error().and_then(|error| error.code())));
    nested.rollback().await?;
    sqlx::query("DELETE FROM items WHERE id >= 10").execute(&mut *transaction).await?;
    drop(transaction);
    seen.push(count(&mut connection).await?);
    for broken in ["SELECT broken", "SELECT 1 / (SELECT 0)"] {
        seen.push(sqlx::query(broken).execute(&mut *connection).await.unwrap_err().to_string());
    }

    let mut copy = connection.copy_in_raw("COPY items FROM STDIN").await?;
    for id in 100..2100 {
        copy.send(format!("{id}\t{}\n", "x".repeat(500)).into_bytes()).await?;
    }
    seen.push(copy.finish().await?.to_string());
    let mut copy = connection.copy_in_raw("COPY items FROM STDIN").await?;
    copy.send(&b"1\ttwice\n"[..]).await?;
    seen.push(copy.finish().await.unwrap_err().to_string());
    let mut copied = Vec::new();
    let mut copy = connection.copy_out_raw("COPY (SELECT * FROM items ORDER BY id) TO STDOUT").await?;
    while let Some(chunk) = copy.next().await {
        copied.extend_from_slice(&chunk?);
    }
    drop(copy);
    seen.push(String::from_utf8(copied).expect("text"));
    // A result that is not read to its end, and then a query.
    let mut rows = sqlx::query("SELECT * FROM items, generate_series(1, 5) ORDER BY id").fetch(&mut *connection);
    let first = rows.next().await.expect("a row")?;
    seen.push(format!("{:?}", first.try_get::<String, _>("name")?));
    drop(rows);
    seen.push(count(&mut connection).await?);
    drop(connection);

    // More of them at once than connections.
    let double = async |number: i32| {
        sqlx::query_scalar::<_, i32>("SELECT $1 * 2 FROM pg_sleep(0.001)").bind(number).fetch_one(&pool).await
    };
    seen.push(format!("{:?}", try_join_all((0..20).map(double)).await?));

    let mut listener = PgListener::connect_with(&pool).await?;
    let channel = format!("sqlx_{}", random_number(&pool).await?);
    listener.listen(&channel).await?;
    sqlx::query("SELECT pg_notify($1, 'payload')").bind(&channel).execute(&pool).await?;
    seen.push(listener.recv().await?.payload().to_owned());
    listener.unlisten_all().await?;
    drop(listener);
    pool.close().await;
    Ok(seen)
}

async fn count(connection: &mut sqlx::PgConnection) -> sqlx::Result<String> {
    let counted: (i64, Option<i64>) =
        sqlx::query_as("SELECT count(*), sum(id) FROM items").fetch_one(connection).await?;
    Ok(format!("{counted:?}"))
}

/// Returns a number for a name that no other run uses.
async fn random_number(pool: &PgPool) -> sqlx::Result<i64> {
    sqlx::query_scalar("SELECT (random() * 1e15)::int8").fetch_one(pool).await
}

#[tokio::test]
async fn sqlx_returns_the_same() {
    let server = shared().await;
    let sidecar = Sidecar::to(server).await;
    let [direct, through] = [server.tcp_url().unwrap(), sidecar.url("sqlx")];
    let direct = with_deadline("direct queries", use_sqlx(&direct)).await.unwrap();
    let through = with_deadline("queries through the proxy", use_sqlx(&through)).await.unwrap();
    assert!(direct.iter().any(|seen| seen.contains("23505")) && direct.last().unwrap() == "payload", "{direct:?}");
    assert_eq!(through, direct);
    let pool = sidecar.await_pool("sqlx", "the pool's end", |pool| pool.connections.live() == 0).await;
    assert_adds_up(&pool);
    let ended = closed(&pool, CloseReason::ClientClosed) + closed(&pool, CloseReason::ClientLost);
    assert_eq!((pool.wires_lost, ended), (0, pool.created), "{pool:?}");
    let errors = |code| pool.query_errors.iter().filter(|of| of.code.as_str() == code).map(|of| of.count).sum::<u64>();
    assert_eq!((errors("23505"), errors("42703"), errors("22012")), (2, 1, 1), "{:?}", pool.query_errors);
}
