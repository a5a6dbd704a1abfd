//! What the shop does with a request.
//!
//! Each operation holds its connection in a way of its own: a short query, a transaction that calls a payment
//! service while it is open, a report that keeps the server busy. Some fail, as they do in life. How the server
//! spends its time is played by `pg_sleep`, so that the demo costs next to no CPU.

use std::error::Error as StdError;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tokio_postgres::{Error, IsolationLevel};
use tracing::Instrument;

use super::{Request, between, exponential};
use crate::demo::schema::{CUSTOMERS, PRODUCTS};
use crate::pool::postgres::PostgresManager;
use crate::retry::{Policy, Retrying};
use crate::{Client, Connection, Operation, Pool};

/// How long a customer waits for the list of orders before leaving.
const PATIENCE: Duration = Duration::from_secs(1);

/// A request number that is taken.
const TAKEN: i64 = 1;

/// The shop. Clones are handles to the same.
#[derive(Clone, Debug)]
pub(super) struct Shop {
    pool: Pool,
    get_product: Operation,
    list_orders: Operation,
    place_order: Retrying<PostgresManager>,
    update_stock: Operation,
    reserve_stock: Retrying<PostgresManager>,
    move_stock: Retrying<PostgresManager>,
    sales_report: Operation,
    archive_orders: Operation,
    checkout_rush: Operation,
}

type Served = Result<(), Box<dyn StdError + Send + Sync>>;

/// Products that everybody wants, so that transactions get into each other's way: the first two, and the next two.
const WANTED: [i32; 2] = [1, 2];
const MOVED: [i32; 2] = [3, 4];

impl Shop {
    pub(super) fn new(pool: &Pool) -> Self {
        Self {
            get_product: pool.operation("get_product"),
            list_orders: pool.operation("list_orders"),
            place_order: pool.operation("place_order").retry(Policy::default()),
            update_stock: pool.operation("update_stock"),
            reserve_stock: pool.operation("reserve_stock").retry(Policy::default()),
            move_stock: pool.operation("move_stock").retry(Policy::default()),
            sales_report: pool.operation("sales_report"),
            archive_orders: pool.operation("archive_orders"),
            checkout_rush: pool.operation("checkout_rush"),
            pool: pool.clone(),
        }
    }

    /// Serves a request, in a span of its own, as a service would.
    pub(super) async fn serve(&self, request: Request) {
        let (route, kind) = request.route();
        let span = tracing::info_span!(
            "request",
            otel.name = route,
            otel.kind = kind,
            otel.status_code = tracing::field::Empty
        );
        let serve = async {
            if let Err(error) = self.answer(request).await {
                span.record("otel.status_code", "ERROR");
                tracing::debug!(?request, %error, "a request failed");
            }
        };
        serve.instrument(span.clone()).await;
    }

    async fn answer(&self, request: Request) -> Served {
        match request {
            Request::GetProduct => self.get_product().await,
            // A customer who leaves takes the request along: its checkout ends as cancelled.
            Request::ListOrders => timeout(PATIENCE, self.list_orders()).await.unwrap_or(Ok(())),
            Request::PlaceOrder => self.place_order().await,
            Request::UpdateStock => self.update_stock().await,
            Request::ReserveStock => self.reserve_stock().await,
            Request::MoveStock => self.move_stock().await,
            Request::SalesReport => self.sales_report().await,
            Request::CountCustomers => self.count_customers().await,
            Request::PrintInvoice => self.print_invoice().await,
            Request::ArchiveOrders => self.archive_orders().await,
            Request::CheckoutRush => self.checkout_rush().await,
        }
    }

    async fn get_product(&self) -> Served {
        let find = async |connection: &mut Connection| {
            let sql = "SELECT name, cents, stock FROM poolscope_demo.products WHERE id = $1";
            let statement = connection.prepare_cached(sql).await?;
            connection.query_one(&statement, &[&product()]).await?;
            work(connection, exponential(0.003)).await
        };
        Ok(self.get_product.clone().run(find).await?)
    }

    async fn list_orders(&self) -> Served {
        let list = async |connection: &mut Connection| {
            let sql = "SELECT id, product, cents FROM poolscope_demo.orders \
                       WHERE customer = $1 ORDER BY id DESC LIMIT 20";
            let statement = connection.prepare_cached(sql).await?;
            connection.query(&statement, &[&customer()]).await?;
            work(connection, exponential(0.015)).await
        };
        Ok(self.list_orders.clone().run(list).await?)
    }

    /// A payment service is called while the transaction is open. Now and then the same request comes twice, which is no
    /// better when it is tried again.
    async fn place_order(&self) -> Served {
        let place = async |connection: &mut Connection| {
            let (request, product) = (if one_in(20) { TAKEN } else { new_request() }, product());
            let transaction = connection.transaction().await?;
            let price = transaction.prepare_cached("SELECT cents FROM poolscope_demo.products WHERE id = $1").await?;
            let cents: i64 = transaction.query_one(&price, &[&product]).await?.get(0);
            sleep(between([0.04, 0.16])).await;
            let insert = transaction.prepare_cached(INSERT_ORDER).await?;
            transaction.execute(&insert, &[&request, &customer(), &product, &cents]).await?;
            transaction.commit().await
        };
        Ok(self.place_order.clone().run(place).await?)
    }

    /// Some crates hold nothing, and dividing by that is an error.
    async fn update_stock(&self) -> Served {
        let update = async |connection: &mut Connection| {
            let sql = "UPDATE poolscope_demo.products SET stock = (stock + 1200 / $2) % 10000 WHERE id = $1";
            let statement = connection.prepare_cached(sql).await?;
            let in_a_crate: i32 = if one_in(30) { 0 } else { 12 };
            connection.execute(&statement, &[&product(), &in_a_crate]).await?;
            work(connection, exponential(0.02)).await
        };
        Ok(self.update_stock.clone().run(update).await?)
    }

    /// Counts what is reserved before it reserves more: two at once cannot both be right, and one is tried again.
    async fn reserve_stock(&self) -> Served {
        let reserve = async |connection: &mut Connection| {
            let serializable = connection.build_transaction().isolation_level(IsolationLevel::Serializable);
            let transaction = serializable.start().await?;
            let sql = "SELECT sum(stock) FROM poolscope_demo.products WHERE id = ANY($1)";
            let count = transaction.prepare_cached(sql).await?;
            transaction.query_one(&count, &[&&WANTED[..]]).await?;
            sleep(between([0.01, 0.05])).await;
            let take = transaction.prepare_cached(ADD_STOCK).await?;
            transaction.execute(&take, &[&one_of(WANTED), &-1]).await?;
            transaction.commit().await
        };
        Ok(self.reserve_stock.clone().run(reserve).await?)
    }

    /// From one shelf to the other, whichever comes first: two that go opposite ways block each other.
    async fn move_stock(&self) -> Served {
        let from = one_of(MOVED);
        let to = if from == MOVED[0] { MOVED[1] } else { MOVED[0] };
        let shift = async |connection: &mut Connection| {
            let transaction = connection.transaction().await?;
            let add = transaction.prepare_cached(ADD_STOCK).await?;
            transaction.execute(&add, &[&from, &-1]).await?;
            sleep(between([0.02, 0.06])).await;
            transaction.execute(&add, &[&to, &1]).await?;
            transaction.commit().await
        };
        Ok(self.move_stock.clone().run(shift).await?)
    }

    async fn sales_report(&self) -> Served {
        let report = async |connection: &mut Connection| {
            let sql = "SELECT product, count(*), sum(cents)::bigint FROM poolscope_demo.orders \
                       GROUP BY product ORDER BY 3 DESC LIMIT 10";
            let statement = connection.prepare_cached(sql).await?;
            connection.query(&statement, &[]).await?;
            work(connection, between([0.4, 1.1])).await
        };
        Ok(self.sales_report.clone().run(report).await?)
    }

    /// Somebody forgot to name this one, so that it is counted under this file and line; and to give the connection
    /// back before the mail is sent.
    async fn count_customers(&self) -> Served {
        let connection = self.pool.get().await?;
        let sql = "SELECT count(DISTINCT customer) FROM poolscope_demo.orders";
        let counted = connection.query_one(sql, &[]).await?;
        sleep(between([0.1, 0.5])).await;
        drop(connection);
        tracing::trace!(customers = counted.get::<_, i64>(0), "counted");
        Ok(())
    }

    /// Old code, which has a connection of its own each time.
    async fn print_invoice(&self) -> Served {
        let connection = self.pool.connect_unpooled().await?;
        let sql = "SELECT id, product, cents FROM poolscope_demo.orders WHERE customer = $1 ORDER BY id DESC LIMIT 1";
        connection.query_opt(sql, &[&customer()]).await?;
        Ok(work(&connection, between([0.05, 0.2])).await?)
    }

    /// Keeps the demo from growing, however long it runs.
    async fn archive_orders(&self) -> Served {
        let archive = async |connection: &mut Connection| {
            let sql = "DELETE FROM poolscope_demo.orders WHERE request <> $1 \
                       AND id < (SELECT max(id) - 10000 FROM poolscope_demo.orders)";
            let statement = connection.prepare_cached(sql).await?;
            connection.execute(&statement, &[&TAKEN]).await.map(drop)
        };
        Ok(self.archive_orders.clone().run(archive).await?)
    }

    /// Everybody wants the same product at once.
    async fn checkout_rush(&self) -> Served {
        let buy = async |connection: &mut Connection| {
            work(connection, between([0.1, 0.5])).await?;
            let insert = connection.prepare_cached(INSERT_ORDER).await?;
            connection.execute(&insert, &[&new_request(), &customer(), &1_i32, &990_i64]).await.map(drop)
        };
        Ok(self.checkout_rush.clone().run(buy).await?)
    }
}

const INSERT_ORDER: &str =
    "INSERT INTO poolscope_demo.orders (request, customer, product, cents) VALUES ($1, $2, $3, $4)";

const ADD_STOCK: &str = "UPDATE poolscope_demo.products SET stock = stock + $2 WHERE id = $1";

/// Keeps the server busy with the connection for this time.
async fn work(connection: &Client, time: Duration) -> Result<(), Error> {
    let statement = connection.prepare_cached("SELECT pg_sleep($1)").await?;
    connection.query_one(&statement, &[&time.as_secs_f64()]).await.map(drop)
}

fn product() -> i32 {
    fastrand::i32(1..=PRODUCTS)
}

fn customer() -> i32 {
    fastrand::i32(1..=CUSTOMERS)
}

/// A number that no request has had yet, as good as certainly.
fn new_request() -> i64 {
    fastrand::i64(1_000_000..i64::MAX)
}

fn one_of(products: [i32; 2]) -> i32 {
    products[fastrand::usize(0..2)]
}

fn one_in(times: u32) -> bool {
    fastrand::u32(0..times) == 0
}
