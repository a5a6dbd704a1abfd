//! The tasks that use the pool.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use poolscope::tokio_postgres::{self, types::Type};
use poolscope::{CheckoutError, Connection, Operation, Pool, RetryPolicy};
use poolscope_call_sites::{CALL_SITES, Callee, call_at};
use prometheus::{IntCounter, IntCounterVec};
use tokio::task::JoinSet;

use super::hostile;
use crate::load::read_some_rows;

/// The number of tasks of steady work.
pub(crate) const TASKS: usize = 100;

/// As many names as call sites.
const NAMES: usize = CALL_SITES;

/// The time in which each name and each call site is used once, unless the run is shorter.
const PASS: Duration = Duration::from_secs(300);

/// How often [`walk`] continues.
const STEP: Duration = Duration::from_millis(10);

/// The names of the application's own operations.
const OPERATIONS: [&str; 8] =
    ["list_orders", "add_order", "find_user", "log_in", "search", "report", "import", "clean_up"];

/// More than the tables of a pool have room for: of operations and of summaries, and of errors by operation.
const FILLING_NAMES: usize = 220;
const FILLING_ERRORS: usize = 1_100;

/// The kinds of work.
const KINDS: usize = 12;

/// No work takes longer.
const LIMIT: Duration = Duration::from_secs(5);

const POLICY: RetryPolicy = RetryPolicy::new()
    .attempts(4)
    .backoff(Duration::from_millis(1), Duration::from_millis(20))
    .deadline(Some(Duration::from_secs(3)));

type Ended = Result<(), Box<dyn std::error::Error + Send + Sync>>;
type Checkout<'a> = Pin<Box<dyn Future<Output = Result<Connection, CheckoutError>> + Send + 'a>>;

/// Checks out at the call site that calls it.
struct Unnamed<'a> {
    pool: &'a Pool,
    checkout: Option<Checkout<'a>>,
}

impl Callee for Unnamed<'_> {
    #[track_caller]
    #[inline(never)]
    fn called(&mut self) {
        self.checkout = Some(Box::pin(self.pool.get()));
    }
}

/// What all tasks share.
pub(crate) struct Callers {
    pub(crate) pool: Pool,
    /// The connections that were handed out, as their callers count them.
    pub(crate) handed_out: IntCounter,
    /// Work by its end: `ok`, `error` or `cancelled`.
    pub(crate) work: IntCounterVec,
    /// The names and call sites that were used.
    pub(crate) walked: IntCounter,
    stopping: AtomicBool,
}

impl Callers {
    pub(crate) fn new(pool: Pool) -> Self {
        Self {
            pool,
            handed_out: IntCounter::new("soak_handed_out_total", "Connections handed out.").unwrap(),
            work: IntCounterVec::new(prometheus::opts!("soak_work_total", "Work, by its end."), &["end"]).unwrap(),
            walked: IntCounter::new("soak_walked_total", "Names and call sites used.").unwrap(),
            stopping: AtomicBool::new(false),
        }
    }

    fn checkout_at(&self, site: usize) -> Checkout<'_> {
        let mut unnamed = Unnamed { pool: &self.pool, checkout: None };
        call_at(&mut unnamed, site);
        unnamed.checkout.expect("a call site")
    }

    fn hold(&self, connection: Connection) -> Connection {
        self.handed_out.inc();
        connection
    }

    /// Does work of a kind for an operation, and counts its end.
    async fn act(&self, kind: usize, operation: &str, seed: usize) {
        // Some callers give up.
        let limit = if seed.is_multiple_of(20) { Duration::from_micros(seed as u64 % 20_000) } else { LIMIT };
        let end = match tokio::time::timeout(limit, self.work(kind, operation, seed)).await {
            Ok(Ok(())) => "ok",
            Ok(Err(_)) => "error",
            Err(_) => "cancelled",
        };
        self.work.with_label_values(&[end]).inc();
    }

    async fn work(&self, kind: usize, operation: &str, seed: usize) -> Ended {
        let operation = self.pool.operation(operation);
        match kind {
            0 => return self.retried(operation, seed).await,
            1 => return self.transaction(operation, seed).await,
            _ => {}
        }
        let checkout = if kind == 2 { self.checkout_at(seed % CALL_SITES) } else { operation.get().boxed() };
        let connection = self.hold(checkout.await?);
        match kind {
            3 => connection.batch_execute(&hostile::statements(seed)).await?,
            4 => connection.batch_execute(&hostile::raise(seed)).await?,
            5 => {
                let abandoned = connection.batch_execute("SELECT pg_sleep(0.02)");
                let _ = tokio::time::timeout(Duration::from_millis(seed as u64 % 10), abandoned).await;
            }
            6 => {
                let left = ["BEGIN", "BEGIN; SELECT broken", "SET search_path = pg_catalog", "LISTEN soak"];
                connection.batch_execute(left[seed % left.len()]).await?;
            }
            7 => read_some_rows(&connection).await?,
            8 if seed.is_multiple_of(20) => connection.discard(),
            _ => echo(&connection, &hostile::name(seed)).await?,
        }
        Ok(())
    }

    async fn retried(&self, operation: Operation, seed: usize) -> Ended {
        let attempts = AtomicUsize::new(0);
        let work = async |connection: &mut Connection| {
            self.handed_out.inc();
            // Most fail once, some always, and some in a way that is not retried.
            let sqlstate = match seed % 10 {
                0 => "40001",
                1 => "23505",
                _ if attempts.fetch_add(1, Relaxed) == 0 => "40P01",
                _ => return connection.batch_execute("SELECT 1").await,
            };
            connection.batch_execute(&hostile::fail_with(sqlstate)).await
        };
        Ok(operation.idempotent(true).retry(POLICY).run(work).await?)
    }

    async fn transaction(&self, operation: Operation, seed: usize) -> Ended {
        let work = async |connection: &mut Connection| {
            self.handed_out.inc();
            let transaction = connection.transaction().await?;
            transaction.batch_execute("INSERT INTO soak VALUES (1); DELETE FROM soak").await?;
            if seed.is_multiple_of(3) { transaction.rollback().await } else { transaction.commit().await }
        };
        Ok(operation.run(work).await?)
    }

    /// Fills the tables of the pool, so that what grows after that grows without a bound.
    async fn fill(&self, task: usize) {
        for index in (task..FILLING_NAMES).step_by(TASKS) {
            for kind in [0, 1, 2, 3, 6] {
                self.act(kind, &hostile::name(index), index).await;
            }
            self.act(3, "fill", index * 8 + 5).await;
        }
        for index in (task..FILLING_ERRORS).step_by(TASKS) {
            self.act(4, OPERATIONS[index % OPERATIONS.len()], index).await;
        }
    }

    async fn repeat(&self, random: &mut fastrand::Rng) {
        while !self.stopping.load(Relaxed) {
            tokio::time::sleep(Duration::from_millis(random.u64(..80))).await;
            let (kind, seed) = (random.usize(..KINDS), random.usize(..NAMES));
            if random.bool() {
                self.act(kind, OPERATIONS[seed % OPERATIONS.len()], seed).await;
            } else {
                self.act(kind, &hostile::name(seed), seed).await;
            }
        }
    }

    /// Uses each name and each call site, again and again, for a checkout that gives up at once if it has to wait.
    async fn walk(&self, pass: Duration) {
        let begun = Instant::now();
        let mut index = 0;
        // The first pass is complete, however busy the machine is.
        while index < NAMES || !self.stopping.load(Relaxed) {
            tokio::time::sleep(STEP).await;
            let target = (begun.elapsed().as_secs_f64() / pass.as_secs_f64() * NAMES as f64) as usize;
            let target = if self.stopping.load(Relaxed) { target.max(NAMES) } else { target };
            for index in index..target {
                let operation = self.pool.operation(&hostile::name(index % NAMES));
                for checkout in [operation.get().boxed(), self.checkout_at(index % CALL_SITES)] {
                    if let Some(Ok(connection)) = checkout.now_or_never() {
                        drop(self.hold(connection));
                    }
                }
                self.walked.inc();
                if index.is_multiple_of(50) {
                    tokio::task::yield_now().await;
                }
            }
            index = index.max(target);
        }
    }
}

/// Sends a text and expects it back, unless the server refuses it.
async fn echo(connection: &Connection, text: &str) -> Result<(), tokio_postgres::Error> {
    let rows = connection.query_typed("SELECT $1", &[(&text, Type::TEXT)]).await?;
    let echoed: Vec<&str> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(echoed, [text]);
    Ok(())
}

/// The tasks, once the tables of the pool are full.
pub(crate) struct Load {
    callers: Arc<Callers>,
    tasks: JoinSet<()>,
}

impl Load {
    #[allow(clippy::print_stdout, reason = "shows the progress")]
    pub(crate) async fn start(callers: &Arc<Callers>, run: Duration) -> Self {
        let mut filling = JoinSet::new();
        for task in 0..TASKS {
            let callers = Arc::clone(callers);
            filling.spawn(async move { callers.fill(task).await });
        }
        while filling.join_next().await.is_some() {
            // The other process waits for each line, however busy the machine is.
            println!("filled");
        }
        let mut tasks = JoinSet::new();
        for task in 0..TASKS {
            let callers = Arc::clone(callers);
            tasks.spawn(async move { callers.repeat(&mut fastrand::Rng::with_seed(task as u64)).await });
        }
        let walker = Arc::clone(callers);
        tasks.spawn(async move { walker.walk(run.min(PASS)).await });
        Self { callers: Arc::clone(callers), tasks }
    }

    /// Waits until every task has ended.
    pub(crate) async fn stop(mut self) {
        self.callers.stopping.store(true, Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended.expect("no task panics");
        }
    }
}
