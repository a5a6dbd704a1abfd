//! What the shop does when it is asked.
//!
//! Each operation holds its connection in a way of its own: a short query, a transaction that calls a payment
//! service while it is open, a report that keeps the server busy. Some fail, as they do in life. How the server
//! spends its time is played by `pg_sleep`, so that the demo costs next to no CPU.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_postgres::{Error, IsolationLevel};
use tracing::Instrument;

use super::Endpoint;
use super::answer::Served;
use super::manner::{Flaw, Manner};
use crate::demo::chance::{between, exponential, one_in};
use crate::demo::schema::{CUSTOMERS, PRODUCTS};
use poolscope::middleware::RequestScope;
use poolscope::pool::PostgresManager;
use poolscope::retry::{RetryPolicy, Retrying};
use poolscope::{Client, Connection, Operation, Pool};

/// A request number that is taken.
const TAKEN: i64 = 1;

/// By how many times listing orders is slow, where it is.
const SLOWNESS: f64 = 200.0;

/// How long the service takes that is called while a connection is held, in seconds; and the payment service, where it
/// is slow, and where not.
const ELSEWHERE: [f64; 2] = [0.8, 1.4];
const SLOW_PAYMENT: [f64; 2] = [1.5, 2.5];
const PAYMENT: [f64; 2] = [0.04, 0.16];

/// How long somebody waits for a statement who then leaves it to itself.
const IMPATIENCE: Duration = Duration::from_millis(5);

/// What serves requests: the pool, and what it does with that by name.
#[derive(Debug)]
pub(in crate::demo) struct Handlers {
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
    write_audit: Operation,
    conduct: Arc<Mutex<Conduct>>,
}

/// How the shop goes about its work.
#[derive(Debug, Default)]
struct Conduct {
    manner: Manner,
    /// Connections that are never given back.
    kept: Vec<Connection>,
}

impl Conduct {
    /// Never gives a connection back, as long as that is what is wrong.
    fn keep(&mut self, connection: Connection) {
        if self.manner.flaw == Some(Flaw::Leaks) {
            self.kept.push(connection);
        }
    }
}

/// Products that everybody wants, so that transactions get into each other's way: the first two, and the next two.
const WANTED: [i32; 2] = [1, 2];
const MOVED: [i32; 2] = [3, 4];

impl Handlers {
    pub(super) fn new(pool: &Pool) -> Self {
        Self {
            get_product: pool.operation("get_product"),
            list_orders: pool.operation("list_orders"),
            place_order: pool.operation("place_order").retry(RetryPolicy::default()),
            update_stock: pool.operation("update_stock"),
            reserve_stock: pool.operation("reserve_stock").retry(RetryPolicy::default()),
            move_stock: pool.operation("move_stock").retry(RetryPolicy::default()),
            sales_report: pool.operation("sales_report"),
            archive_orders: pool.operation("archive_orders"),
            checkout_rush: pool.operation("checkout_rush"),
            write_audit: pool.operation("write_audit"),
            conduct: Arc::default(),
            pool: pool.clone(),
        }
    }

    /// Goes about its work like this from now on. What was kept before is given back, as when a process is restarted.
    pub(in crate::demo) fn behave(&self, manner: Manner) {
        *locked(&self.conduct) = Conduct { manner, kept: Vec::new() };
    }

    fn manner(&self) -> Manner {
        locked(&self.conduct).manner
    }

    fn has(&self, flaw: Flaw) -> bool {
        self.manner().flaw == Some(flaw)
    }

    /// Whether something goes wrong that does once in so many times, in a shop where such things do.
    fn mishap(&self, once_in: u32) -> bool {
        self.manner().mishaps && one_in(once_in)
    }

    /// Does what is asked for; `id` is the number in the path, where there is one.
    pub(super) async fn serve(&self, endpoint: Endpoint, id: Option<i32>, query: Option<&str>) -> Served {
        let id = id.unwrap_or_default();
        match endpoint {
            Endpoint::GetProduct => self.get_product(id).await,
            Endpoint::ListOrders => self.list_orders(customer(query)).await,
            Endpoint::PlaceOrder => self.place_order().await,
            Endpoint::UpdateStock => self.update_stock(id).await,
            Endpoint::ReserveStock => self.reserve_stock().await,
            Endpoint::MoveStock => self.move_stock().await,
            Endpoint::SalesReport => self.sales_report().await,
            Endpoint::CountCustomers => self.count_customers().await,
            Endpoint::PrintInvoice => self.print_invoice(id).await,
            Endpoint::CheckoutRush => self.checkout_rush().await,
        }
    }

    async fn get_product(&self, id: i32) -> Served {
        let find = async |connection: &Client| {
            let sql = "SELECT name, cents, stock FROM poolscope_demo.products WHERE id = $1";
            let statement = connection.prepare_cached(sql).await?;
            let found = connection.query_opt(&statement, &[&id]).await?;
            work(connection, exponential(0.003)).await?;
            Ok(found.map(|row| {
                let (name, cents, stock): (String, i64, i32) = (row.get(0), row.get(1), row.get(2));
                json!({ "id": id, "name": name, "cents": cents, "stock": stock })
            }))
        };
        if self.has(Flaw::Discards) {
            let connection = self.get_product.get().await?;
            let found: Result<_, Error> = find(&connection).await;
            connection.discard();
            return Ok(found?.into());
        }
        let find = async |connection: &mut Connection| find(connection).await;
        Ok(self.get_product.clone().run(find).await?.into())
    }

    async fn list_orders(&self, customer: i32) -> Served {
        let list = async |connection: &mut Connection| {
            let sql = "SELECT id, product, cents FROM poolscope_demo.orders \
                       WHERE customer = $1 ORDER BY id DESC LIMIT 20";
            let statement = connection.prepare_cached(sql).await?;
            let orders = connection.query(&statement, &[&customer]).await?;
            match self.manner().flaw {
                Some(Flaw::SlowQueries) => work(connection, exponential(0.015).mul_f64(SLOWNESS)).await?,
                Some(Flaw::CallsElsewhere) => sleep(between(ELSEWHERE)).await,
                Some(Flaw::LeavesDirty) if one_in(4) => {
                    // Given up, but not at the server: the connection comes back at work.
                    let _ = timeout(IMPATIENCE, work(connection, Duration::from_millis(200))).await;
                }
                _ => work(connection, exponential(0.015)).await?,
            }
            Ok(orders.into_iter().map(|row| {
                let (id, product, cents): (i64, i32, i64) = (row.get(0), row.get(1), row.get(2));
                json!({ "id": id, "product": product, "cents": cents })
            }))
        };
        Ok(self.list_orders.clone().run(list).await?.collect())
    }

    /// A payment service is called while the transaction is open. Now and then the same request comes twice, which is no
    /// better when it is tried again.
    async fn place_order(&self) -> Served {
        let place = async |connection: &mut Connection| {
            let (request, product) = (if self.mishap(20) { TAKEN } else { new_request() }, any_product());
            let transaction = connection.transaction().await?;
            let price = transaction.prepare_cached("SELECT cents FROM poolscope_demo.products WHERE id = $1").await?;
            let cents: i64 = transaction.query_one(&price, &[&product]).await?.get(0);
            sleep(between(if self.has(Flaw::SlowPayment) { SLOW_PAYMENT } else { PAYMENT })).await;
            let insert = transaction.prepare_cached(INSERT_ORDER).await?;
            transaction.execute(&insert, &[&request, &any_customer(), &product, &cents]).await?;
            transaction.commit().await?;
            Ok(json!({ "product": product, "cents": cents }))
        };
        Ok(self.place_order.clone().run(place).await?)
    }

    /// Some crates hold nothing, and dividing by that is an error.
    async fn update_stock(&self, product: i32) -> Served {
        let update = async |connection: &mut Connection| {
            if self.has(Flaw::LeavesDirty) {
                // And nobody says COMMIT.
                connection.batch_execute("BEGIN").await?;
            }
            let sql = "UPDATE poolscope_demo.products SET stock = (stock + 1200 / $2) % 10000 WHERE id = $1";
            let statement = connection.prepare_cached(sql).await?;
            let in_a_crate: i32 = if self.mishap(30) { 0 } else { 12 };
            let updated = connection.execute(&statement, &[&product, &in_a_crate]).await?;
            work(connection, exponential(0.02)).await?;
            Ok((updated > 0).then(|| json!({ "id": product })))
        };
        Ok(self.update_stock.clone().run(update).await?.into())
    }

    /// Counts what is reserved before it reserves more: two at once cannot both be right, and one is tried again.
    async fn reserve_stock(&self) -> Served {
        let reserve = async |connection: &mut Connection| {
            let serializable = connection.build_transaction().isolation_level(IsolationLevel::Serializable);
            let transaction = serializable.start().await?;
            if self.has(Flaw::WaitsForNobody) {
                let sql = "SELECT FROM poolscope_demo.products WHERE id = ANY($1) FOR UPDATE NOWAIT";
                let lock = transaction.prepare_cached(sql).await?;
                transaction.query(&lock, &[&&WANTED[..]]).await?;
            }
            let sql = "SELECT sum(stock) FROM poolscope_demo.products WHERE id = ANY($1)";
            let count = transaction.prepare_cached(sql).await?;
            transaction.query_one(&count, &[&&WANTED[..]]).await?;
            sleep(between([0.01, 0.05])).await;
            let take = transaction.prepare_cached(ADD_STOCK).await?;
            let product = one_of(WANTED);
            transaction.execute(&take, &[&product, &-1]).await?;
            transaction.commit().await?;
            Ok(json!({ "product": product }))
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
            transaction.commit().await?;
            Ok(json!({ "from": from, "to": to }))
        };
        Ok(self.move_stock.clone().run(shift).await?)
    }

    async fn sales_report(&self) -> Served {
        let report = async |connection: &mut Connection| {
            let sql = "SELECT product, count(*), sum(cents)::bigint FROM poolscope_demo.orders \
                       GROUP BY product ORDER BY 3 DESC LIMIT 10";
            let statement = connection.prepare_cached(sql).await?;
            let sales = connection.query(&statement, &[]).await?;
            work(connection, between([0.4, 1.1])).await?;
            Ok(sales.into_iter().map(|row| {
                let (product, sold, cents): (i32, i64, i64) = (row.get(0), row.get(1), row.get(2));
                json!({ "product": product, "sold": sold, "cents": cents })
            }))
        };
        Ok(self.sales_report.clone().run(report).await?.collect())
    }

    /// Somebody forgot to name this one, so that it is counted under its method and route; and to give the connection
    /// back before the mail is sent. It has a task of its own, to which the request is handed on.
    async fn count_customers(&self) -> Served {
        let (pool, conduct, mishaps) = (self.pool.clone(), Arc::clone(&self.conduct), self.manner().mishaps);
        let count = async move {
            let connection = pool.get().await?;
            let sql = "SELECT count(DISTINCT customer) FROM poolscope_demo.orders";
            let counted = connection.query_one(sql, &[]).await?;
            if mishaps {
                sleep(between([0.1, 0.5])).await;
            }
            locked(&conduct).keep(connection);
            Ok(json!({ "customers": counted.get::<_, i64>(0) }))
        };
        // It goes when the request does.
        let mut task = JoinSet::new();
        task.spawn(RequestScope::current().scope(count.in_current_span()));
        task.join_next().await.map_or(Ok(Value::Null), |counted| counted?)
    }

    /// Old code, which has a connection of its own each time.
    async fn print_invoice(&self, customer: i32) -> Served {
        let connection = self.pool.connect_unpooled().await?;
        let sql = "SELECT id, product, cents FROM poolscope_demo.orders WHERE customer = $1 ORDER BY id DESC LIMIT 1";
        let order = connection.query_opt(sql, &[&customer]).await?;
        work(&connection, between([0.05, 0.2])).await?;
        Ok(order.map(|row| json!({ "order": row.get::<_, i64>(0), "cents": row.get::<_, i64>(2) })).into())
    }

    /// Keeps the demo from growing, however long it runs: nobody asks for it, so it has no route.
    pub(in crate::demo) async fn archive_orders(&self) {
        let archive = async |connection: &mut Connection| {
            let sql = "DELETE FROM poolscope_demo.orders WHERE request <> $1 \
                       AND id < (SELECT max(id) - 10000 FROM poolscope_demo.orders)";
            let statement = connection.prepare_cached(sql).await?;
            connection.execute(&statement, &[&TAKEN]).await.map(drop)
        };
        let span = tracing::info_span!("job", otel.name = "archive orders", otel.status_code = tracing::field::Empty);
        if let Err(error) = self.archive_orders.clone().run(archive).instrument(span.clone()).await {
            span.record("otel.status_code", "ERROR");
            span.in_scope(|| tracing::debug!(%error, "orders were not archived"));
        }
    }

    /// Everybody wants the same product at once.
    async fn checkout_rush(&self) -> Served {
        let buy = async |connection: &mut Connection| {
            work(connection, between([0.1, 0.5])).await?;
            let insert = connection.prepare_cached(INSERT_ORDER).await?;
            connection.execute(&insert, &[&new_request(), &any_customer(), &1_i32, &990_i64]).await?;
            Ok(json!({ "product": 1, "cents": 990 }))
        };
        if self.has(Flaw::Nests) {
            let mut connection = self.checkout_rush.get().await?;
            let bought: Result<_, Error> = buy(&mut connection).await;
            // While the first is held.
            self.write_audit.clone().run(async |connection| work(connection, exponential(0.005)).await).await?;
            return Ok(bought?);
        }
        Ok(self.checkout_rush.clone().run(buy).await?)
    }
}

const INSERT_ORDER: &str =
    "INSERT INTO poolscope_demo.orders (request, customer, product, cents) VALUES ($1, $2, $3, $4)";

const ADD_STOCK: &str = "UPDATE poolscope_demo.products SET stock = stock + $2 WHERE id = $1";

fn locked(conduct: &Mutex<Conduct>) -> MutexGuard<'_, Conduct> {
    conduct.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps the server busy with the connection for this time.
async fn work(connection: &Client, time: Duration) -> Result<(), Error> {
    let statement = connection.prepare_cached("SELECT pg_sleep($1)").await?;
    connection.query_one(&statement, &[&time.as_secs_f64()]).await.map(drop)
}

/// Any product's number.
pub(in crate::demo) fn any_product() -> i32 {
    fastrand::i32(1..=PRODUCTS)
}

/// Any customer's number.
pub(in crate::demo) fn any_customer() -> i32 {
    fastrand::i32(1..=CUSTOMERS)
}

/// The customer that a query names, as in `customer=17`; any if it names none.
fn customer(query: Option<&str>) -> i32 {
    let named = query.into_iter().flat_map(|query| query.split('&')).find_map(|part| part.strip_prefix("customer="));
    named.and_then(|number| number.parse().ok()).unwrap_or_else(any_customer)
}

/// A number that no request has had yet, as good as certainly.
fn new_request() -> i64 {
    fastrand::i64(1_000_000..i64::MAX)
}

fn one_of(products: [i32; 2]) -> i32 {
    products[fastrand::usize(0..2)]
}
