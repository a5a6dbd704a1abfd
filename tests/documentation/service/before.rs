//! A service on deadpool-postgres: transactions, COPY, cached statements, generic functions and notifications.

use std::env;
use std::future::poll_fn;
use std::pin::pin;

use bytes::Bytes;
use deadpool_postgres::{Config, GenericClient, Pool, PoolConfig, PoolError, Runtime, Transaction};
use futures_util::{SinkExt, TryStreamExt};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio_postgres::{AsyncMessage, NoTls};

async fn create(pool: &Pool) -> Result<(), PoolError> {
    let client = pool.get().await?;
    client.batch_execute("DROP TABLE IF EXISTS accounts; CREATE TABLE accounts (id bigint, cents bigint)").await?;
    Ok(())
}

async fn import(pool: &Pool, rows: &'static str) -> Result<u64, PoolError> {
    let client = pool.get().await?;
    let sink = client.copy_in("COPY accounts FROM STDIN WITH (FORMAT csv)").await?;
    let mut sink = pin!(sink);
    sink.send(Bytes::from_static(rows.as_bytes())).await?;
    Ok(sink.finish().await?)
}

async fn export(pool: &Pool) -> Result<String, PoolError> {
    let client = pool.get().await?;
    let stream = client.copy_out("COPY (SELECT * FROM accounts ORDER BY id) TO STDOUT WITH (FORMAT csv)").await?;
    let chunks: Vec<Bytes> = pin!(stream).try_collect().await?;
    Ok(String::from_utf8_lossy(&chunks.concat()).into_owned())
}

async fn total(client: &impl GenericClient) -> Result<i64, tokio_postgres::Error> {
    let statement = client.prepare_cached("SELECT sum(cents)::bigint FROM accounts").await?;
    Ok(client.query_one(&statement, &[]).await?.get(0))
}

async fn add(transaction: &Transaction<'_>, account: i64, cents: i64) -> Result<i64, tokio_postgres::Error> {
    let update = "UPDATE accounts SET cents = cents + $2 WHERE id = $1 RETURNING cents";
    let statement = transaction.prepare_cached(update).await?;
    Ok(transaction.query_one(&statement, &[&account, &cents]).await?.get(0))
}

async fn transfer(pool: &Pool, from: i64, to: i64, cents: i64) -> Result<i64, PoolError> {
    let mut client = pool.get().await?;
    let transaction = client.transaction().await?;
    add(&transaction, from, -cents).await?;
    let balance = add(&transaction, to, cents).await?;
    assert_eq!(total(&transaction).await?, 1200);
    transaction.execute("SELECT pg_notify('transfers', $1)", &[&format!("{from} to {to}")]).await?;
    transaction.commit().await?;
    Ok(balance)
}

async fn listen(url: &str) -> Result<UnboundedReceiver<String>, tokio_postgres::Error> {
    let (client, mut connection) = tokio_postgres::connect(url, NoTls).await?;
    let (sender, receiver) = unbounded_channel();
    tokio::spawn(async move {
        while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
            if let AsyncMessage::Notification(notification) = message {
                let _ = sender.send(notification.payload().to_owned());
            }
        }
    });
    client.batch_execute("LISTEN transfers").await?;
    // Kept, as dropping it ends the connection.
    std::mem::forget(client);
    Ok(receiver)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = env::var("DATABASE_URL")?;
    let mut config = Config::new();
    config.url = Some(url.clone());
    config.pool = Some(PoolConfig::new(4));
    let pool = config.create_pool(Some(Runtime::Tokio1), NoTls)?;

    create(&pool).await?;
    let mut transfers = listen(&url).await?;
    println!("imported {} accounts", import(&pool, "1,500\n2,700\n").await?);
    println!("account 2 has {}", transfer(&pool, 1, 2, 100).await?);
    println!("transferred {:?}", transfers.recv().await);
    println!("total {}", total(&pool.get().await?).await?);
    print!("{}", export(&pool).await?);
    Ok(())
}
