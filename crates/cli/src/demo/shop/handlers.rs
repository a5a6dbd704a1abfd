//! The request handlers of the shop.
//!
//! Each operation holds its connection in its own way: a short query, a transaction that calls a payment service, a report
//! with a long query. Some fail from time to time. `pg_sleep` simulates the server's work, so that the demo uses little CPU.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use poolscope::cache::Cache;
use poolscope::middleware::RequestScope;
use poolscope::pool::PostgresManager;
use poolscope::retry::{RetryPolicy, Retrying};
use poolscope::{Client, Connection, Operation, Pool};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_postgres::{Error, IsolationLevel};
use tracing::Instrument;

use super::Endpoint;
use super::behavior::{Behavior, CodeFault};
use super::response::HandlerResult;
use crate::demo::random::{between, exponential, one_in};
use crate::demo::schema::{CUSTOMERS, PRODUCTS};

/// The `request` of an existing order. Inserting it again violates the unique constraint.
const DUPLICATE_REQUEST: i64 = 1;

/// The factor by which queries of the order list are slow, with that fault.
const SLOW_QUERY_FACTOR: f64 = 200.0;

/// The number of products that most customers look at.
const POPULAR_PRODUCTS: i32 = 25;

/// The bounds of the duration of calls to other services, in seconds.
const EXTERNAL_CALL_SECONDS: [f64; 2] = [0.8, 1.4];
const SLOW_PAYMENT_SECONDS: [f64; 2] = [1.5, 2.5];
const PAYMENT_SECONDS: [f64; 2] = [0.04, 0.16];

/// After which time a query is abandoned without cancelling it, with [`CodeFault::DirtyReturn`].
const ABANDON_AFTER: Duration = Duration::from_millis(5);

/// The request handlers: the pool and its operations.
#[derive(Debug)]
pub(in crate::demo) struct Handlers {
    pool: Pool,
    /// The cache of products, with `--cache`.
    products: Option<Cache<Value>>,
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
    state: Arc<Mutex<State>>,
}

/// The current behavior.
#[derive(Debug, Default)]
struct State {
    behavior: Behavior,
    /// Leaked connections.
    leaked: Vec<Connection>,
}

impl State {
    /// Leaks the connection with [`CodeFault::Leak`], and otherwise returns it.
    fn finish(&mut self, connection: Connection) {
        if self.behavior.fault == Some(CodeFault::Leak) {
            self.leaked.push(connection);
        }
    }
}

/// The products of concurrent transactions, which therefore conflict: those that are reserved, and those that are moved.
const RESERVED: [i32; 2] = [1, 2];
const MOVED: [i32; 2] = [3, 4];

impl Handlers {
    pub(super) fn new(pool: &Pool, products: Option<Cache<Value>>) -> Self {
        Self {
            products,
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
            state: Arc::default(),
            pool: pool.clone(),
        }
    }

    /// Changes the behavior. Returns leaked connections, as a restart of the process would.
    pub(in crate::demo) fn set_behavior(&self, behavior: Behavior) {
        *lock(&self.state) = State { behavior, leaked: Vec::new() };
    }

    fn behavior(&self) -> Behavior {
        lock(&self.state).behavior
    }

    fn has(&self, fault: CodeFault) -> bool {
        self.behavior().fault == Some(fault)
    }

    /// Returns whether a typical error occurs, with a probability of 1 / `n`.
    fn typical_error(&self, n: u32) -> bool {
        self.behavior().typical_errors && one_in(n)
    }

    /// Handles a request; `id` is the number in the path, if it has one.
    pub(super) async fn serve(&self, endpoint: Endpoint, id: Option<i32>, query: Option<&str>) -> HandlerResult {
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

    async fn get_product(&self, id: i32) -> HandlerResult {
        let Some(cache) = &self.products else { return self.find_product(id).await };
        let load = async || self.find_product(id).await.map(|product| (!product.is_null()).then_some(product));
        Ok(cache.get_or_load(&id.to_string(), load).await?.into())
    }

    async fn find_product(&self, id: i32) -> HandlerResult {
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
        if self.has(CodeFault::Discard) {
            let connection = self.get_product.get().await?;
            let found: Result<_, Error> = find(&connection).await;
            connection.discard();
            return Ok(found?.into());
        }
        let find = async |connection: &mut Connection| find(connection).await;
        Ok(self.get_product.clone().run(find).await?.into())
    }

    async fn list_orders(&self, customer: i32) -> HandlerResult {
        let list = async |connection: &mut Connection| {
            let sql = "SELECT id, product, cents FROM poolscope_demo.orders \
                       WHERE customer = $1 ORDER BY id DESC LIMIT 20";
            let statement = connection.prepare_cached(sql).await?;
            let orders = connection.query(&statement, &[&customer]).await?;
            match self.behavior().fault {
                Some(CodeFault::SlowQueries) => work(connection, exponential(0.015).mul_f64(SLOW_QUERY_FACTOR)).await?,
                Some(CodeFault::ExternalCall) => sleep(between(EXTERNAL_CALL_SECONDS)).await,
                Some(CodeFault::DirtyReturn) if one_in(4) => {
                    // The server still runs the query: the connection is returned while busy.
                    let _ = timeout(ABANDON_AFTER, work(connection, Duration::from_millis(200))).await;
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

    /// Calls the payment service in a transaction. Some requests are duplicates, which a retry does not help.
    async fn place_order(&self) -> HandlerResult {
        let place = async |connection: &mut Connection| {
            let (request, product) =
                (if self.typical_error(20) { DUPLICATE_REQUEST } else { new_request() }, any_product());
            let transaction = connection.transaction().await?;
            let price = transaction.prepare_cached("SELECT cents FROM poolscope_demo.products WHERE id = $1").await?;
            let cents: i64 = transaction.query_one(&price, &[&product]).await?.get(0);
            sleep(between(if self.has(CodeFault::SlowPayment) { SLOW_PAYMENT_SECONDS } else { PAYMENT_SECONDS })).await;
            let insert = transaction.prepare_cached(INSERT_ORDER).await?;
            transaction.execute(&insert, &[&request, &any_customer(), &product, &cents]).await?;
            transaction.commit().await?;
            Ok(json!({ "product": product, "cents": cents }))
        };
        Ok(self.place_order.clone().run(place).await?)
    }

    /// Fails sometimes with a division by zero.
    async fn update_stock(&self, product: i32) -> HandlerResult {
        let update = async |connection: &mut Connection| {
            if self.has(CodeFault::DirtyReturn) {
                // Without COMMIT.
                connection.batch_execute("BEGIN").await?;
            }
            let sql = "UPDATE poolscope_demo.products SET stock = (stock + 1200 / $2) % 10000 WHERE id = $1";
            let statement = connection.prepare_cached(sql).await?;
            let crate_size: i32 = if self.typical_error(30) { 0 } else { 12 };
            let updated = connection.execute(&statement, &[&product, &crate_size]).await?;
            work(connection, exponential(0.02)).await?;
            Ok((updated > 0).then(|| json!({ "id": product })))
        };
        let updated = self.update_stock.clone().run(update).await?;
        self.invalidate(&[product]).await;
        Ok(updated.into())
    }

    /// Removes products from the cache, after the transaction that changed them was committed.
    async fn invalidate(&self, products: &[i32]) {
        let Some(cache) = &self.products else { return };
        for product in products {
            // The cache logs errors.
            let _ = cache.invalidate(&product.to_string()).await;
        }
    }

    /// Counts the stock in a serializable transaction: of two concurrent ones, one fails and is retried.
    async fn reserve_stock(&self) -> HandlerResult {
        let reserve = async |connection: &mut Connection| {
            let serializable = connection.build_transaction().isolation_level(IsolationLevel::Serializable);
            let transaction = serializable.start().await?;
            if self.has(CodeFault::LockNoWait) {
                let sql = "SELECT FROM poolscope_demo.products WHERE id = ANY($1) FOR UPDATE NOWAIT";
                let lock = transaction.prepare_cached(sql).await?;
                transaction.query(&lock, &[&&RESERVED[..]]).await?;
            }
            let sql = "SELECT sum(stock) FROM poolscope_demo.products WHERE id = ANY($1)";
            let count = transaction.prepare_cached(sql).await?;
            transaction.query_one(&count, &[&&RESERVED[..]]).await?;
            sleep(between([0.01, 0.05])).await;
            let take = transaction.prepare_cached(ADD_STOCK).await?;
            let product = either(RESERVED);
            transaction.execute(&take, &[&product, &-1]).await?;
            transaction.commit().await?;
            Ok(product)
        };
        let product = self.reserve_stock.clone().run(reserve).await?;
        self.invalidate(&[product]).await;
        Ok(json!({ "product": product }))
    }

    /// Updates two rows in random order: two transactions in opposite order deadlock.
    async fn move_stock(&self) -> HandlerResult {
        let from = either(MOVED);
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
        let moved = self.move_stock.clone().run(shift).await?;
        self.invalidate(&MOVED).await;
        Ok(moved)
    }

    async fn sales_report(&self) -> HandlerResult {
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

    /// Has no operation, so it is counted under its method and route. Holds its connection while an email is sent. Runs in a
    /// task of its own, with the scope of the request.
    async fn count_customers(&self) -> HandlerResult {
        let (pool, state) = (self.pool.clone(), Arc::clone(&self.state));
        let typical_errors = self.behavior().typical_errors;
        let count = async move {
            let connection = pool.get().await?;
            let sql = "SELECT count(DISTINCT customer) FROM poolscope_demo.orders";
            let counted = connection.query_one(sql, &[]).await?;
            if typical_errors {
                sleep(between([0.1, 0.5])).await;
            }
            lock(&state).finish(connection);
            Ok(json!({ "customers": counted.get::<_, i64>(0) }))
        };
        // Dropping the set aborts the task with the request.
        let mut task = JoinSet::new();
        task.spawn(RequestScope::current().scope(count.in_current_span()));
        task.join_next().await.map_or(Ok(Value::Null), |counted| counted?)
    }

    /// Legacy code, which opens a connection for each request.
    async fn print_invoice(&self, customer: i32) -> HandlerResult {
        let connection = self.pool.connect_unpooled().await?;
        let sql = "SELECT id, product, cents FROM poolscope_demo.orders WHERE customer = $1 ORDER BY id DESC LIMIT 1";
        let order = connection.query_opt(sql, &[&customer]).await?;
        work(&connection, between([0.05, 0.2])).await?;
        Ok(order.map(|row| json!({ "order": row.get::<_, i64>(0), "cents": row.get::<_, i64>(2) })).into())
    }

    /// Deletes old orders, so that the table does not grow. A background job without a route.
    pub(in crate::demo) async fn archive_orders(&self) {
        let archive = async |connection: &mut Connection| {
            let sql = "DELETE FROM poolscope_demo.orders WHERE request <> $1 \
                       AND id < (SELECT max(id) - 10000 FROM poolscope_demo.orders)";
            let statement = connection.prepare_cached(sql).await?;
            connection.execute(&statement, &[&DUPLICATE_REQUEST]).await.map(drop)
        };
        let span = tracing::info_span!("job", otel.name = "archive orders", otel.status_code = tracing::field::Empty);
        if let Err(error) = self.archive_orders.clone().run(archive).instrument(span.clone()).await {
            span.record("otel.status_code", "ERROR");
            span.in_scope(|| tracing::debug!(%error, "cannot archive orders"));
        }
    }

    /// Buys the same product in each request of a burst.
    async fn checkout_rush(&self) -> HandlerResult {
        let buy = async |connection: &mut Connection| {
            work(connection, between([0.1, 0.5])).await?;
            let insert = connection.prepare_cached(INSERT_ORDER).await?;
            connection.execute(&insert, &[&new_request(), &any_customer(), &1_i32, &990_i64]).await?;
            Ok(json!({ "product": 1, "cents": 990 }))
        };
        if self.has(CodeFault::NestedCheckout) {
            let mut connection = self.checkout_rush.get().await?;
            let bought: Result<_, Error> = buy(&mut connection).await;
            // The first connection is still held.
            self.write_audit.clone().run(async |connection| work(connection, exponential(0.005)).await).await?;
            return Ok(bought?);
        }
        Ok(self.checkout_rush.clone().run(buy).await?)
    }
}

const INSERT_ORDER: &str =
    "INSERT INTO poolscope_demo.orders (request, customer, product, cents) VALUES ($1, $2, $3, $4)";

const ADD_STOCK: &str = "UPDATE poolscope_demo.products SET stock = stock + $2 WHERE id = $1";

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Simulates a query that takes this time.
async fn work(connection: &Client, time: Duration) -> Result<(), Error> {
    let statement = connection.prepare_cached("SELECT pg_sleep($1)").await?;
    connection.query_one(&statement, &[&time.as_secs_f64()]).await.map(drop)
}

/// Returns a random product's id.
pub(in crate::demo) fn any_product() -> i32 {
    // Not those of reservations, so that nothing else waits while they are locked.
    fastrand::i32(RESERVED[1] + 1..=PRODUCTS)
}

/// Returns the id of a product that is looked at: nine times of ten one of a few popular ones, as in most shops, and as a
/// cache needs it.
pub(in crate::demo) fn viewed_product() -> i32 {
    if one_in(10) { any_product() } else { fastrand::i32(RESERVED[1] + 1..=RESERVED[1] + POPULAR_PRODUCTS) }
}

/// Returns a random customer's id.
pub(in crate::demo) fn any_customer() -> i32 {
    fastrand::i32(1..=CUSTOMERS)
}

/// Returns the customer of a query such as `customer=17`; a random one by default.
fn customer(query: Option<&str>) -> i32 {
    let named = query.into_iter().flat_map(|query| query.split('&')).find_map(|part| part.strip_prefix("customer="));
    named.and_then(|number| number.parse().ok()).unwrap_or_else(any_customer)
}

/// Returns a random request number, which is very likely unused.
fn new_request() -> i64 {
    fastrand::i64(1_000_000..i64::MAX)
}

fn either(products: [i32; 2]) -> i32 {
    products[fastrand::usize(0..2)]
}
